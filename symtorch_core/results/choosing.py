"""Choices of an equation from each front: by a rule, by complexity, or by the user's own function."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from torch import Tensor

from symtorch_core.components.checks import find_position
from symtorch_core.errors import SelectionError
from symtorch_core.results.judging import judge_chosen, measure_fronts
from symtorch_core.results.origin import Origin
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.selection import SelectionRule

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

Pick = SelectionRule | int | Candidate | Callable[[ParetoFront], Candidate | int]
"""What chooses from one front: a rule, a complexity, one of its equations, or a function of the front."""
Picks = Pick | Sequence[Pick] | Mapping[int | str, Pick]
"""One for all fronts, a list with one for each, or some by the equation's name or number; others stay as chosen."""
ChosenBy = SelectionRule | Literal["complexity", "own choice"]


@final
@dataclass(frozen=True)
class Choice:
    """The equation chosen from one front.

    Attributes:
        complexity: its complexity; None if the front is empty.
        by: the rule that chose it, "complexity", or "own choice" for a function of the user's.
    """

    complexity: int | None
    by: ChosenBy


def choose_by_rule(fronts: Sequence[ParetoFront], rule: SelectionRule) -> tuple[Choice, ...]:
    """Return what a rule chooses from each front; nothing from an empty one.

    Raises:
        SelectionError: the rule is unknown, or needs held-out losses and there are none.
    """
    return tuple(Choice(front.select(rule).complexity if front else None, rule) for front in fronts)


def choose(
    result: Distillation, rule: Picks | None, complexity: Picks | None, data: Any = None
) -> Distillation:
    """Return the result with other equations chosen; see :meth:`Distillation.choose`.

    Raises:
        SelectionError: nothing is chosen, or what is not there.
    """
    if rule is None and complexity is None:
        raise SelectionError(
            'choose takes a rule, like "best", complexity=7, {name: complexity or rule}, or a function of a front'
        )
    judged = result
    if data is not None:
        if rule is None:
            raise SelectionError(
                "data= judges equations for a rule or a function: with complexity=, leave it out"
            )
        judged = replace(result, fronts=measure_fronts(result, data))
    choices = resolve_choices(judged, rule, complexity)
    changed = replace(result, choices=choices)
    if [c.complexity for c in choices] == [c.complexity for c in result.choices]:
        return changed
    return replace(changed, fidelity=judge_chosen(changed), model_fidelity=None, task_metric=None)


def describe_choices(result: Distillation, origin: Origin) -> tuple[str, str]:
    """Return the names of the equations of a search, empty if all are of one search, and what chose them."""
    if not result.earlier:
        return "", result.select
    positions = [result.outputs.index(column) for column in origin.outputs]
    by = dict.fromkeys(result.choices[position].by for position in positions)
    return ", ".join(result.output_names[position] for position in positions), " and ".join(by)


def resolve_choices(
    result: Distillation, select: Picks | None = None, complexity: Picks | None = None
) -> tuple[Choice, ...]:
    """Return the choice from each front of a result; what is not named stays as chosen.

    Args:
        result: the result.
        select: a rule, or another kind of :data:`Picks`.
        complexity: complexities. Beside ``select``, only for some equations, by name or number.

    Raises:
        SelectionError: the choice is empty, names an equation twice or one that does not exist, or what it wants of a
            front is not there; the message names the equation and lists what there is.
    """
    choices = list(result.choices)
    if isinstance(complexity, str):
        raise SelectionError(
            f"complexity must be a whole number, a list or a dictionary, got {complexity!r}: a rule is given without "
            "complexity="
        )
    if select is not None and complexity is not None and not isinstance(complexity, Mapping):
        raise SelectionError(
            "give a rule or complexity=, not both; complexity={name: number} chooses some equations beside a rule"
        )
    for picks in (select, complexity):
        if picks is not None:
            for position, pick in _spread(result, picks).items():
                choices[position] = _choose_one(result, position, pick)
    return tuple(choices)


def _spread(result: Distillation, picks: Any) -> dict[int, Any]:
    """Return what chooses from each front, by its position."""
    names = result.equation_names
    picks = picks.tolist() if isinstance(picks, (np.ndarray, Tensor)) else picks
    if isinstance(picks, Mapping):
        spread: dict[int, Any] = {}
        for key, pick in picks.items():
            position = find_position("equation", key, result.equation_numbers, names, SelectionError)
            if position in spread:
                raise SelectionError(f"equation {names[position]!r} is named twice: {list(picks)}")
            spread[position] = pick
        if not spread:
            raise SelectionError(f"the choice is empty: name at least one of {', '.join(names)}")
        return spread
    single = isinstance(picks, (str, numbers.Number, Candidate)) or callable(picks)
    if isinstance(picks, Set) or not (single or isinstance(picks, Iterable)):
        raise SelectionError(
            f"cannot choose by {picks!r}: give a rule, a complexity, a list with one for each equation, a dictionary "
            "{name: complexity or rule}, or a function of a front"
        )
    listed = [picks] * len(names) if single else list(picks)
    if len(listed) != len(names):
        raise SelectionError(
            f"{len(listed)} choices for {len(names)} equations ({', '.join(names)}): give one for each, in this order, "
            "or some as {name: complexity}"
        )
    return dict(enumerate(listed))


def _choose_one(result: Distillation, position: int, pick: Any) -> Choice:
    front, name = result.fronts[position], result.equation_names[position]
    try:
        if isinstance(pick, str):
            chosen, by = front.select(pick), pick  # type: ignore[arg-type]  # which checks it
        elif callable(pick):
            chosen, by = _find(front, pick(front)), "own choice"
        elif isinstance(pick, Candidate):
            chosen, by = _find(front, pick), "own choice"
        else:
            chosen, by = _find(front, pick), "complexity"
    except SelectionError as error:
        raise SelectionError(f"equation {result.equation_numbers[position]} ({name}): {error}") from None
    return Choice(chosen.complexity, by)  # type: ignore[arg-type]


def _find(front: ParetoFront, wanted: Any) -> Candidate:
    """Return the equation of a front that is meant by itself or by its complexity."""
    if isinstance(wanted, Candidate):
        if wanted not in front:
            raise SelectionError(f"{wanted} is not on the front; there are: {', '.join(map(str, front))}")
        return wanted
    if not isinstance(wanted, numbers.Integral) or isinstance(wanted, bool):
        raise SelectionError(
            "a rule, a complexity (a whole number), or a function of the front that returns one of its equations or a "
            f"complexity chooses from it, not {wanted!r}"
        )
    return front.select(complexity=int(wanted))
