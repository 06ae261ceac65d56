"""Counting and constraints."""

from __future__ import annotations

import pytest

from symtorch_core.expressions import ComplexityRules, parse, satisfies_constraints

RULES = ComplexityRules()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("3", 1),
        ("x", 1),
        ("x + 1", 3),
        ("-x", 2),
        ("x^2", 3),
        ("sin(x*y) + 2.5*x", 8),
        ("clamp(x, -1, 1)", 4),
    ],
)
def test_one_for_each_node(text: str, count: int) -> None:
    assert RULES.count(parse(text)) == count


def test_each_kind_of_node_has_its_own_weight() -> None:
    rules = ComplexityRules(operators={"sin": 3, "*": 2}, constants=5, variables={"x": 7})
    assert rules.count(parse("sin(2*x)")) == 3 + 2 + 5 + 7
    assert rules.count(parse("y")) == 1
    assert ComplexityRules(variables=4).count(parse("x + y")) == 9


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("(x + y)^2", True),
        ("x^(y + 1)", False),
        ("sin(x^(y + 1))", False),
        ("(x + y*z + x)^2", True),
        ("2^x", True),
    ],
)
def test_constraints_limit_each_argument_by_itself(text: str, allowed: bool) -> None:
    assert satisfies_constraints(parse(text), RULES, {"^": (-1, 1)}, {}) is allowed


def test_constraints_count_by_the_rules() -> None:
    heavy = ComplexityRules(operators={"sin": 3})
    assert satisfies_constraints(parse("exp(sin(x))"), RULES, {"exp": (3,)}, {})
    assert not satisfies_constraints(parse("exp(sin(x))"), heavy, {"exp": (3,)}, {})


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("sin(x) + sin(y)", True),
        ("sin(cos(x))", True),
        ("sin(1 + cos(cos(x)))", False),
        ("sin(cos(x) + cos(y))", True),  # side by side is not nested
        ("cos(sin(x))", True),
        ("sin(exp(x*sin(y)))", False),
        ("exp(sin(exp(x)))", True),
    ],
)
def test_nested_constraints(text: str, allowed: bool) -> None:
    nested = {"sin": {"sin": 0, "cos": 1}}
    assert satisfies_constraints(parse(text), RULES, {}, nested) is allowed


def test_constraints_of_a_product_or_a_sum_hold_in_either_order() -> None:
    for sign in "*+":
        assert satisfies_constraints(parse(f"x {sign} sin(y + 1)"), RULES, {sign: (-1, 1)}, {})
        assert satisfies_constraints(parse(f"sin(y + 1) {sign} x"), RULES, {sign: (-1, 1)}, {})
        assert not satisfies_constraints(parse(f"sin(y) {sign} sin(x)"), RULES, {sign: (-1, 1)}, {})
    assert not satisfies_constraints(parse("x - sin(y + 1)"), RULES, {"-": (-1, 1)}, {})
