"""The verification stage: fidelity of the equations on held-out rows and out of range."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from symtorch_core.activations.rows import Activations, BlockFunction
from symtorch_core.expressions import Constant, Expression, constants, evaluate
from symtorch_core.reduction.moments import Moments
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.search.constants import refit_constants
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.losses import Loss
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.verification.fidelity import (
    Fidelity,
    OutputFidelity,
    measure_fidelity,
    measure_out_of_range,
)

_RIDGE = 1e-9


def verify(
    surrogate: Surrogate,
    baseline: Sequence[Fidelity | None],
    train: Activations,
    held_out: Activations | None,
    function: BlockFunction | None,
    outputs: Sequence[int],
    truth: Activations | None = None,
) -> tuple[OutputFidelity, ...]:
    """Measure the fidelity of a surrogate's equations, for each of its outputs.

    Args:
        surrogate: the equations.
        baseline: fidelity of the linear baseline; see :func:`fit_linear_baseline`.
        train: rows of the fit, with the surrogate's outputs only.
        held_out: held-out rows with the surrogate's outputs only, or None.
        function: the block, for inputs out of range; None if it cannot be evaluated there. If it fails, a warning
            says so, and the equations are not evaluated out of range.
        outputs: the block's output columns that the surrogate returns.
        truth: measurements of these outputs, or None.
    """
    nothing: Sequence[Fidelity | None] = [None] * len(baseline)

    def measure(activations: Activations | None) -> Sequence[Fidelity | None]:
        if activations is None:
            return nothing
        return measure_fidelity(
            surrogate.predict(activations.inputs), activations.outputs, activations.weights
        )

    far = nothing
    if function is not None:
        try:
            far = measure_out_of_range(surrogate.predict, function, train.inputs, outputs)
        except Exception as error:
            # A block may reject such rows in its own way, which must not lose the search.
            warnings.warn(
                f"the block failed on rows out of range, so its equations are not evaluated there ({error}); "
                "set out_of_range=False to skip this",
                RuntimeWarning,
                stacklevel=3,
            )
    fitted = measure_fidelity(surrogate.predict(train.inputs), train.outputs, train.weights)
    measured = zip(fitted, measure(held_out), far, baseline, measure(truth), strict=True)
    return tuple(OutputFidelity(*entry) for entry in measured)


def fit_linear_baseline(
    transforms: Transforms, reduction: Reduction, train: Activations, evaluated: Activations
) -> list[Fidelity]:
    """Measure the fidelity of y = b + W z, for the variables z of the equations, fitted by least squares.

    Args:
        transforms, reduction: maps from the block's inputs to z.
        train: rows to fit W and b to.
        evaluated: rows to evaluate on.
    """

    def variables(activations: Activations) -> Tensor:
        return reduction.reduce_inputs(transforms(activations.inputs)).double()

    moments = Moments.of(variables(train), train.outputs, train.weights)
    W = moments.linear_map(_RIDGE)
    prediction = moments.y + (variables(evaluated) - moments.x) @ W.T
    return measure_fidelity(prediction, evaluated.outputs, evaluated.weights)


@final
@dataclass(frozen=True)
class ReducedRows:
    """Rows as the equations see them: columns by name, targets (n, k_out) and weights, in float64."""

    columns: Mapping[str, Tensor]
    targets: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, rows: Activations, transforms: Transforms, reduction: Reduction) -> ReducedRows:
        """Build them from rows of the block, with the distilled outputs only."""
        Z = reduction.reduce_inputs(transforms(rows.inputs))
        return cls(
            dict(zip(reduction.variable_names, Z.double().unbind(-1), strict=True)),
            reduction.reduce_targets(rows.outputs, Z).double(),
            None if rows.weights is None else rows.weights.double(),
        )

    def fit_constant(self, number: int, loss: Loss) -> float:
        """Return the best constant in place of one equation."""
        target, weights = self.targets[:, number], self.weights
        mean = target.mean() if weights is None else (weights * target).sum() / weights.sum()
        (best,) = constants(refit_constants(Constant(float(mean)), {}, target, weights, loss))
        return best


def measure_constants(train: ReducedRows, held_out: ReducedRows, loss: Loss) -> tuple[float, ...]:
    """Return the held-out loss of the best constant for each equation: what every equation has to beat."""
    fitted = [train.fit_constant(number, loss) for number in range(train.targets.shape[1])]
    return tuple(
        loss(torch.tensor(value, dtype=torch.float64), target, held_out.weights)
        for value, target in zip(fitted, held_out.targets.T, strict=True)
    )


def is_clearly_worse(
    expression: Expression, number: int, train: ReducedRows, held_out: ReducedRows, loss: Loss
) -> bool:
    """Return whether an equation's held-out loss is above that of the best constant by more than chance explains.

    That is by two standard errors of the mean difference over the rows.
    """
    target, weights = held_out.targets[:, number], held_out.weights
    share = torch.ones_like(target) if weights is None else weights
    share = share / share.sum()
    ours = loss.of_residual(evaluate(expression, held_out.columns) - target)
    change = ours - loss.of_residual(train.fit_constant(number, loss) - target)
    mean = (share * change).sum()
    return not bool(mean <= 2 * (share * (change - mean)).square().sum().sqrt())


def add_validation_losses(
    fronts: Sequence[ParetoFront],
    search: SearchSpace,
    transforms: Transforms,
    reduction: Reduction,
    held_out: Activations,
) -> tuple[ParetoFront, ...]:
    """Return the fronts with the loss of each equation on held-out rows.

    Args:
        fronts: one for each column of the reduced targets.
        search: search space with the loss.
        transforms, reduction: maps from the block's inputs and outputs to variables and targets of the equations.
        held_out: held-out rows, with the distilled outputs only.
    """
    rows = ReducedRows.of(held_out, transforms, reduction)
    evaluated = []
    for number, front in enumerate(fronts):
        target = rows.targets[:, number]
        losses = [
            search.loss_function(evaluate(c.expression, rows.columns), target, rows.weights) for c in front
        ]
        evaluated.append(
            ParetoFront(
                [
                    replace(candidate, validation_loss=loss if math.isfinite(loss) else None)
                    for candidate, loss in zip(front, losses, strict=True)
                ],
                front.unrunnable,
            )
        )
    return tuple(evaluated)
