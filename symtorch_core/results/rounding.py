"""Rounding of the constants of a distillation's chosen equations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from symtorch_core.errors import SelectionError
from symtorch_core.search.front import Candidate, ParetoFront, SelectionRule
from symtorch_core.search.rounding import RoundedConstant, round_constants
from symtorch_core.search.rows import Rows
from symtorch_core.verification.verify import add_validation_losses, verify

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
    if result.search.loss_function.name != "mse":
        raise SelectionError(
            "constants are rounded within their standard errors, which are known for loss='mse' only, not for "
            f"{result.search.loss_function.name!r}"
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
    fronts = tuple(
        replace_choice(*change, result.select) for change in zip(result.fronts, chosen, rounded, strict=True)
    )
    return _measure(replace(result, fronts=fronts, rounded=(*result.rounded, *told)), chosen)


def _list_rows(result: Distillation) -> list[Rows]:
    """Return the rows of the fit of each equation."""
    train = result.train
    assert train is not None
    Z = result.reduction.reduce_inputs(result.transforms(train.inputs))
    T = result.reduction.reduce_targets(train.outputs[:, list(result.outputs)], Z).double()
    columns = dict(zip(result.reduction.variable_names, Z.double().unbind(-1), strict=True))
    weights = None if train.weights is None else train.weights.double()
    return [Rows(columns, target.contiguous(), weights, result.search) for target in T.T]


def replace_choice(
    front: ParetoFront, former: Candidate, present: Candidate, rule: SelectionRule
) -> ParetoFront:
    """Return a front with an equation in place of a former one, from which the rule chooses it.

    Equations that the rule would prefer are left out.
    """
    others = [candidate for candidate in front if candidate.expression != former.expression]
    while True:
        changed = ParetoFront([present, *others], front.unrunnable)
        preferred = changed.select(rule).expression
        if preferred == present.expression:
            return changed
        others = [candidate for candidate in others if candidate.expression != preferred]


def _measure(result: Distillation, former: tuple[Candidate, ...]) -> Distillation:
    """Return the distillation with the measures of its new equations, where they can be made again."""
    train, held_out = result.train, result.held_out
    assert train is not None
    if held_out is not None:
        unseen = held_out.select_outputs(result.outputs)
        fronts = add_validation_losses(
            result.fronts, result.search, result.transforms, result.reduction, unseen
        )
        result = replace(result, fronts=fronts)
    fidelity = result.fidelity
    if fidelity:
        some = None if held_out is None else held_out.select_outputs(result.outputs)
        truth = None if result.truth is None else result.truth.select_outputs(result.outputs)
        linear = [entry.linear for entry in fidelity]
        fitted = train.select_outputs(result.outputs)
        measured = verify(result.surrogate(), linear, fitted, some, None, result.outputs, truth)
        same = [old.expression == new.expression for old, new in zip(former, result.chosen(), strict=True)]
        kept = same if result.reduction.keeps_outputs else [False] * len(fidelity)
        fidelity = tuple(
            old if keep else new for old, new, keep in zip(fidelity, measured, kept, strict=True)
        )
    return replace(result, fidelity=fidelity, model_fidelity=None, task_metric=None)
