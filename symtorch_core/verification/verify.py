"""The verification stage: fidelity of equations on the rows of the fit, on held-out rows and out of range."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, final

import torch
from torch import Tensor

from symtorch_core.activations.rows import Activations, BlockFunction
from symtorch_core.expressions import Constant, Expression, constants, evaluate
from symtorch_core.reduction.moments import Moments
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.search.constants import refit_constants
from symtorch_core.search.fidelity import EquationFidelity, Fidelity, measure_fidelity
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.losses import Loss
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.verification.fidelity import extrapolate_inputs

_RIDGE = 1e-9
_T = TypeVar("_T")


@final
@dataclass(frozen=True)
class Samples:
    """Rows that equations are judged on, with the distilled outputs only; None for rows that there are not.

    Attributes:
        train: rows of the fit.
        held_out: rows that the search never saw.
        out_of_range: rows beyond the range of the fit.
        truth: the user's own measurements.
    """

    train: Activations | None
    held_out: Activations | None = None
    out_of_range: Activations | None = None
    truth: Activations | None = None

    def each(self, measure: Callable[[Activations], _T]) -> list[_T | None]:
        """Return a measure of each kind of rows, None for those that there are not."""
        kinds = (self.train, self.held_out, self.out_of_range, self.truth)
        return [None if rows is None else measure(rows) for rows in kinds]


def add_out_of_range(
    samples: Samples, function: BlockFunction, outputs: Sequence[int], transforms: Transforms
) -> Samples:
    """Return the samples with rows beyond the range of the fit, on which the block runs once.

    If the block or a transform fails there, a warning says so, and there are no such rows.

    Args:
        samples: the samples; the rows of the fit are among them.
        function: the block.
        outputs: the block's output columns that are distilled.
        transforms: maps from the block's inputs to derived variables.
    """
    assert samples.train is not None
    far = extrapolate_inputs(samples.train.inputs)
    try:
        transforms(far)
        targets = function(far)[:, list(outputs)]
    except Exception as error:
        # A block may reject such rows in its own way, which must not lose the search.
        warnings.warn(
            f"the block failed on rows out of range, so its equations are not evaluated there ({error}); "
            "set out_of_range=False to skip this",
            RuntimeWarning,
            stacklevel=3,
        )
        return samples
    # Weights are of rows as they came, not of rows that were moved.
    return replace(samples, out_of_range=replace(samples.train, inputs=far, outputs=targets, weights=None))


def add_fidelity(
    fronts: Sequence[ParetoFront], samples: Samples, transforms: Transforms, reduction: Reduction
) -> tuple[ParetoFront, ...]:
    """Return the fronts with the fidelity of each equation, in the precision of the rows.

    Args:
        fronts: one for each column of the reduced targets.
        samples: rows to judge on.
        transforms, reduction: maps from the block's inputs and outputs to variables and targets of the equations.
    """

    def measure(rows: Activations) -> list[list[Fidelity]]:
        Z = reduction.reduce_inputs(transforms(rows.inputs))
        T = reduction.reduce_targets(rows.outputs, Z).double()
        columns = dict(zip(reduction.variable_names, Z.unbind(-1), strict=True))

        def judge(candidate: Candidate, target: Tensor) -> Fidelity:
            value = evaluate(candidate.expression, columns).expand_as(target)
            return measure_fidelity(value[:, None], target[:, None], rows.weights)[0]

        # One by one: all of a front at once could take far more memory than the rows.
        return [
            [judge(candidate, target) for candidate in front]
            for target, front in zip(T.unbind(-1), fronts, strict=True)
        ]

    kinds = samples.each(measure)
    return tuple(
        ParetoFront(
            [
                replace(
                    candidate,
                    fidelity=EquationFidelity(
                        *(None if kind is None else kind[number][position] for kind in kinds)
                    ),
                )
                for position, candidate in enumerate(front)
            ],
            front.unrunnable,
        )
        for number, front in enumerate(fronts)
    )


def judge_surrogate(surrogate: Surrogate, samples: Samples) -> list[EquationFidelity]:
    """Return the fidelity of a surrogate's equations for each of its outputs; ``samples`` are the rows to judge on."""
    kinds = samples.each(
        lambda rows: measure_fidelity(surrogate.predict(rows.inputs), rows.outputs, rows.weights)
    )
    count = max(len(kind) for kind in kinds if kind is not None)
    return [
        EquationFidelity(*(None if kind is None else kind[number] for kind in kinds))
        for number in range(count)
    ]


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


def measure_constants(
    train: ReducedRows, held_out: ReducedRows, searches: Sequence[SearchSpace]
) -> tuple[float, ...]:
    """Return the held-out loss of the best constant for each equation: what every equation has to beat."""
    losses = []
    for number, search in enumerate(searches):
        best = torch.tensor(train.fit_constant(number, search.loss_function), dtype=torch.float64)
        losses.append(search.loss_function(best, held_out.targets[:, number], held_out.weights))
    return tuple(losses)


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
    searches: Sequence[SearchSpace],
    transforms: Transforms,
    reduction: Reduction,
    held_out: Activations,
) -> tuple[ParetoFront, ...]:
    """Return the fronts with the loss of each equation on held-out rows.

    Args:
        fronts: one for each column of the reduced targets.
        searches: the search space of each, with the loss.
        transforms, reduction: maps from the block's inputs and outputs to variables and targets of the equations.
        held_out: held-out rows, with the distilled outputs only.
    """
    rows = ReducedRows.of(held_out, transforms, reduction)
    evaluated = []
    for number, (front, search) in enumerate(zip(fronts, searches, strict=True)):
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
