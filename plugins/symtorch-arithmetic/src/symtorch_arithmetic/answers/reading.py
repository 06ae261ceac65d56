r"""Reading of numbers out of answers: the number in ``\boxed{}``, or the first one; never a guess.

The rule is the SymTorch paper's (Table 10). Where it gives no number, there is none: for an empty text, a box with
several numbers, a box that was cut off.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, final

_BOX: Final = "boxed{"
_NUMBER: Final = re.compile(
    r"""(?<![\w.])                              # not inside a word, nor behind the digits of another number
        [-+\u2212]?
        (?: (?:\d{1,3}(?:,\d{3})+ | \d+) (?:\.\d+)? | \.\d+ )
        (?:[eE][-+]?\d+)?
        (?!\d)""",
    re.VERBOSE,
)
_SPACING: Final = re.compile(r"\{,\}|\\[,!]")  # LaTeX's ways to group digits: 1{,}345 and 1\,345


@final
@dataclass(frozen=True)
class Reading:
    """The number read out of an answer.

    Attributes:
        value: the number; NaN where there is none.
        source: where it was found.
    """

    value: float
    source: Literal["box", "first number", "nothing"]


NOTHING: Final = Reading(math.nan, "nothing")


def read_number(answer: str) -> Reading:
    r"""Return the number that an answer gives.

    >>> read_number(r"Step 1: add 972 and 373. The answer is $\boxed{1,345}$").value
    1345.0
    >>> read_number("The sum is -12.5 degrees.")
    Reading(value=-12.5, source='first number')
    >>> read_number(r"\boxed{12 + 7}").source, read_number("I do not know.").source
    ('nothing', 'nothing')
    """
    text = _SPACING.sub("", answer)
    boxes = _find_boxes(text)
    if boxes:
        numbers = [_to_float(number) for number in _NUMBER.findall(boxes[0])]
        return Reading(numbers[0], "box") if len(numbers) == 1 and math.isfinite(numbers[0]) else NOTHING
    found = _NUMBER.search(text)
    value = math.nan if found is None else _to_float(found.group())
    return Reading(value, "first number") if math.isfinite(value) else NOTHING


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
