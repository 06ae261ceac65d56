"""Kinds of answers by definition, on plain numbers: right, repeated, ...; and how often each comes by chance.

A definition is no discovery: :mod:`symtorch_arithmetic.analysis.mixture` finds laws in the answers alone, and the kinds
here only name them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final, get_args

import numpy as np

Kind = Literal[
    "right",
    "repeated",
    "sign lost",
    "power of ten",
    "rounded",
    "off by a carry",
    "digits swapped",
    "digit changed",
    "digits lost",
    "digits added",
    "other",
    "unreadable",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_EXACT: Final = 1e-6  # share of a step that counts as rounding of floats
_DECIMALS: Final = 6
_FEWEST_KEPT: Final = 2  # digits that two numbers must share to be compared: any two single digits are alike
_SHIFTS: Final = 10


def classify(value: float, truth: float, asked: Sequence[float], step: float = 1.0) -> Kind:
    """Return the kind of an answer: the first of :data:`KINDS` that it is.

    Args:
        value: the answer; NaN where it has no number.
        truth: the right answer.
        asked: the numbers of the question.
        step: resolution of right answers.

    >>> classify(543, 543, (16, 527)), classify(16, 543, (16, 527)), classify(5430, 543, (16, 527))
    ('right', 'repeated', 'power of ten')
    >>> classify(533, 543, (16, 527)), classify(593, 543, (16, 527)), classify(5543, 543, (16, 527))
    ('off by a carry', 'digit changed', 'digits added')
    """
    if not math.isfinite(value):
        return "unreadable"
    if abs(value - truth) <= _EXACT * step:
        return "right"
    if any(value == number for number in asked):
        return "repeated"
    if abs(value + truth) <= _EXACT * step:
        return "sign lost"
    if value * truth > 0:
        return _compare_digits(value, truth, step)
    return "off by a carry" if _is_carry(value - truth) else "other"


def _compare_digits(value: float, truth: float, step: float) -> Kind:
    """Return the kind of a wrong answer that has the sign of the right one."""
    given, right = _write_digits(value), _write_digits(truth)
    if given.strip("0") == right.strip("0"):
        return "power of ten"
    if value == round(value) and step < 1.0 and abs(value - truth) < 1.0:
        return "rounded"
    if _is_carry(value - truth):
        return "off by a carry"
    if len(given) == len(right):
        places = [place for place, pair in enumerate(zip(given, right, strict=True)) if pair[0] != pair[1]]
        if len(places) == 1 and len(given) > _FEWEST_KEPT:
            return "digit changed"
        if _are_swapped(given, right, places):
            return "digits swapped"
    shorter, longer = sorted((given, right), key=len)
    enough = len(shorter) >= _FEWEST_KEPT and 2 * len(shorter) >= len(longer)
    if enough and len(shorter) < len(longer) and _is_subsequence(shorter, longer):
        return "digits lost" if shorter == given else "digits added"
    return "other"


def _write_digits(number: float) -> str:
    """Return the decimal digits of a number, without sign, point, and zeros at the left."""
    written = np.format_float_positional(abs(number), precision=_DECIMALS, unique=True, trim="-")
    return written.replace(".", "").lstrip("0") or "0"


def _is_carry(error: float) -> bool:
    """Return whether an error is 10, 100, 1000, ...: one carry too many or too few."""
    size = round(abs(error), _DECIMALS)
    return size >= 10 and size == 10.0 ** round(math.log10(size))


def _are_swapped(given: str, right: str, places: Sequence[int]) -> bool:
    """Return whether two neighbours are swapped."""
    if len(places) != 2 or places[1] != places[0] + 1:
        return False
    first, second = places
    return given[first] == right[second] and given[second] == right[first]


def _is_subsequence(shorter: str, longer: str) -> bool:
    rest = iter(longer)
    return all(digit in rest for digit in shorter)


@final
@dataclass(frozen=True)
class KindCount:
    """How often answers are of one kind.

    Attributes:
        kind: the kind.
        count: number of answers.
        share: of all answers.
        by_chance: share of this kind where the same answers are given to other questions.
        example: place of the first such answer.
    """

    kind: Kind
    count: int
    share: float
    by_chance: float
    example: int


def classify_all(
    values: Sequence[float], truths: Sequence[float], asked: Sequence[Sequence[float]], step: float = 1.0
) -> list[Kind]:
    """Return the kind of each answer; see :func:`classify`."""
    return [
        classify(value, truth, numbers, step)
        for value, truth, numbers in zip(values, truths, asked, strict=True)
    ]


def count_kinds(
    values: Sequence[float], truths: Sequence[float], asked: Sequence[Sequence[float]], step: float = 1.0
) -> list[KindCount]:
    """Count the kinds that occur, and how often each occurs by chance.

    A model that gives the same number to every question is sometimes right; what it knows is what goes beyond chance:
    each answer is also compared with the questions 1, 2, ... places further on, which are in random order.

    >>> [(kind.kind, kind.count, kind.by_chance) for kind in count_kinds([1, 1, 1], [1, 2, 3], [(7,), (8,), (9,)])]
    [('right', 1, 0.3333333333333333), ('other', 2, 0.6666666666666666)]
    """
    kinds = classify_all(values, truths, asked, step)
    shifts = range(1, min(len(kinds), _SHIFTS + 1)) or range(1)
    by_chance = Counter(
        kind
        for shift in shifts
        for kind in classify_all(
            values,
            [*truths[shift:], *truths[:shift]],
            [*asked[shift:], *asked[:shift]],
            step,
        )
    )
    counts = Counter(kinds)
    return [
        KindCount(
            kind,
            counts[kind],
            counts[kind] / len(kinds),
            by_chance[kind] / (len(shifts) * len(kinds)),
            kinds.index(kind),
        )
        for kind in KINDS
        if counts[kind]
    ]
