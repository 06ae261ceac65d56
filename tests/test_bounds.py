"""Equations of every size that a file may hold: what is made of them is correct, and in proportion to them."""

from __future__ import annotations

import pickle
import runpy
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import torch

import symtorch_core as st
from symtorch_core.exports import Deployed, to_c, to_python
from symtorch_core.expressions import (
    OPERATORS,
    Call,
    Expression,
    Variable,
    depth,
    evaluate,
    parse,
    parse_definition,
    simplify,
    to_sympy,
    to_text,
)
from symtorch_core.expressions.printing import to_latex
from symtorch_core.expressions.tree import count_nodes, share_parts, walk_up
from symtorch_core.results.choosing import choose_by_rule
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.views.page_parts import Equation, render_math

X = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
UNARY = [name for name, operator in OPERATORS.items() if operator.arity == 1]
HARD = {
    "a tower of powers": "9^9^9^9 + x0",
    "powers of a product": "(2*x0)^1000000 + (3*x1)^9007199254740991",
    "gamma of a number": "gamma(100000000)*x0 + gamma(gamma(10))",
    "mod of a number": "mod(9^9^9, 7) + x0",
    "exponentials of a number": "exp(exp(exp(exp(10.5)))) + x0",
    "a quotient by zero": "x0 + 1/0 + 0/0",
    "the largest numbers": "1.7976931348623157e308*x0 + x1^1.7976931348623157e308",
    "the smallest number": "5e-324*x0",
    "nested powers": "square(" * 24 + "3*x0" + ")" * 24,
    "nested pieces": "clamp(" * 60 + "x0" + ",-x1,x1)" * 60,
    "nested roots": "cbrt(" * 190 + "x0" + ")" * 190,
    "nested quotients": "1 + 1/(" * 95 + "x0" + ")" * 95,
    "nested questions": "atan2(less(" * 60 + "x0" + ",x1),x0)" * 60,
    "a long sum": "+".join(f"{i}.5*x{i % 2}*sin({i}*x0)" for i in range(1, 190)),
    "a large tree": "+".join("(" + "+".join(f"sin({i}.5*x{i % 2})" for i in range(40)) + ")" for _ in range(60)),
}  # fmt: skip


@pytest.fixture(scope="module")
def base() -> st.Distillation:
    return st.distill(
        (X, X[:, :1]), regressor=ScriptedRegressor(equations=("x0",)), select="accuracy", progress=False
    )


def holding(base: st.Distillation, text: str) -> st.Distillation:
    """A result whose equation is this one, as if from a file."""
    expression = parse(text, ["x0", "x1"])
    front = ParetoFront([Candidate(expression, count_nodes(expression), 1.0, 1.0)])
    return replace(base, fronts=(front,), choices=choose_by_rule([front], "accuracy"))


@pytest.mark.parametrize("name", HARD)
def test_every_view_of_a_hard_equation(name: str, base: st.Distillation, tmp_path: Path) -> None:
    result, text = holding(base, HARD[name]), HARD[name]
    assert isinstance(result.equations()["y0"], sp.Expr)
    most = 40_000 + 40 * len(text)
    for view in (result.latex(), str(result), result._repr_html_(), result.fronts[0]._repr_latex_()):
        assert len(view) < most
    equation = Equation.of("y0", result.chosen()[0].expression)
    assert max(map(len, (equation.latex, equation.math, equation.sympy, equation.python))) < most
    for ending in (".py", ".c", ".tex", ".json"):
        assert result.export(tmp_path / f"law{ending}").stat().st_size < most


@pytest.mark.parametrize("name", HARD)
def test_the_python_module_computes_a_hard_equation(name: str, base: st.Distillation, tmp_path: Path) -> None:
    result = holding(base, HARD[name])
    module = runpy.run_path(str(result.export(tmp_path / "law.py")))
    np.testing.assert_allclose(module["equations"](X.numpy()), result.surrogate()(X).numpy(), rtol=1e-9)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
@pytest.mark.parametrize("name", [name for name in HARD if name != "a large tree"])
def test_the_c_file_of_a_hard_equation_compiles(name: str, base: st.Distillation, tmp_path: Path) -> None:
    path = holding(base, HARD[name]).export(tmp_path / "law.c")
    command = [
        "cc",
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-pedantic",
        "-Werror",
        "-c",
        "-o",
        tmp_path / "law.o",
        path,
    ]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("operator", UNARY)
