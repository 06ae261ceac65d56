"""Worked answers, as a pupil writes them: the texts that the small decoder is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final


def format_box(value: float) -> str:
    r"""Return the final answer in the form that the prompts ask for.

    >>> format_box(68.0), format_box(100.4)
    ('\\boxed{68}', '\\boxed{100.4}')
    """
    return rf"\boxed{{{value:.10g}}}"


def write_addition(numbers: Sequence[int]) -> str:
    r"""Write a column addition from the ones: both digits and the digit of the sum, the carry last, then the answer.

    >>> write_addition([12, 9])
    '291;102;000;0 \\boxed{21}'
    """
    first, second = numbers
    total = first + second
    columns = zip(
        _reverse_digits(first, 3), _reverse_digits(second, 3), _reverse_digits(total, 4), strict=False
    )
    return f"{';'.join(map(''.join, columns))};{total // 1000} {format_box(total)}"


def write_multiplication(numbers: Sequence[int]) -> str:
    r"""Write a long multiplication from the ones with every product and every sum of digits, then the answer.

    A row for each digit of the second number: that digit; for each digit of the first number the digit and, in two
    digits, its product with the carry; from the second row on, the same for the sum with the rows before.

    >>> write_multiplication([12, 7])
    '7:214,108,000;0:200,100,000:8008,0000,0000,0000;0:200,100,000:0000,0000,0000,0000 \\boxed{84}'
    """
    first, second = numbers
    rows, total = [], 0
    for place, digit in enumerate(map(int, _reverse_digits(second, 3))):
        products, sums, carry = [], [], 0
        for other in map(int, _reverse_digits(first, 3)):
            carry, written = divmod(other * digit + carry, 10)
            products.append(f"{other}{carry}{written}")
        row = f"{digit}:{','.join(products)}"
        if place:
            carry = 0
            for there, added_digit in zip(
                _reverse_digits(total // 10**place, 4), _reverse_digits(first * digit, 4), strict=True
            ):
                carry, written = divmod(int(there) + int(added_digit) + carry, 10)
                sums.append(f"{there}{added_digit}{carry}{written}")
            row += f":{','.join(sums)}"
        rows.append(row)
        total += first * digit * 10**place
    return f"{';'.join(rows)} {format_box(total)}"


def write_count(bits: Sequence[int]) -> str:
    """Write the number alone."""
    return format_box(sum(bits))


def write_conversion(numbers: Sequence[int]) -> str:
    """Write the number alone."""
    return format_box(1.8 * numbers[0] + 32)


WORKED_ANSWERS: Final[Mapping[str, Callable[[Sequence[int]], str]]] = {
    "add": write_addition,
    "multiply": write_multiplication,
    "count": write_count,
    "celsius": write_conversion,
}
"""A written answer for each task, by name."""


def _reverse_digits(number: int, digits: int) -> str:
    return f"{number:0{digits}d}"[::-1]
