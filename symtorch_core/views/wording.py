"""Sentences and numbers that terminal, notebook and page share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from symtorch_core.components.escaping import shorten
from symtorch_core.expressions.printing import format_with_error
from symtorch_core.search.fidelity import EquationFidelity, Fidelity
from symtorch_core.search.front import Candidate
from symtorch_core.search.rounding import RoundedConstant
from symtorch_core.verification.fidelity import OutputFidelity

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_AGREES, _PARTS = 0.95, 0.9
_MOST_NAMES = 3
_LONGEST_NAME = 40
HELD_OUT, FITTED = "held-out rows", "rows of the fit"


def count(number: int, noun: str) -> str:
    """Return a number of things.

    >>> count(1, "equation"), count(2, "equation"), count(0, "row")
    ('1 equation', '2 equations', '0 rows')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def list_names(names: Sequence[str]) -> str:
    """Return the first few of many names, and how many more there are.

    >>> list_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def format_r2(entry: Fidelity | None) -> str:
    """Return R2 with five decimals; a dash if there is none."""
    return "–" if entry is None or math.isnan(entry.r2) else f"{entry.r2:.5f}"


def make_headline(result: Distillation) -> str:
    """Return a title: whose equations they are."""
    block = result.provenance.source.block
    noun = "Equation" if len(result.fronts) == 1 else "Equations"
    return noun if block == "arrays" else f"{noun} of {block}"


def say_where(result: Distillation) -> str:
    """Return which rows are drawn."""
    return FITTED if result.held_out is None else HELD_OUT


def pick_rows(entry: EquationFidelity | OutputFidelity | None, where: str) -> Fidelity | None:
    """Return the fidelity on these rows, if it was measured."""
    return entry and (entry.held_out if where == HELD_OUT else entry.train)


def name_regressors(result: Distillation) -> str:
    """Return the searches that found the equations."""
    return " and ".join(dict.fromkeys(origin.provenance.regressor for origin in result.origins))


def describe_equations(result: Distillation) -> list[str]:
    """Return a note for each chosen equation: its complexity, and R2 where it is an output of the block."""
    notes = [f"complexity {candidate.complexity}" for candidate in result.chosen()]
    if not result.reduction.keeps_outputs or not result.fidelity:
        return notes
    return [
        ", ".join([*_describe_r2(entry), note]) for entry, note in zip(result.fidelity, notes, strict=True)
    ]


def _describe_r2(entry: OutputFidelity) -> list[str]:
    where = FITTED if entry.held_out is None else HELD_OUT
    measured = {f"on {where}": pick_rows(entry, where), "against your data": entry.truth}
    return [f"R² {format_r2(r2)} {of}" for of, r2 in measured.items() if r2 is not None]


def describe_truth(result: Distillation) -> str:
    """Return R2 of the outputs against the user's own measurements; empty if there are none."""
    values = [
        f"{name} {format_r2(entry.truth)}"
        for name, entry in zip(result.output_names, result.fidelity, strict=False)
        if entry.truth is not None
    ]
    return f"R² against your data: {', '.join(values)}" if values else ""


def describe_rounding(entry: RoundedConstant) -> str:
    """Return what was rounded, as text."""
    number, error, power = format_with_error(entry.before, entry.error)
    scale = f"e{power:+03d}" if power else ""
    return f"{entry.equation}: ({number} ± {error}){scale} was rounded to {entry.text}"


def describe_left_out(result: Distillation) -> dict[int, str]:
    """Return by position, for each equation beyond which the loss falls steeply, a line about the one to take."""
    names, lines = result.equation_names, {}
    for position, (front, chosen) in enumerate(zip(result.fronts, result.chosen(), strict=True)):
        better = front.find_left_out(chosen)
        if better is None:
            continue
        name = names[position]
        # A name that is not unique means the first one, and a very long one is not for copying.
        unclear = names.count(name) > 1 or len(name) > _LONGEST_NAME
        key = result.equation_numbers[position] if unclear else name
        lines[position] = (
            f"{shorten(name, _LONGEST_NAME)}: at complexity {better.complexity}, "
            f"{better.complexity - chosen.complexity} more, the loss is {_tell_fall(chosen, better)} lower: "
            f"choose(complexity={{{key!r}: {better.complexity}}})"
        )
    return lines


def _tell_fall(chosen: Candidate, better: Candidate) -> str:
    """Return by which share the loss falls: rounding never makes it all of the loss."""
    share = 1 - better.loss / chosen.loss
    return "over 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def explain_out_of_range(result: Distillation) -> str:
    """Return what a low R2 out of range means where the one within is high; empty if there is no such output."""
    names = [
        name
        for name, entry in zip(result.output_names, result.fidelity, strict=False)
        if _parts_out_of_range(entry)
    ]
    if not names:
        return ""
    where = f" for {list_names(names)}" if len(result.fidelity) > 1 else ""
    return (
        f"Beyond the range of the data, equation and block part{where}, though they agree within it. A network seldom "
        "holds out there what it learned, so this alone says nothing against the equation."
    )


def _parts_out_of_range(entry: OutputFidelity) -> bool:
    within, beyond = entry.held_out or entry.train, entry.out_of_range
    return within is not None and beyond is not None and within.r2 >= _AGREES and beyond.r2 < _PARTS
