"""Kinds of answers by definition, and how often they come by chance."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from symtorch_arithmetic.answers.kinds import KINDS, classify, count_kinds
from symtorch_arithmetic.tasks import TASKS

TRUTHS = st.integers(100, 10**7)


@pytest.mark.parametrize(
    ("value", "truth", "asked", "kind"),
    [
        (543, 543, (16, 527), "right"),
        (16, 543, (16, 527), "repeated"),
        (527, 543, (16, 527), "repeated"),
        (527, 527, (0, 527), "right"),  # right comes before repeated
        (-543, 543, (16, 527), "sign lost"),
        (54.3, 543, (16, 527), "power of ten"),
        (543_000, 543, (16, 527), "power of ten"),
        (533, 543, (16, 527), "off by a carry"),
        (1543, 543, (16, 527), "off by a carry"),
        (453, 543, (16, 527), "digits swapped"),
        (593, 543, (16, 527), "digit changed"),
        (53, 543, (16, 527), "digits lost"),
        (5943, 543, (16, 527), "digits added"),
        (544, 543, (16, 527), "digit changed"),
        (7, 543, (16, 527), "other"),
        (1e18, 543, (16, 527), "other"),
        (0, 543, (16, 527), "other"),
        (math.nan, 543, (16, 527), "unreadable"),
        (3, 4, (101101,), "other"),  # any two single digits differ in one digit
        (101101, 4, (101101,), "repeated"),
        (0, 0, (0, 0), "right"),
    ],
)
def test_the_kind_of_an_answer(value: float, truth: float, asked: tuple[float, ...], kind: str) -> None:
    assert classify(value, truth, asked) == kind


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (98.6, "right"),
        (99, "rounded"),
        (98, "rounded"),
        (37, "repeated"),
        (9.86, "power of ten"),
        (96.8, "digits swapped"),
    ],
)
def test_kinds_of_answers_with_decimals(value: float, kind: str) -> None:
    assert classify(value, 1.8 * 37 + 32, (37,), 0.2) == kind


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.floats(), st.floats(-1e9, 1e9), st.lists(st.floats(-1e9, 1e9), max_size=3), st.sampled_from([1.0, 0.2])
)
def test_every_answer_is_of_one_kind(value: float, truth: float, asked: list[float], step: float) -> None:
    kind = classify(value, truth, asked, step)
    assert kind in KINDS
    assert (kind == "unreadable") == (not math.isfinite(value))
    assert classify(truth, truth, asked, step) == "right"


@settings(max_examples=150, derandomize=True, deadline=None)
@given(TRUTHS, st.data())
def test_a_digit_that_is_lost_changed_or_added_is_seen(truth: int, data: st.DataObject) -> None:
    digits, place = str(truth), data.draw(st.integers(1, 2))
    lost = digits[:place] + digits[place + 1 :]
    changed = digits[:place] + str((int(digits[place]) + 3) % 10) + digits[place + 1 :]
    added = digits[:place] + data.draw(st.sampled_from("123456789")) + digits[place:]
    for text, kind in ((lost, "digits lost"), (changed, "digit changed"), (added, "digits added")):
        assume(text.strip("0") != digits.strip("0") and not _is_a_power_of_ten(abs(int(text) - truth)))
        assert classify(int(text), truth, ()) == kind


def _is_a_power_of_ten(number: int) -> bool:
    return number > 1 and str(number).strip("0") == "1"


@settings(max_examples=100, derandomize=True, deadline=None)
@given(TRUTHS, st.integers(-3, 3), st.integers(1, 6))
def test_powers_of_ten_and_carries_are_seen(truth: int, places: int, carry: int) -> None:
    assume(places != 0)
    assert classify(truth * 10.0**places, truth, ()) == "power of ten"
    assume(str(truth + 10**carry).strip("0") != str(truth).strip("0"))
    assert classify(truth + 10**carry, truth, ()) == "off by a carry"


def test_a_model_that_always_says_the_same_is_right_by_chance() -> None:
    task = TASKS["count"]
    numbers = task.draw_questions(64)
    counts = count_kinds([3.0] * 64, task.compute_truth(numbers).tolist(), task.list_asked(numbers))
    right = next(count for count in counts if count.kind == "right")
    assert right.count == 20  # of six digits, three are ones
    assert right.by_chance == pytest.approx(20 / 64)
    assert sum(count.count for count in counts) == 64


def test_a_model_that_knows_is_right_beyond_chance() -> None:
    task = TASKS["add"]
    numbers = task.draw_questions(200)
    truths = task.compute_truth(numbers).tolist()
    (right,) = count_kinds(truths, truths, task.list_asked(numbers))
    assert (right.kind, right.share) == ("right", 1.0)
    assert right.by_chance < 0.01


def test_the_numbers_of_a_question_are_those_that_are_written() -> None:
    assert TASKS["add"].list_asked(torch.tensor([[16, 527]])) == [(16.0, 527.0)]
    assert TASKS["celsius"].list_asked(torch.tensor([[-20]])) == [(-20.0,)]
    assert TASKS["count"].list_asked(torch.tensor([[1, 0, 1, 1, 0, 1]])) == [(101101.0,)]
