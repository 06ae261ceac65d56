"""Present constants: the distillation that chooses the equations of a surrogate as they are now."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from symtorch_core.activations.rows import Activations
from symtorch_core.errors import FileFormatError
from symtorch_core.expressions import Expression
from symtorch_core.reduction.reducer import Reduction, are_equal
from symtorch_core.results.choosing import Choice
from symtorch_core.results.judging import collect_samples, judge_chosen
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.space import SearchSpace
from symtorch_core.storage.functions import LostFunction
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.verification.verify import add_fidelity, add_validation_losses

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation


def adopt_constants(result: Distillation, surrogate: Surrogate) -> Distillation:
    """Return the distillation that chooses a surrogate's equations as they are now; itself, if nothing changed.

    Each of its fronts holds the present equation in place of the one it was built from. Losses and fidelity of
    equations with other constants are measured on the rows in memory. Without such rows losses stay those of the
    search, with a warning, and fidelity is unknown. Equations that are neither better nor simpler are left out of the
    front, and so is what was measured on the whole model.

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
    former = [
        _find(*each) for each in zip(surrogate.structure(), result.fronts, result.searches, strict=True)
    ]
    same_maps = are_equal(reduction, result.reduction)
    same = [same_maps and old.expression == new for old, new in zip(former, present, strict=True)]
    candidates, fronts = former, list(result.fronts)
    if not all(same):
        measured = _measure(result, reduction, former, present)
        candidates = [
            old if unchanged else new for old, new, unchanged in zip(former, measured, same, strict=True)
        ]
        fronts = [
            front if unchanged else replace_equation(front, old, new)
            for front, old, new, unchanged in zip(result.fronts, former, candidates, same, strict=True)
        ]
    choices = tuple(
        choice if choice.complexity == candidate.complexity else Choice(candidate.complexity, "complexity")
        for choice, candidate in zip(result.choices, candidates, strict=True)
    )
    if all(same) and choices == result.choices:
        return result
    changed = replace(
        result,
        fronts=tuple(fronts),
        choices=choices,
        reduction=reduction,
        model_fidelity=None,
        task_metric=None,
    )
    return replace(changed, fidelity=judge_chosen(changed))


def _find(structure: Expression, front: ParetoFront, search: SearchSpace) -> Candidate:
    """Return the equation of a front that a surrogate was built from."""
    complexity = search.rules.count(structure)
    unknown = Candidate(structure, complexity, math.inf)
    return next((candidate for candidate in front if candidate.expression == structure), unknown)


def _measure(
    result: Distillation, reduction: Reduction, former: Sequence[Candidate], present: Sequence[Expression]
) -> list[Candidate]:
    """Return the present equations with their losses, where there are rows to measure them on."""
    candidates = [
        old if new == old.expression else replace(old, expression=new, fidelity=None, errors=None)
        for old, new in zip(former, present, strict=True)
    ]
    is_lost = bool(result.transforms.lost()) or any(
        isinstance(search.loss, LostFunction) for search in result.searches
    )
    rows = result.train or result.held_out
    if any(math.isinf(old.loss) for old in former) and (rows is None or is_lost):
        raise FileFormatError(
            "the surrogate's equations are not on the fronts: give one that the result built"
        )
    if rows is None or is_lost:
        warnings.warn(
            "there are no rows in memory to measure the present constants on: their losses are those of the search",
            RuntimeWarning,
            stacklevel=5,
        )
        return candidates

    def measure(on: Activations) -> list[float]:
        single = [ParetoFront([replace(candidate, loss=0.0)]) for candidate in candidates]
        some = on.select_outputs(result.outputs)
        judged = add_validation_losses(single, result.searches, result.transforms, reduction, some)
        losses = [front[0].validation_loss for front in judged]
        return [math.inf if loss is None else loss for loss in losses]

    losses = measure(rows)
    unseen = [None] * len(losses) if result.held_out is None else measure(result.held_out)
    for name, figures in zip(result.equation_names, zip(losses, unseen, strict=True), strict=True):
        if not all(figure is None or math.isfinite(figure) for figure in figures):
            raise FileFormatError(
                f"equation {name!r} has no finite loss with its present constants: refine it again, or export to .py"
            )
    fronts = [
        ParetoFront([replace(candidate, loss=loss, validation_loss=held)])
        for candidate, loss, held in zip(candidates, losses, unseen, strict=True)
    ]
    return [front[0] for front in add_fidelity(fronts, collect_samples(result), result.transforms, reduction)]


def replace_equation(front: ParetoFront, former: Candidate, present: Candidate) -> ParetoFront:
    """Return a front with the present equation in place of the former one, without others that beat it."""
    others = [
        candidate
        for candidate in front
        if candidate.expression != former.expression
        and (candidate.complexity > present.complexity or candidate.loss > present.loss)
    ]
    return ParetoFront([present, *others], front.unrunnable)
