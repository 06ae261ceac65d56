"""Answers as a pupil writes them: what the small decoder is taught to say, in ordinary Hugging Face text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final


def boxed(value: float) -> str:
    r"""The final answer as the prompts ask for it.

    >>> boxed(68.0), boxed(100.4)
    ('\\boxed{68}', '\\boxed{100.4}')
    """
    return rf"\boxed{{{value:.10g}}}"


def added(numbers: Sequence[int]) -> str:
    r"""Column addition from the ones: both digits and the digit of the sum, the carry last, then the answer.

    >>> added([12, 9])
    '291;102;000;0 \\boxed{21}'
    """
    first, second = numbers
    total = first + second
    columns = zip(_turned(first, 3), _turned(second, 3), _turned(total, 4), strict=False)
    return f"{';'.join(map(''.join, columns))};{total // 1000} {boxed(total)}"


def multiplied(numbers: Sequence[int]) -> str:
    r"""Long multiplication from the ones, every product and every sum of digits written out, then the answer.

    A row for each digit of the second number: that digit; for each digit of the first number the digit and, in two
    digits, its product with the carry; from the second row on, the same for the sum with what there was.

    >>> multiplied([12, 7])
    '7:214,108,000;0:200,100,000:8008,0000,0000,0000;0:200,100,000:0000,0000,0000,0000 \\boxed{84}'
    """
    first, second = numbers
    rows, total = [], 0
    for place, digit in enumerate(map(int, _turned(second, 3))):
        products, sums, carry = [], [], 0
        for other in map(int, _turned(first, 3)):
            carry, written = divmod(other * digit + carry, 10)
            products.append(f"{other}{carry}{written}")
        row = f"{digit}:{','.join(products)}"
        if place:
            carry = 0
            for there, added_digit in zip(
                _turned(total // 10**place, 4), _turned(first * digit, 4), strict=True
            ):
                carry, written = divmod(int(there) + int(added_digit) + carry, 10)
                sums.append(f"{there}{added_digit}{carry}{written}")
            row += f":{','.join(sums)}"
        rows.append(row)
        total += first * digit * 10**place
    return f"{';'.join(rows)} {boxed(total)}"


def counted(bits: Sequence[int]) -> str:
    """The number alone."""
    return boxed(sum(bits))


def converted(numbers: Sequence[int]) -> str:
    """The number alone."""
    return boxed(1.8 * numbers[0] + 32)


WORKED: Final[Mapping[str, Callable[[Sequence[int]], str]]] = {
    "add": added,
    "multiply": multiplied,
    "count": counted,
    "celsius": converted,
}
"""A written answer for each task, by name."""


def _turned(number: int, digits: int) -> str:
    return f"{number:0{digits}d}"[::-1]
