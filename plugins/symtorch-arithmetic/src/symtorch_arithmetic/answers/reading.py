r"""Reading of numbers out of answers; never a guess.

The rule is the SymTorch paper's (Table 10: the number in ``\boxed{}``, or the first one), but for answers that repeat
the question: of "16+527=543" the first number is the question's, and counted as an answer it makes the law x0 out of
nothing. So a number after an equals sign, or after the question's own numbers, comes before the first number; and a
number inside a question or beside an operator is no answer. Where these rules give no number, there is none: for an
empty text, a box with several numbers, an answer that was cut off before a box or a line that begins with a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

CUT_OFF: Final = "\u2026"
"""Ends an answer that was cut off: a number right before it may lack digits, and others may be of the reasoning."""
_BOX: Final = "boxed{"
_NUMBER: Final = re.compile(
    rf"""(?<![A-Za-z0-9_.])                     # not inside a word, nor behind the digits of another number
        [-+\u2212]?
        (?> (?:\d{{1,3}}(?:,\d{{3}})+(?!\d) | \d+) (?:\.\d+)? | \.\d+ )
        (?> (?:[eE][-+]?\d+)? )
        (?! \.?{CUT_OFF} | ["'\u2019]?s\b | st\b | nd\b | rd\b | th\b)  # nor in: two 1s, the 2nd
        """,
    re.VERBOSE,
)
_QUESTION: Final = re.compile(r"(?:[^\n.?!\uff1f]|\.(?=\d))*[?\uff1f]")
_EQUALS: Final = re.compile(r"(?:=|\u2248|\\approx)\s*$")
_OPERATOR_BEFORE: Final = re.compile(
    r"(?:(?:[\d)}]|\b[A-Za-z])\s*(?:[-\u2212*\u00d7xX/\u00f7^]|\*\*|\\times|\\cdot|\\div)|[\w)}]\s*\+|\\frac\{|\}\{)\s*$"
)
_OPERATOR_AFTER: Final = re.compile(
    r"[^\S\n]*(?:[+*\u00d7/\u00f7^]|\\times|\\cdot|\\div|[-\u2212xX]\s*\d)|\}\{"
)
_BARE: Final = re.compile(
    r"\s*(?!\d+[.)]\s)[-+\u2212=]?\s*\.?\d"
)  # a line that begins with a number, not a list's
_LABEL: Final = re.compile(r"\b(?:[Ss]tep|[Dd]igits?)\s+[\"'\u2018\u201c]?\d+\b")
_LAYOUT: Final = (
    (re.compile(r"\{,\}|\\[,!;:]|(?<=\d)[\u00a0\u2009\u202f](?=\d{3})"), ""),  # between groups of digits
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\u00b0|\\degree"), " "),
    (re.compile(r"(?<![\w)*])(\*{1,3})(?=[^\s*])([^*\n]+?)(?<=\S)\1(?![\w(*])"), r"\2"),  # bold and italic
    (re.compile(r"[`$]|\\[()\[\]]"), ""),  # code and formulas
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}"), r" \1 "),
)
_NARROW: Final = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}  # full-width digits and signs

Source = Literal["box", "after equals", "after the question", "first number", "nothing"]


@final
@dataclass(frozen=True)
class Reading:
    """The number read out of an answer.

    Attributes:
        value: the number; NaN where there is none.
        source: where it was found.
    """

    value: float
    source: Source


NOTHING: Final = Reading(math.nan, "nothing")


def read_number(answer: str, asked: Sequence[float] = ()) -> Reading:
    r"""Return the number that an answer gives.

    Args:
        answer: the text.
        asked: numbers of the question as it is written, in order.

    >>> read_number(r"Step 1: add 972 and 373. The answer is $\boxed{1,345}$").value
    1345.0
    >>> read_number("The sum is -12.5 degrees.")
    Reading(value=-12.5, source='first number')
    >>> read_number("16+527=543"), read_number("16 and 527 make 543", (16, 527)).source
    (Reading(value=543.0, source='after equals'), 'after the question')
    >>> read_number(r"\boxed{12 + 7}").source, read_number("What is 16+527?").source
    ('nothing', 'nothing')
    """
    text = _clean(answer)
    boxes = _find_boxes(text)
    if boxes:
        numbers = _list_numbers(boxes[0])
        equals = [number for number in numbers if number.equals]
        if equals or (len(numbers) == 1 and not numbers[0].operand):
            return _take((equals or numbers)[-1], "box")
        return NOTHING
    if text.endswith(CUT_OFF):  # numbers in its sentences are of its reasoning, which was to lead to another
        text = "\n".join(line for line in text.split("\n") if _BARE.match(line))
    for part in _QUESTION.split(text):
        numbers = _list_numbers(part)
        if equals := [number for number in numbers if number.equals]:
            return _take(equals[-1], "after equals")
        own = list(asked)
        if own and [number.value for number in numbers[: len(own)]] == own:
            after = [number for number in numbers[len(own) :] if not number.operand]
            if after:
                return _take(after[0], "after the question")
        if alone := [number for number in numbers if not number.operand]:
            return _take(alone[0], "first number")
    return NOTHING


def read_by_paper(answer: str) -> float:
    r"""Return the number by the paper's rule alone: in the box, or the first one; NaN where there is none.

    >>> read_by_paper("16+527=543"), read_by_paper(r"\boxed{19}")
    (16.0, 19.0)
    """
    text = _clean(answer)
    boxes = _find_boxes(text)
    numbers = [number.value for number in _list_numbers(boxes[0] if boxes else text)]
    usable = len(numbers) == 1 if boxes else bool(numbers)
    return numbers[0] if usable else math.nan


@final
@dataclass(frozen=True)
class _Number:
    """A number in a text.

    Attributes:
        value: the number.
        operand: whether it stands beside an operator, in a calculation that is not worked out there.
        equals: whether it is the result of a calculation: behind an equals sign, and no operand.
    """

    value: float
    operand: bool
    equals: bool


def _list_numbers(text: str) -> list[_Number]:
    found = []
    for match in _NUMBER.finditer(text):
        before, after = text[: match.start()], text[match.end() :]
        operand = bool(_OPERATOR_BEFORE.search(before) or _OPERATOR_AFTER.match(after))
        # In 972-373 the sign belongs to no number, in "is -12.5" it does.
        operand = operand or (match.group()[0] in "-+\u2212" and bool(re.search(r"[\d)]\s*$|\w$", before)))
        value = _to_float(match.group())
        found.append(_Number(value, operand, not operand and bool(_EQUALS.search(before))))
    return found


def _take(number: _Number, source: Source) -> Reading:
    return Reading(number.value, source) if math.isfinite(number.value) else NOTHING


def _clean(answer: str) -> str:
    text = _LABEL.sub("", answer.translate(_NARROW))
    for pattern, instead in _LAYOUT:
        text = pattern.sub(instead, text)
    return text


def _find_boxes(text: str) -> list[str]:
    """Return the contents of boxes that are not blank; for a box that is never closed, a text without a number."""
    found, start = [], text.find(_BOX)
    while start >= 0:
        inside = text[start + len(_BOX) :]
        depth, end = 1, len(inside)
        for place, letter in enumerate(inside):
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 0:
                end = place
                break
        content = inside[:end] if depth == 0 else "(cut off)"
        if content.strip():
            found.append(content)
        start = text.find(_BOX, start + len(_BOX))
    return found


def _to_float(number: str) -> float:
    return float(number.replace(",", "").replace("\u2212", "-"))
