"""Numbers out of answers: the paper's rule, and no guesses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symtorch_arithmetic.answers.reading import read_number


@pytest.mark.parametrize(
    ("answer", "value", "source"),
    [
        (r"The answer is $\boxed{1345}$.", 1345.0, "box"),
        (r"boxed{19}", 19.0, "box"),
        (r"\boxed{1,234,567}", 1_234_567.0, "box"),
        (r"\boxed{1{,}345}", 1345.0, "box"),
        (r"\boxed{56\,088}", 56088.0, "box"),
        (r"\boxed{86^{\circ}\text{F}}", 86.0, "box"),
        (r"\boxed{\text{68.9}}", 68.9, "box"),
        (r"\boxed{-4}", -4.0, "box"),
        ("\\boxed{\u22124}", -4.0, "box"),
        (r"I fill \boxed{} with \boxed{7}, not \boxed{8}", 7.0, "box"),
        (r"12+7 is \boxed{19}", 19.0, "box"),
        ("1345", 1345.0, "first number"),
        ("It is 86 degrees, not 90.", 86.0, "first number"),
        ("972-373", 972.0, "first number"),
        ("=-5", -5.0, "first number"),
        ("about .5", 0.5, "first number"),
        ("1.5e3 apples", 1500.0, "first number"),
        ("x0 is 3", 3.0, "first number"),
    ],
)
def test_numbers_that_are_there(answer: str, value: float, source: str) -> None:
    reading = read_number(answer)
    assert reading.value == value
    assert reading.source == source


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot say.",
        "nineteen",
        r"\boxed{12+7}",
        r"\boxed{\frac{9}{5}}",
        r"\boxed{nineteen}, or 19",
        r"The sum of 12 and 7 is \boxed{1",
        r"\boxed{10^3}",
        "9" * 400,
    ],
)
def test_what_is_not_a_number_is_not_guessed(answer: str) -> None:
    reading = read_number(answer)
    assert math.isnan(reading.value)
    assert reading.source == "nothing"


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(-(10**15), 10**15), st.booleans(), st.sampled_from(["", "Step 1: 3 + 4 = 7. So ", "$"]))
def test_whole_numbers_come_back(number: int, grouped: bool, before: str) -> None:
    written = f"{number:,}" if grouped else str(number)
    assert read_number(rf"{before}\boxed{{{written}}}") == read_number(rf"\boxed{{ {written} }}")
    assert read_number(rf"{before}\boxed{{{written}}}").value == number
    assert read_number(f"The result: {written}.").value == number


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.text())
def test_any_text_gives_a_finite_number_or_none(text: str) -> None:
    reading = read_number(text)
    assert math.isfinite(reading.value) != (reading.source == "nothing")
