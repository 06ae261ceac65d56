"""Functions and fitness for gplearn, and the translation of its programs to expressions of the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from gplearn.fitness import _Fitness
from gplearn.functions import _Function

from symtorch_core.expressions import Constant, Expression, Variable
from symtorch_core.search import Function, Loss

WORST = 1e100
"""Fitness of a program without a finite loss. gplearn averages fitness, so it must not be infinite."""
_REWEIGHTINGS = 3
_FLAT = 1e-24


def make_function(operator: Function) -> Any:
    """Return an operator of a search as a gplearn function.

    gplearn's own division and logarithm are protected: near zero their values differ from those of the printed
    equation. These functions are the core's, so the search and the surrogate compute the same. gplearn's own
    ``make_function`` refuses functions that are not finite everywhere. It is not used: a program that is not finite on
    the rows gets the worst fitness.
    """

    def function(*columns: np.ndarray) -> np.ndarray:
        return operator.compute(*map(torch.from_numpy, columns)).numpy()

    return _Function(function=function, name=operator.name, arity=operator.arity)


def to_expression(
    program: Sequence[Any], variable_names: Sequence[str], operators: Mapping[str, Function]
) -> Expression:
    """Return a program of gplearn as an expression of the core.

    Args:
        program: functions, column numbers and constants, in prefix order.
        variable_names: names of the columns.
        operators: of the search, by name.

    >>> from symtorch_core import SearchSpace
    >>> from symtorch_core.search import list_functions
    >>> operators = {operator.name: operator for operator in list_functions(SearchSpace(), "gplearn")}
    >>> print(to_expression([make_function(operators["+"]), 0, 2.5], ["x"], operators))
    x + 2.5
    """
    stack: list[Expression] = []
    for node in reversed(program):
        if isinstance(node, _Function):
            stack.append(operators[node.name].build(*(stack.pop() for _ in range(node.arity))))
        elif isinstance(node, int):
            stack.append(Variable(variable_names[node]))
        else:
            stack.append(Constant(node))
    (root,) = stack
    return root


@final
class Scaling:
    """Fits a target by offset + factor * values, in closed form; by reweighting for losses other than mse.

    Constants of new programs are random, so without scaling the search would spend its time on the target's scale.

    Args:
        target: shape (n,).
        loss: the loss to minimise.
    """

    def __init__(self, target: np.ndarray, loss: Loss) -> None:
        self._target = target
        self._rounds = 0 if loss.name == "mse" else _REWEIGHTINGS
        self._of_residual = _wrap_for_arrays(loss.of_residual)
        self._influence = _wrap_for_arrays(loss.influence)

    def fit(self, values: np.ndarray) -> tuple[float, float]:
        """Return the best offset and factor for values, shape (n,)."""
        offset, factor = self._fit_line(values, None)
        for _ in range(self._rounds):
            offset, factor = self._fit_line(values, self._influence(offset + factor * values - self._target))
        return offset, factor

    def _fit_line(self, values: np.ndarray, weights: np.ndarray | None) -> tuple[float, float]:
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

    def compute_error(self, values: np.ndarray) -> float:
        """Return the loss of values, shape (n,), after scaling; ``WORST`` if they are not finite."""
        if not np.isfinite(values).all() or np.abs(values).max() > WORST:
            return WORST
        offset, factor = self.fit(values)
        error = float(self._of_residual(offset + factor * values - self._target).mean())
        return error if error < WORST else WORST

    def make_fitness(self, before: Callable[[], None]) -> Any:
        """Return the error as a fitness function of gplearn, which calls ``before`` each time."""

        def measure(target: np.ndarray, values: np.ndarray, weights: np.ndarray) -> float:
            before()
            return self.compute_error(values)

        return _Fitness(function=measure, greater_is_better=False)


def _wrap_for_arrays(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: function(torch.from_numpy(values)).numpy()
