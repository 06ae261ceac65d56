"""Laws in turn: each of several laws is found in the answers alone, and noise has none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from symtorch_arithmetic.analysis.consensus import find_consensus
from symtorch_arithmetic.analysis.mixture import Mixture, find_laws
from symtorch_arithmetic.tasks import TASKS, Task
from symtorch_core.expressions import Expression, parse


def find_none(numbers: Tensor, values: Tensor, number: int) -> list[Expression]:
    return []


def mix(task: Task, shares: dict[str, float], count: int = 220, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return questions, and answers that follow laws in these shares; the others are noise."""
    generator = torch.Generator().manual_seed(seed)
    numbers = task.draw_questions(count, seed)
    luck = torch.rand(len(numbers), generator=generator)
    values = torch.randint(10**6, (len(numbers),), generator=generator).double()
    start = 0.0
    for law, share in shares.items():
        values = torch.where((start <= luck) & (luck < start + share), task.evaluate(law, numbers), values)
        start += share
    return numbers, values


def find(task: Task, numbers: Tensor, values: Tensor) -> Mixture:
    different = len(task.compute_truth(numbers).unique())
    return find_laws(task.variables, numbers, values, find_none, step=task.step, different=different)


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("add", {"x0 + x1": 0.4, "x0": 0.4}),
        ("add", {"x0": 0.5, "x0 + x1": 0.145}),
        ("add", {"x0 + x1": 0.4, "x0 + x1 - 10": 0.4}),
        ("multiply", {"x0": 0.3, "x0*x1": 0.15}),
        ("celsius", {"x0": 0.6, "1.8*x0 + 32": 0.2}),
        ("celsius", {"100 + 0*x0": 0.5, "2*x0 + 30": 0.2}),
    ],
)
def test_laws_come_out_of_the_answers_with_their_shares(name: str, shares: dict[str, float]) -> None:
    task = TASKS[name]
    numbers, values = mix(task, shares)
    mixture = find(task, numbers, values)
    assert len(mixture.laws) == len(shares)
    expected = [task.evaluate(law, numbers) for law in shares]
    for law in mixture.laws:
        found = task.evaluate(str(law.expression), numbers)
        assert any(torch.allclose(found, exact, atol=1e-6) for exact in expected), law.expression
        assert law.probability < 1e-3
        assert torch.equal(law.given, (found - values).abs() < task.step / 2)
    explained = float((mixture.places >= 0).double().mean())
    assert explained == pytest.approx(sum(shares.values()), abs=0.08)
    assert sum(map(mixture.compute_share, mixture.laws)) == pytest.approx(sum(shares.values()), abs=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_law(seed: int) -> None:
    task = TASKS["add"]
    numbers, _ = mix(task, {}, seed=seed)
    values = torch.randint(2_000, (len(numbers),), generator=torch.Generator().manual_seed(seed)).double()
    assert find(task, numbers, values).laws == ()


def test_answers_that_belong_to_other_questions_follow_no_law() -> None:
    task = TASKS["count"]
    numbers = task.draw_questions(64)
    values = task.compute_truth(numbers)[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    laws = find(task, numbers, values).laws
    assert not any("x" in str(law.expression) for law in laws)


def test_the_same_number_for_every_question_is_a_law_without_variables() -> None:
    task = TASKS["count"]
    numbers = task.draw_questions(64)
    (law,) = find(task, numbers, torch.ones(64, dtype=torch.float64)).laws
    assert str(law.expression) in ("1", "1.0")
    assert "most frequent answer" in law.origins
    assert law.hits == law.left == 21


def test_no_search_sees_held_out_answers_and_later_ones_see_what_is_left() -> None:
    task = TASKS["add"]
    numbers, values = mix(task, {"x0": 0.5})
    seen: list[Tensor] = []

    def search(asked: Tensor, said: Tensor, number: int) -> list[Expression]:
        assert number == len(seen)
        seen.append(asked)
        return [parse("x0 + x1", ("x0", "x1"))]

    mixture = find_laws(task.variables, numbers, values, search, different=400)
    assert mixture.searches == len(seen) == 2
    held_out = numbers[mixture.held_out]
    assert len(held_out) == round(len(numbers) / 3)
    assert not any(bool(task.find_among(asked, held_out).any()) for asked in seen)
    (law,) = mixture.laws
    assert "consensus" in law.origins
    assert not bool(task.find_among(seen[1], numbers[law.explained]).any())


def test_an_equation_that_only_the_search_finds_is_a_law() -> None:
    task = TASKS["add"]
    numbers, values = mix(task, {"max(x0, 2*x1)": 0.4})
    equation = parse("max(x0, 2.04*x1)", ("x0", "x1"))
    mixture = find_laws(task.variables, numbers, values, lambda *_: [equation], different=400)
    assert "max(x0, 2.0*x1)" in [str(law.expression) for law in mixture.laws if "search" in law.origins]


@pytest.mark.parametrize("law", ["0.5*x1 + 3*x0", "x0*x1 - 7", "x0 + x1 + 100", "x1^2", "42 + 0*x0"])
def test_consensus_finds_what_one_answer_in_five_follows(law: str) -> None:
    task = TASKS["add"]
    numbers, values = mix(task, {law: 0.2})
    best = find_consensus(task.variables, numbers, values)[0]
    assert torch.allclose(task.evaluate(str(best), numbers), task.evaluate(law, numbers), atol=1e-6)
