"""Questions, true answers, digits and worked answers, against Python's own arithmetic."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symtorch_arithmetic.answers.reading import read_number
from symtorch_arithmetic.models.worked_examples import WORKED_ANSWERS
from symtorch_arithmetic.tasks import TASKS, Task
from symtorch_core import SearchError, Transforms

EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
THREE = st.integers(0, 999)


def digits(task: Task, numbers: torch.Tensor) -> dict[str, list[float]]:
    values = Transforms(task.variables, task.digits)(numbers)
    return {name: values[:, place].tolist() for place, name in enumerate(task.digits)}


@EVERY
def test_questions_are_whole_different_and_in_range(task: Task) -> None:
    numbers = task.draw_questions(300, seed=3)
    assert len(numbers) == min(300, task.size)
    assert len(torch.unique(numbers, dim=0)) == len(numbers)
    for column, (low, high) in zip(numbers.T, task.ranges, strict=True):
        assert low <= float(column.min()) <= float(column.max()) <= high
        assert torch.equal(column, column.round())
    assert torch.equal(numbers, task.draw_questions(300, seed=3))
    assert not torch.equal(numbers, task.draw_questions(300, seed=4))


def test_of_a_small_task_every_question_is_asked() -> None:
    celsius = TASKS["celsius"].draw_questions(10_000)[:, 0]
    assert sorted(celsius.tolist()) == list(range(-20, 201))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(THREE, THREE)
def test_truth_is_pythons(first: int, second: int) -> None:
    pair = torch.tensor([[first, second]])
    assert TASKS["add"].compute_truth(pair).item() == first + second
    assert TASKS["multiply"].compute_truth(pair).item() == first * second


def test_truth_of_counting_and_of_degrees() -> None:
    count, celsius = TASKS["count"], TASKS["celsius"]
    strings = count.draw_questions(64)
    assert count.compute_truth(strings).tolist() == [sum(row) for row in strings.tolist()]
    assert celsius.compute_truth(torch.tensor([[-20], [0], [37], [200]])).tolist() == pytest.approx(
        [-4, 32, 98.6, 392]
    )
    assert "string 010011" in count.write_prompts(torch.tensor([[0, 1, 0, 0, 1, 1]]))[0]
    assert "What is -20 degrees Celsius" in celsius.write_prompts(torch.tensor([[-20]]))[0]


@EVERY
def test_questions_need_whole_numbers_of_the_right_count(task: Task) -> None:
    wrong = torch.full((2, len(task.ranges)), 0.5)
    with pytest.raises(SearchError, match="whole numbers"):
        task.write_prompts(wrong)
    with pytest.raises(SearchError, match="whole numbers"):
        task.write_prompts(torch.zeros(2, len(task.ranges) + 1))
    with pytest.raises(SearchError, match="at least one question"):
        task.draw_questions(0)


def test_right_answers_are_exact_ones() -> None:
    celsius, numbers = TASKS["celsius"], torch.tensor([[37.0], [37.0], [37.0]])
    assert celsius.find_right(
        torch.tensor([98.6, 99.0, torch.nan], dtype=torch.float64), numbers
    ).tolist() == [
        True,
        False,
        False,
    ]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(THREE, THREE)
def test_digits_are_those_of_the_written_number(first: int, second: int) -> None:
    found = digits(TASKS["add"], torch.tensor([[float(first), float(second)]]))
    for name, number in (("x0", first), ("x1", second)):
        written = [found[f"{place}_{name}"][0] for place in ("hundreds", "tens", "ones")]
        assert written == [float(digit) for digit in f"{number:03d}"]


def test_digits_of_negative_degrees_are_those_that_are_read() -> None:
    found = digits(TASKS["celsius"], torch.tensor([[-17.0]]))
    assert (found["x0"][0], found["tens_x0"][0], found["ones_x0"][0]) == (-17.0, 1.0, 7.0)


@EVERY
def test_the_planted_error_depends_on_the_variables_that_it_names(task: Task) -> None:
    numbers = task.draw_questions(2_000)
    columns = digits(task, numbers)
    error = task.evaluate(task.planted, numbers)
    assert 0.0 < float((error != 0).double().mean()) < 0.7
    by_digits = defaultdict(set)
    for row, size in enumerate(error.tolist()):
        by_digits[tuple(columns[name][row] for name in task.planted_in)].add(size)
    assert all(len(sizes) == 1 for sizes in by_digits.values())


@EVERY
def test_a_worked_answer_ends_with_the_right_number_in_a_box(task: Task) -> None:
    numbers = task.draw_questions(300, seed=1)
    for row, truth in zip(numbers.long().tolist(), task.compute_truth(numbers).tolist(), strict=True):
        reading = read_number(WORKED_ANSWERS[task.name](row))
        assert reading.source == "box"
        assert reading.value == pytest.approx(truth, abs=1e-9)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(THREE, THREE)
def test_long_multiplication_is_right_in_every_column(first: int, second: int) -> None:
    rows = WORKED_ANSWERS["multiply"]([first, second]).split(" ")[0].split(";")
    digit_of_second = [int(row[0]) for row in rows]
    assert int("".join(map(str, reversed(digit_of_second)))) == second
    for row in rows:
        digit, products, *sums = row.split(":")
        carry = 0
        for column in products.split(","):
            other, tens, ones = map(int, column)
            assert 10 * tens + ones == other * int(digit) + carry
            carry = tens
        carry = 0
        for column in sums[0].split(",") if sums else ():
            there, added, tens, ones = map(int, column)
            assert 10 * tens + ones == there + added + carry
            carry = tens


def test_questions_are_told_from_others() -> None:
    task = TASKS["add"]
    numbers = task.draw_questions(100)
    assert task.find_among(numbers, numbers[:40]).tolist() == [True] * 40 + [False] * 60
