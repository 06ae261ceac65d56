"""Equations said in the operators that a search has."""

from __future__ import annotations

import pytest
import torch

from symtorch_core.expressions import Call, evaluate, parse, respell, walk


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("x0 - 2/x1^2", {"+", "*", "inv"}),
        ("-x0 + inv(x1)", {"+", "*", "/"}),
        ("cube(x0) - square(x1 - x2)", {"+", "*"}),
        ("x0^-4 + sin(x1/x2)", {"+", "*", "/", "sin"}),
    ],
)
def test_equations_are_said_in_the_operators_of_the_search(text: str, operators: set[str]) -> None:
    columns = {
        name: torch.linspace(0.5, 1.5, 20, dtype=torch.float64) ** (1 + i)
        for i, name in enumerate(("x0", "x1", "x2"))
    }
    said = respell(parse(text), operators)
    assert {part.operator for part in walk(said) if isinstance(part, Call)} <= operators
    torch.testing.assert_close(evaluate(said, columns), evaluate(parse(text), columns))


def test_what_cannot_be_said_stays() -> None:
    assert respell(parse("tanh(x0) - x1"), {"+"}) == parse("tanh(x0) - x1")
