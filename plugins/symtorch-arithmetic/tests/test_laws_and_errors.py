"""Is it the law, where does it stand, and what do errors depend on."""

from __future__ import annotations

import math

import pytest
import torch

from symtorch_arithmetic.analysis.error_analysis import analyze_errors
from symtorch_arithmetic.analysis.laws import find_law, measure_law_error
from symtorch_arithmetic.tasks import TASKS
from symtorch_core import Candidate, ParetoFront
from symtorch_core.expressions import parse


@pytest.mark.parametrize(
    ("task", "equation", "error"),
    [
        ("add", "x1 + x0", 0.0),
        ("add", "1.004*x0 + x1", 0.004),
        ("add", "x0 + x1 + 0.4", 0.0),  # rounds to the same answers
        ("add", "x0 + x1 + 0.6", math.inf),
        ("add", "x0 + x1 + 0.00001*x0*x1", math.inf),  # up to 10
        ("add", "x0", 1.0),
        ("add", "x0 + x1 + inv(x0 - 70.2)", math.inf),
        ("add", "sin(x0)", math.inf),
        ("multiply", "x0*x1", 0.0),
        ("multiply", "x0*x1 - 10", math.inf),
        ("count", "x0 + x1 + x2 + x3 + x4 + 0.99*x5", 0.01),
        ("celsius", "1.8*(x0 + 17.777778)", 0.0),
        ("celsius", "2*x0 + 32", 0.2 / 1.8),
    ],
)
def test_how_far_an_equation_is_from_the_law(task: str, equation: str, error: float) -> None:
    assert measure_law_error(parse(equation), TASKS[task]) == pytest.approx(error, abs=1e-7)


def test_the_law_on_a_front() -> None:
    equations = ("1000.0", "x0 + 1.001*x1", "x0 + x1 + inv(x0 - 70.2)")
    losses = (300.0, 5.0, 4.0)
    front = ParetoFront(
        Candidate(parse(text), place, loss)
        for place, (text, loss) in enumerate(zip(equations, losses, strict=True), 1)
    )
    found = find_law(front, TASKS["add"])
    assert found is not None
    assert (found.position, found.rank, found.of) == (2, 1, 3)
    assert found.error == pytest.approx(0.001)
    assert find_law(front, TASKS["multiply"]) is None


def test_variables_of_a_rule_between_two_digits_are_named() -> None:
    digits = torch.randint(10, (800, 4), generator=torch.Generator().manual_seed(0))
    found = analyze_errors(digits, ("a", "b", "c", "d"), digits[:, 1] + digits[:, 3] >= 10)
    assert set(found.important) == {"b", "d"}
    assert found.auc > 0.95


def test_variables_that_decide_between_several_kinds_are_named() -> None:
    digits = torch.randint(10, (800, 4), generator=torch.Generator().manual_seed(0))
    kinds = (digits[:, 1] >= 5).long() + (digits[:, 3] >= 7).long() - 1
    kinds[:5] = 7  # too few to learn from
    found = analyze_errors(digits, ("a", "b", "c", "d"), kinds)
    assert set(found.important) == {"b", "d"}
    assert found.auc > 0.98


def test_nothing_is_named_where_errors_are_random_or_too_few() -> None:
    generator = torch.Generator().manual_seed(0)
    digits = torch.randint(10, (800, 4), generator=generator)
    random = analyze_errors(digits, ("a", "b", "c", "d"), torch.rand(800, generator=generator) < 0.3)
    assert random.important == ()
    assert random.auc == pytest.approx(0.5, abs=0.06)
    few = analyze_errors(digits, ("a", "b", "c", "d"), torch.arange(800) < 5)
    assert few.important == ()
    assert math.isnan(few.auc)
