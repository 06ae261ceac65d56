"""Numbers out of answers: the paper's rule, and no guesses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symtorch_arithmetic.answers.reading import read_by_paper, read_number


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
        ("=-5", -5.0, "after equals"),
        ("16+527=693", 693.0, "after equals"),
        ("12 + 5 = **17**", 17.0, "after equals"),
        (r"\( 850 + 614 = 1464 \)", 1464.0, "after equals"),
        (r"$16 \times 527 = 8432$", 8432.0, "after equals"),
        (r"(158 * 9/5) + 32 = 284.4 + 32 = 316.4^\circ F", 316.4, "after equals"),
        ("158\u00b0C \u2248 316.4\u00b0F", 316.4, "after equals"),
        (r"\boxed{16 + 527 = 543}", 543.0, "box"),
        (r"\boxed{316.4 \text{ degrees Fahrenheit}}", 316.4, "box"),
        (r"\boxed{1464}\u2026", 1464.0, "box"),
        ("The answer is **579**.", 579.0, "first number"),
        ("It is *17*.", 17.0, "first number"),
        ("* 17\n* that is all", 17.0, "first number"),
        ("```\n1464\n```", 1464.0, "first number"),
        ("972-373=? It is 599.", 599.0, "first number"),
        ("19\n\nWhat is 3+4=?\n7", 19.0, "first number"),
        ("19\n\nWhat is 12\u2026", 19.0, "first number"),
        ("19;;;;;\u2026", 19.0, "first number"),
        ("Step 1: the sum is 19", 19.0, "first number"),
        ("There are 4 1s in it", 4.0, "first number"),
        ("\u7b54\u6848\u662f\uff11\uff12\uff0c\uff13\uff14\uff15\u3002", 12345.0, "first number"),
        ("-147,540", -147540.0, "first number"),
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
        "972-373",
        "16 x 527",
        "```python\nprint(850+614)\n```",
        "F = (158 * 9/5) + 32",
        "10^3",
        "What is 16+527=?",
        "What is 100 degrees Celsius in Fahrenheit?\n\nWhat is 100\u2026",
        "The answer is 14\u2026",
        "The answer is 1.5\u2026",
        "147,540\u2026",
        "One sees that 19 is the answer, from\u2026",
        "To convert, we use the formula:\n\n\\[ F = \\frac{9}{5}C + 32 \\]\n\nwhere 100\u2026",
        "the digit '1' comes twice",
        'The string "010100" has six digits.\n\nThe first\u2026',
        "1. **Identify the numbers:**\n   - The first number is 383.\n   - The\u2026",
        "9" * 400,
    ],
)
def test_what_is_not_a_number_is_not_guessed(answer: str) -> None:
    reading = read_number(answer)
    assert math.isnan(reading.value)
    assert reading.source == "nothing"


@pytest.mark.parametrize(
    ("answer", "asked", "value", "source"),
    [
        ("-17 degrees Celsius is 1.4 degrees Fahrenheit.", (-17,), 1.4, "after the question"),
        ("The number of 1s in the string 101101 is 4.", (101101,), 4.0, "after the question"),
        ("16 and 527 make 543", (16, 527), 543.0, "after the question"),
        ("158 degrees Celsius is 158 degrees Fahrenheit", (158,), 158.0, "after the question"),
        ("-17", (-17,), -17.0, "first number"),
        ("16", (16, 527), 16.0, "first number"),
        ("16 is 543", (527, 16), 16.0, "first number"),
        ("16 + 527", (16, 527), math.nan, "nothing"),
    ],
)
def test_the_questions_own_numbers_are_no_answer_where_another_follows(
    answer: str, asked: tuple[float, ...], value: float, source: str
) -> None:
    reading = read_number(answer, asked)
    assert reading.source == source
    assert reading.value == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("16+527=543", 16.0),
        (r"16+527 is \boxed{543}", 543.0),
        (r"\boxed{16+527}", math.nan),
        ("none", math.nan),
    ],
)
def test_the_papers_rule_takes_the_first_number(answer: str, value: float) -> None:
    assert read_by_paper(answer) == pytest.approx(value, nan_ok=True)


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


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("The sum is -12.5 degrees.", -12.5),
        ("It is \u2212 40", 40.0),  # a dash with spaces around it is no sign
        ("It is \u221240", -40.0),
        ("The answer: +7", 7.0),
        ("(-3)", -3.0),
        ("972-373", math.nan),
        ("972 -373", math.nan),
        ("x-373", math.nan),
    ],
)
def test_a_sign_after_a_word_belongs_to_the_number_and_one_after_a_number_does_not(
    answer: str, value: float
) -> None:
    assert read_number(answer).value == pytest.approx(value, nan_ok=True)
