"""Between gplearn's programs and the core's expressions: functions, fitness, translation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from gplearn.fitness import _Fitness
from gplearn.functions import _Function

from symtorch_core.expressions import OPERATORS, Call, Constant, Expression, Variable
from symtorch_core.search import Loss

WORST = 1e100
"""Fitness of a program without a finite loss; gplearn averages fitness, so that it cannot be infinite."""
_REWEIGHTINGS = 3
_FLAT = 1e-24


def gplearn_function(name: str) -> Any:
    """The core's operator as a gplearn function.

    gplearn's own division and logarithm are protected: near zero they give other numbers than the equation
    they print. Ours are the core's, so that what is searched is what is deployed. ``make_function`` refuses
    functions that are not finite everywhere; a program that is not finite on the rows just gets the worst
    fitness here, so its check is passed by.
    """
    compute = OPERATORS[name].torch

    def function(*columns: np.ndarray) -> np.ndarray:
        return compute(*map(torch.from_numpy, columns)).numpy()

    return _Function(function=function, name=name, arity=OPERATORS[name].arity)


def to_expression(program: Sequence[Any], variable_names: Sequence[str]) -> Expression:
    """A program of gplearn (functions, column numbers, floats; in prefix order) as an expression of the core.

    >>> print(to_expression([gplearn_function("+"), 0, 2.5], ["x"]))
    x + 2.5
    """
    stack: list[Expression] = []
    for node in reversed(program):
        if isinstance(node, _Function):
            stack.append(Call(node.name, *(stack.pop() for _ in range(node.arity))))
        elif isinstance(node, int):
            stack.append(Variable(variable_names[node]))
        else:
            stack.append(Constant(node))
    (root,) = stack
    return root


@final
class Scaling:
    """Fits a target as offset + factor * values in closed form; for other losses than mse, by reweighting.

    Without it, a search in which constants only come from chance spends its time on the scale of the target.
    """

    def __init__(self, target: np.ndarray, loss: Loss) -> None:
        self._target = target
        self._rounds = 0 if loss.name == "mse" else _REWEIGHTINGS
        self._of_residual = _on_arrays(loss.of_residual)
        self._influence = _on_arrays(loss.influence)

    def fit(self, values: np.ndarray) -> tuple[float, float]:
        """Offset and factor."""
        offset, factor = self._line(values, None)
        for _ in range(self._rounds):
            offset, factor = self._line(values, self._influence(offset + factor * values - self._target))
        return offset, factor

    def _line(self, values: np.ndarray, weights: np.ndarray | None) -> tuple[float, float]:
        total = float(len(values)) if weights is None else float(weights.sum())
        weighted = values if weights is None else weights * values
        middle = float(weighted.sum()) / total
        target = self._target if weights is None else weights * self._target
        target_middle = float(target.sum()) / total
        deviation = values - middle
        spread = float((weighted - middle * (1.0 if weights is None else weights)) @ deviation)
        if spread <= _FLAT * float(np.abs(weighted) @ np.abs(values)):
            return target_middle, 0.0
        factor = float((target - target_middle * (1.0 if weights is None else weights)) @ deviation) / spread
        return target_middle - factor * middle, factor

    def error(self, values: np.ndarray) -> float:
        """The loss after scaling; the worst there is where the values are not finite."""
        if not np.isfinite(values).all() or np.abs(values).max() > WORST:
            return WORST
        offset, factor = self.fit(values)
        error = float(self._of_residual(offset + factor * values - self._target).mean())
        return error if error < WORST else WORST

    def fitness(self) -> Any:
        """The error as gplearn takes it."""

        def measure(target: np.ndarray, values: np.ndarray, weights: np.ndarray) -> float:
            return self.error(values)

        return _Fitness(function=measure, greater_is_better=False)


def _on_arrays(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: function(torch.from_numpy(values)).numpy()
