"""The last stage: how good the equations are on rows the search never saw, and beyond them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from symtorch_core.activations.rows import Activations, BlockFunction
from symtorch_core.expressions import evaluate
from symtorch_core.reduction.moments import Moments
from symtorch_core.reduction.reducer import Reduction
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
    baseline: Sequence[Fidelity],
    train: Activations,
    held_out: Activations | None,
    function: BlockFunction | None,
    outputs: Sequence[int],
) -> tuple[OutputFidelity, ...]:
    """Measure the fidelity of a surrogate's equations, for each of its outputs.

    Args:
        surrogate: the equations.
        baseline: fidelity of what the equations have to beat; see :func:`fit_linear_baseline`.
        train: rows of the fit, with the surrogate's outputs alone.
        held_out: rows held out, likewise, or None.
        function: the block, for inputs out of range; None where it cannot be asked. Where it fails, the equations are
            not judged there, and a warning says so.
        outputs: the block's output columns that the surrogate gives.
    """

    def measure(activations: Activations) -> list[Fidelity]:
        return measure_fidelity(
            surrogate.predict(activations.inputs), activations.outputs, activations.weights
        )

    nothing: Sequence[Fidelity | None] = [None] * len(baseline)
    unseen = nothing if held_out is None else measure(held_out)
    far = nothing
    if function is not None:
        try:
            far = measure_out_of_range(surrogate.predict, function, train.inputs, outputs)
        except Exception as error:
            # A block may refuse such rows in its own way; the search must not be lost for it.
            warnings.warn(
                f"the block failed on rows out of range, so its equations are not judged there ({error}); "
                "out_of_range=False leaves that out",
                RuntimeWarning,
                stacklevel=3,
            )
    return tuple(OutputFidelity(*entry) for entry in zip(measure(train), unseen, far, baseline, strict=True))


def fit_linear_baseline(
    transforms: Transforms, reduction: Reduction, train: Activations, judged: Activations
) -> list[Fidelity]:
    """Measure the fidelity of y = b + W z, for the variables z of the equations, fitted by least squares.

    Args:
        transforms, reduction: from the block's inputs to z.
        train: rows to fit W and b to.
        judged: rows to judge on.
    """

    def variables(activations: Activations) -> Tensor:
        return reduction.reduce_inputs(transforms(activations.inputs)).double()

    moments = Moments.of(variables(train), train.outputs, train.weights)
    W = moments.linear_map(_RIDGE)
    prediction = moments.y + (variables(judged) - moments.x) @ W.T
    return measure_fidelity(prediction, judged.outputs, judged.weights)


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
        search: gives the loss.
        transforms, reduction: from the block's inputs and outputs to variables and targets of the equations.
        held_out: rows held out, with the distilled outputs alone.
    """
    Z = reduction.reduce_inputs(transforms(held_out.inputs))
    T = reduction.reduce_targets(held_out.outputs, Z).double()
    columns = dict(zip(reduction.variable_names, Z.double().unbind(-1), strict=True))
    weights = None if held_out.weights is None else held_out.weights.double()
    judged = []
    for number, front in enumerate(fronts):
        losses = [search.loss_function(evaluate(c.expression, columns), T[:, number], weights) for c in front]
        judged.append(
            ParetoFront(
                [
                    replace(candidate, validation_loss=loss if math.isfinite(loss) else None)
                    for candidate, loss in zip(front, losses, strict=True)
                ],
                front.unrunnable,
            )
        )
    return tuple(judged)
