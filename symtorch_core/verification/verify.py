"""The verification stage: fidelity of the equations on held-out rows and out of range."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from symtorch_core.activations.rows import Activations, BlockFunction
from symtorch_core.expressions import Constant, evaluate
from symtorch_core.reduction.moments import Moments
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.search.constants import refit_constants
from symtorch_core.search.front import ParetoFront
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


def measure_constants(
    search: SearchSpace,
    transforms: Transforms,
    reduction: Reduction,
    train: Activations,
    held_out: Activations,
) -> tuple[float, ...]:
    """Return the held-out loss of the best constant for each equation: what every equation has to beat.

    Args:
        search: search space with the loss.
        transforms, reduction: maps from the block's inputs and outputs to variables and targets of the equations.
        train: rows that the constants are fitted to, with the distilled outputs only.
        held_out: held-out rows, with the distilled outputs only.
    """

    def read(rows: Activations) -> tuple[Tensor, Tensor | None]:
        Z = reduction.reduce_inputs(transforms(rows.inputs))
        weights = None if rows.weights is None else rows.weights.double()
        return reduction.reduce_targets(rows.outputs, Z).double(), weights

    (fitted, weights), (unseen, unseen_weights) = read(train), read(held_out)
    losses = []
    for target, target_unseen in zip(fitted.T, unseen.T, strict=True):
        mean = target.mean() if weights is None else (weights * target).sum() / weights.sum()
        best = refit_constants(Constant(float(mean)), {}, target, weights, search.loss_function)
        losses.append(search.loss_function(evaluate(best, {}), target_unseen, unseen_weights))
    return tuple(losses)


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
    Z = reduction.reduce_inputs(transforms(held_out.inputs))
    T = reduction.reduce_targets(held_out.outputs, Z).double()
    columns = dict(zip(reduction.variable_names, Z.double().unbind(-1), strict=True))
    weights = None if held_out.weights is None else held_out.weights.double()
    evaluated = []
    for number, front in enumerate(fronts):
        losses = [search.loss_function(evaluate(c.expression, columns), T[:, number], weights) for c in front]
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
