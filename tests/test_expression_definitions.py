"""Operators that a user defines: read by the grammar, written out in every equation."""

from __future__ import annotations

import pytest
import torch

from symtorch_core.errors import ExpressionError, SearchError
from symtorch_core.expressions import evaluate, parse, parse_definition
from symtorch_core.search.space import SearchSpace

GAUSS = parse_definition("gauss(x) = exp(-x^2)")
MEAN = parse_definition("mean(a, b) = (a + b)/2.0f0")


def test_calls_are_written_out_wherever_they_stand() -> None:
    tree = parse("2*gauss(mean(x, 3)) - mean(gauss(y), x)", ["x", "y"], [GAUSS, MEAN])
    assert tree == parse("2*exp(-((x + 3)/2.0)^2) - (exp(-y^2) + x)/2.0")


def test_arguments_named_like_parameters_are_not_confused() -> None:
    swapped = parse("mean(b, a + b)", None, [MEAN])
    assert swapped == parse("(b + (a + b))/2.0")


def test_without_its_definition_a_name_is_unknown() -> None:
    with pytest.raises(ExpressionError, match="unknown operator 'gauss'"):
        parse("gauss(x)")


def test_the_number_of_arguments_is_checked() -> None:
    with pytest.raises(ExpressionError, match=r"'mean' takes 2 argument\(s\), got 1"):
        parse("mean(x)", None, [MEAN])


@pytest.mark.parametrize(
    "text",
    [
        "gauss(x) == x",
        "gauss",
        "gauss(x, x) = x",
        "gauss(2) = x",
        "gauss() = 1",
        "2(x) = x",
        "(x) = x",
        "g(x) =",
    ],
)
def test_what_is_no_definition_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_definition(text)


@pytest.mark.parametrize("body", ["x > 0 ? x : 0", "besselj(x)", "x + y", "begin x end", "__import__('os')"])
def test_a_body_outside_the_grammar_is_kept_as_text_and_never_run(body: str) -> None:
    definition = parse_definition(f"mine(x) = {body}")
    assert definition.body is None
    assert definition.source.endswith(body)
    with pytest.raises(ExpressionError, match="mine"):
        parse("mine(x)", None, [definition])


def test_a_name_of_the_table_may_be_defined_as_what_it_is_and_as_nothing_else() -> None:
    assert SearchSpace(unary_operators=["inv(x) = 1/x", "square(t) = t*t"]).unary_operators == (
        "inv",
        "square",
    )
    assert SearchSpace(binary_operators=["plus(a, b) = a + b"]).binary_operators == ("+",)
    for wrong in ("inv(x) = 2/x", "inv(x, y) = x/y", "inv(x) = nonsense(x)"):
        with pytest.raises(SearchError, match="operator of the table"):
            SearchSpace(unary_operators=[wrong])


def test_a_search_keeps_definitions_and_limits_under_their_names() -> None:
    search = SearchSpace(
        binary_operators=["+", "mean(a, b) = (a + b)/2"],
        unary_operators=["gauss(x) = exp(-x^2)"],
        complexity_of_operators={"gauss": 2},
        constraints={"gauss": 3, "mean": (-1, 2)},
        nested_constraints={"gauss": {"gauss": 0}},
    )
    assert [definition.name for definition in search.definitions] == ["mean", "gauss"]
    assert search.constraints == {"gauss": (3,), "mean": (-1, 2)}
    with pytest.raises(SearchError, match=r"needs 2 number\(s\)"):
        SearchSpace(binary_operators=["mean(a, b) = (a + b)/2"], constraints={"mean": 3})
    with pytest.raises(SearchError, match=r"does not take 1 argument\(s\)"):
        SearchSpace(unary_operators=["mean(a, b) = (a + b)/2"])
    with pytest.raises(SearchError, match="backend has no operator .mean"):
        search.refuse_definitions("backend")


def test_julias_numbers_are_read() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    tree = parse_definition("f(x) = 1.5f-3*x + 2f0").body
    assert tree is not None
    assert evaluate(tree, {"x": x}).tolist() == pytest.approx([2.0015, 2.003])
