"""Sentences and numbers that terminal, notebook and page share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from symtorch_core.verification.fidelity import Fidelity, OutputFidelity

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_AGREES, _PARTS = 0.95, 0.9
_MOST_NAMES = 3


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
    return "held-out rows" if result.held_out is not None else "rows of the fit"


def describe_equations(result: Distillation) -> list[str]:
    """Return a note for each chosen equation: its complexity, and its R2 where it is an output of the block."""
    notes = [f"complexity {candidate.complexity}" for candidate in result.chosen()]
    if not result.reduction.keeps_outputs or not result.fidelity:
        return notes
    rows = say_where(result)
    return [
        f"R² {format_r2(entry.held_out or entry.train)} on {rows}, {note}"
        for entry, note in zip(result.fidelity, notes, strict=True)
    ]


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
    within = entry.held_out or entry.train
    return entry.out_of_range is not None and within.r2 >= _AGREES and entry.out_of_range.r2 < _PARTS
