"""Present constants: the distillation that chooses the equations of a surrogate as they are now."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from symtorch_core.activations.rows import Activations
from symtorch_core.errors import FileFormatError
from symtorch_core.expressions import Expression
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.results.rounding import replace_choice
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.storage.functions import LostFunction
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.verification.fidelity import Fidelity, OutputFidelity, measure_fidelity
from symtorch_core.verification.verify import add_validation_losses

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_UNKNOWN = Fidelity(math.nan, math.nan, math.nan, math.nan, 0)


def adopt_constants(result: Distillation, surrogate: Surrogate) -> Distillation:
    """Return the distillation that chooses a surrogate's equations as they are now; itself, if nothing changed.

    Each of its fronts holds the present equation in place of the one it was built from. Losses and fidelity of the
    present equations are measured on the rows in memory. Without such rows losses stay those of the search, with a
    warning, and fidelity is unknown. Equations that the rule would prefer are left out of the front, and so is what
    was measured on the whole model.

    Raises:
        FileFormatError: the surrogate is of other equations, or a present equation has no finite loss.
    """
    surrogate = copy.deepcopy(surrogate).cpu().trainable(False)
    present, reduction = surrogate.expressions(), surrogate.maps()
    if len(present) != len(result.fronts):
        raise FileFormatError(
            f"the surrogate computes {len(present)} equations, the distillation has {len(result.fronts)}: give one "
            "that it built"
        )
    chosen = tuple(candidate.expression for candidate in result.chosen())
    if present == chosen and _are_equal(reduction, result.reduction):
        return result
    former = [_find(*pair, result) for pair in zip(surrogate.structure(), result.fronts, strict=True)]
    candidates = _measure(result, reduction, former, present)
    fronts = [
        replace_choice(front, old, new, result.select)
        for front, old, new in zip(result.fronts, former, candidates, strict=True)
    ]
    return replace(
        result,
        fronts=tuple(fronts),
        reduction=reduction,
        fidelity=_measure_fidelity(result, surrogate),
        model_fidelity=None,
        task_metric=None,
    )


def _are_equal(one: Reduction, other: Reduction) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(value, theirs[key].to(value)) for key, value in ours.items())


def _find(structure: Expression, front: ParetoFront, result: Distillation) -> Candidate:
    """Return the equation of a front that a surrogate was built from."""
    complexity = result.search.rules.count(structure)
    unknown = Candidate(structure, complexity, math.inf)
    return next((candidate for candidate in front if candidate.expression == structure), unknown)


def _measure(
    result: Distillation, reduction: Reduction, former: Sequence[Candidate], present: Sequence[Expression]
) -> list[Candidate]:
    """Return the present equations with their losses, where there are rows to measure them on."""
    candidates = [
        old if new == old.expression else replace(old, expression=new, errors=None)
        for old, new in zip(former, present, strict=True)
    ]
    is_lost = bool(result.transforms.lost()) or isinstance(result.search.loss, LostFunction)
    rows = result.train or result.held_out
    if any(math.isinf(old.loss) for old in former) and (rows is None or is_lost):
        raise FileFormatError(
            "the surrogate's equations are not on the fronts: give one that the result built"
        )
    if rows is None or is_lost:
        warnings.warn(
            "there are no rows in memory to measure the present constants on: the file has the losses of the search",
            RuntimeWarning,
            stacklevel=5,
        )
        return candidates

    def measure(on: Activations) -> list[float]:
        single = [ParetoFront([replace(candidate, loss=0.0)]) for candidate in candidates]
        some = on.select_outputs(result.outputs)
        judged = add_validation_losses(single, result.search, result.transforms, reduction, some)
        losses = [front[0].validation_loss for front in judged]
        return [math.inf if loss is None else loss for loss in losses]

    losses = measure(rows)
    unseen = [None] * len(losses) if result.held_out is None else measure(result.held_out)
    for name, figures in zip(result.equation_names, zip(losses, unseen, strict=True), strict=True):
        if not all(figure is None or math.isfinite(figure) for figure in figures):
            raise FileFormatError(
                f"equation {name!r} has no finite loss with its present constants: refine it again, or export to .py"
            )
    return [
        replace(candidate, loss=loss, validation_loss=held)
        for candidate, loss, held in zip(candidates, losses, unseen, strict=True)
    ]


def _measure_fidelity(result: Distillation, surrogate: Surrogate) -> tuple[OutputFidelity, ...]:
    def measure(rows: Activations | None) -> list[Fidelity] | None:
        if rows is None or result.transforms.lost():
            return None
        targets = rows.outputs[:, list(result.outputs)]
        return measure_fidelity(surrogate.predict(rows.inputs), targets, rows.weights)

    train, held_out, truth = map(measure, (result.train, result.held_out, result.truth))
    return tuple(
        OutputFidelity(
            _UNKNOWN if train is None else train[number],
            None if held_out is None else held_out[number],
            None,
            entry.linear,
            None if truth is None else truth[number],
        )
        for number, entry in enumerate(result.fidelity)
    )
