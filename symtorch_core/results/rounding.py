"""Rounding of the constants of a distillation's chosen equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from symtorch_core.errors import SelectionError
from symtorch_core.results.judging import collect_samples, judge_chosen
from symtorch_core.results.present import replace_equation
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.rounding import RoundedConstant, round_constants
from symtorch_core.search.rows import Rows
from symtorch_core.verification.verify import ReducedRows, add_fidelity, add_validation_losses

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation


def round_chosen(result: Distillation) -> Distillation:
    """Return the distillation with rounded constants in its chosen equations; see its method.

    Raises:
        SelectionError: the rows of the fit are not in memory, the loss is not mse, or a transform is lost.
    """
    train = result.train
    if train is None:
        raise SelectionError(
            "constants are rounded where the rows of the fit do not object, but these are not in memory: distill "
            "again, and round before you save"
        )
    for search in result.searches:
        if search.loss_function.name != "mse":
            raise SelectionError(
                "constants are rounded within their standard errors, which are known for loss='mse' only, not for "
                f"{search.loss_function.name!r}"
            )
    chosen = result.chosen()
    rounded: list[Candidate] = []
    told: list[RoundedConstant] = []
    for candidate, rows, name in zip(chosen, _list_rows(result), result.equation_names, strict=True):
        new, changes = round_constants(candidate, rows, name)
        rounded.append(new)
        told.extend(changes)
    if not told:
        return result
    measured = _measure(result, rounded)
    rounded = [old if same is old else new for old, same, new in zip(chosen, rounded, measured, strict=True)]
    fronts = [
        front if new is old else replace_equation(front, old, new)
        for front, old, new in zip(result.fronts, chosen, rounded, strict=True)
    ]
    choices = [
        replace(choice, complexity=candidate.complexity)
        for choice, candidate in zip(result.choices, rounded, strict=True)
    ]
    changed = replace(
        result,
        fronts=tuple(fronts),
        choices=tuple(choices),
        rounded=(*result.rounded, *told),
        model_fidelity=None,
        task_metric=None,
    )
    return replace(changed, fidelity=judge_chosen(changed))


def _list_rows(result: Distillation) -> list[Rows]:
    """Return the rows of the fit of each equation."""
    assert result.train is not None
    train = result.train.select_outputs(result.outputs)
    reduced = ReducedRows.of(train, result.transforms, result.reduction)
    return [
        Rows(reduced.columns, target.contiguous(), reduced.weights, search)
        for target, search in zip(reduced.targets.T, result.searches, strict=True)
    ]


def _measure(result: Distillation, rounded: Sequence[Candidate]) -> list[Candidate]:
    """Return the new equations with what rows in memory tell of them."""
    samples = collect_samples(result)
    fronts: Sequence[ParetoFront] = [ParetoFront([candidate]) for candidate in rounded]
    if samples.held_out is not None:
        maps = (result.searches, result.transforms, result.reduction)
        fronts = add_validation_losses(fronts, *maps, samples.held_out)
    fronts = add_fidelity(fronts, samples, result.transforms, result.reduction)
    return [front[0] for front in fronts]