def test_any_depth_that_is_admitted_is_simplified_exported_and_shown(operator: str) -> None:
    expression: Expression = parse("2*x + 1")
    for _ in range(197):
        expression = Call(operator, expression)
    assert depth(expression) == 200
    assert count_nodes(simplify(expression)) <= count_nodes(expression)
    deployed = Deployed(("x",), (), ("x",), (expression,), ("y",))
    for text in (to_python(deployed), to_c(deployed), to_latex(expression), render_math(expression)):
        assert len(text) < 60_000
    compile(to_python(deployed), "law.py", "exec")


def test_deep_sums_are_collected() -> None:
    assert simplify(parse("x + (" * 190 + "x" + ")" * 190)) == parse("191.0*x")
    assert simplify(parse("neg(" * 198 + "x" + ")" * 198)) == Variable("x")


def test_a_simplified_expression_is_not_deeper_than_the_grammar_admits() -> None:
    def balanced(low: int, high: int) -> str:
        middle = (low + high) // 2
        return f"x{low}" if high - low == 1 else f"({balanced(low, middle)}+{balanced(middle, high)})"

    expression = parse(f"2*({balanced(0, 300)})*y")
    assert depth(simplify(expression)) <= 200
    parse(str(simplify(expression)))


def test_what_stands_twice_is_computed_once() -> None:
    part = "exp(-(x0 - x1)^2)"
    deployed = Deployed(
        ("x0", "x1"), (), ("x0", "x1"), (parse(f"{part}*{part} + 1"), parse(f"2/{part}")), ("a", "b")
    )
    assert to_python(deployed).count("np.exp") == 1
    assert to_c(deployed).count("exp(") == 1 + 3  # three in comments, as people read them
    chain = parse("clamp(" * 60 + "x0" + ", -1, 1)" * 60)
    source = to_c(Deployed(("x0",), (), ("x0",), (chain,), ("y",)))
    assert source.count("= (") + source.count("?") < 300


def test_sympy_works_out_what_it_can_and_names_the_rest() -> None:
    assert str(to_sympy(parse("9^9^9^9 + x0"))) == "x0 + pow(9, pow(9, 387420489))"
    assert str(to_sympy(parse("x*x + 3.0*y - 2/6*y"))) == "x**2 + 8*y/3"
    assert str(to_sympy(parse("sqrt(x^2)*sin(-y)"), real=False)) == "-sin(y)*Abs(x)"
    assert str(to_sympy(parse("sin(2)*x"), 4)) == "0.9093*x"
    assert str(to_sympy(parse("square(square(square(x + y)))"))) == "(x + y)**8"
    layer = " + ".join(f"{i}.5*x{i}" for i in range(20))
    assert to_sympy(parse(f"tanh({layer})")).func is sp.tanh
    long = to_sympy(parse("tanh(exp(sin(cos(x))))"))
    assert str(long) == "tanh(exp(sin(cos(x))))"
    function = sp.lambdify([sp.Symbol("x", real=True)], long, "numpy")
    assert function(0.5) == pytest.approx(np.tanh(np.exp(np.sin(np.cos(0.5)))))


def test_numbers_at_the_ends_of_the_range_are_printed() -> None:
    assert to_latex(parse("1.7976931348623157e308*x")) == r"1.798 \cdot 10^{308} x"
    assert to_text(parse("x^1.7976931348623157e308"), 3) == "x^1.8e+308"
    assert to_text(parse("5e-324*x"), 2) == "4.9e-324*x"
    with pytest.raises(st.ExpressionError, match="use finite numbers"):
        parse("9" * 5000 + "*x")
    assert parse("0." + "3" * 5000) == parse("0.3333333333333333")


def test_definitions_in_definitions_are_bounded() -> None:
    double = parse_definition("twice(x) = x + x")
    assert count_nodes(parse("twice(" * 14 + "x" + ")" * 14, definitions=[double])) == 2**15 - 1
    with pytest.raises(st.ExpressionError, match="has 8589934591 nodes"):
        parse("twice(" * 32 + "x" + ")" * 32, definitions=[double])


def test_equal_parts_become_one_object() -> None:
    (shared,) = share_parts([parse("sin(x + 1)*sin(x + 1) + 0.0/-0.0")])
    assert shared == parse("sin(x + 1)*sin(x + 1) + 0.0/-0.0")
    assert [str(node) for node in walk_up(shared)].count("sin(x + 1.0)") == 1
    assert [str(node) for node in walk_up(shared)].count("-0.0") == 1
    columns = {"x": torch.linspace(0, 1, 5, dtype=torch.float64)}
    assert torch.equal(evaluate(shared, columns).isnan(), torch.ones(5, dtype=torch.bool))


def test_hashes_are_those_of_this_process() -> None:
    expression = parse("sin(x) + 1")
    again = pickle.loads(pickle.dumps(expression))
    assert again == expression
    assert {again: 1}[expression] == 1
