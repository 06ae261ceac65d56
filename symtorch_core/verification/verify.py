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
from symtorch_core.results.distillation import Distillation, OutputFidelity
from symtorch_core.search.front import ParetoFront
from symtorch_core.verification.fidelity import Fidelity, measure_fidelity, measure_out_of_range

_RIDGE = 1e-9


def verify(
    result: Distillation, train: Activations, held_out: Activations | None, function: BlockFunction | None
) -> Distillation:
    """The result with held-out losses on its fronts and the fidelity of the chosen equations.

    Args:
        result: what a search gave.
        train: rows of the fit.
        held_out: rows held out, or None.
        function: the block, for inputs out of range; None where it cannot be asked.
    """
    if held_out is not None:
        result = replace(result, fronts=add_validation_losses(result, held_out))
    surrogate = result.surrogate()
    columns = list(result.outputs)

    def of(activations: Activations) -> list[Fidelity]:
        predicted = surrogate.predict(activations.inputs)
        return measure_fidelity(predicted, activations.outputs[:, columns], activations.weights)

    nothing: Sequence[Fidelity | None] = [None] * len(columns)
    unseen = nothing if held_out is None else of(held_out)
    far = nothing
    if function is not None:
        try:
            far = measure_out_of_range(lambda rows: surrogate.predict(rows), function, train.inputs, columns)
        except Exception as error:
            # A block may refuse such rows in its own way; the search must not be lost for it.
            warnings.warn(
                f"the block failed on rows out of range, so its equations are not judged there ({error}); "
                "out_of_range=False leaves that out",
                RuntimeWarning,
                stacklevel=3,
            )
    baseline = fit_linear_baseline(result, train, held_out or train)
    judged = zip(of(train), unseen, far, baseline, strict=True)
    return replace(result, fidelity=tuple(OutputFidelity(*entry) for entry in judged))


def fit_linear_baseline(result: Distillation, train: Activations, judged: Activations) -> list[Fidelity]:
    """Fidelity of y = b + W z, for the variables z of the equations, fitted by least squares.

    Args:
        result: gives the variables and the output columns.
        train: rows of the fit.
        judged: rows to judge on.
    """
    columns = list(result.outputs)

    def variables(activations: Activations) -> Tensor:
        return result.reduction.reduce_inputs(result.transforms(activations.inputs)).double()

    moments = Moments.of(variables(train), train.outputs[:, columns], train.weights)
    W = moments.linear_map(_RIDGE)
    prediction = moments.y + (variables(judged) - moments.x) @ W.T
    return measure_fidelity(prediction, judged.outputs[:, columns], judged.weights)


def add_validation_losses(result: Distillation, held_out: Activations) -> tuple[ParetoFront, ...]:
    """The fronts with the loss of each equation on held-out rows."""
    Z = result.reduction.reduce_inputs(result.transforms(held_out.inputs))
    T = result.reduction.reduce_targets(held_out.outputs[:, list(result.outputs)], Z).double()
    columns = dict(zip(result.reduction.variable_names, Z.double().unbind(-1), strict=True))
    weights = None if held_out.weights is None else held_out.weights.double()
    judged = []
    for number, front in enumerate(result.fronts):
        losses = [
            result.search.loss_function(evaluate(c.expression, columns), T[:, number], weights) for c in front
        ]
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
