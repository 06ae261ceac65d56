"""Every operator of the table: the deployed surrogate against sympy, evaluated with many digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions import (
    OPERATORS,
    Call,
    Constant,
    Expression,
    Operator,
    Variable,
    constants,
    evaluate,
    from_sympy,
    lookup,
    parse,
    to_sympy,
    variables,
)
from symtorch_core.reduction.linear import IdentityReducer
from symtorch_core.surrogates.surrogate import TorchSurrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.testing.strategies import expressions

ROWS = 48
NAMES = "abc"
SHAPES = ((ROWS, -1), (6, 8, -1), (1, -1), (-1,))
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def surrogate_of(*equations: Expression, names: str = NAMES) -> TorchSurrogate:
    reduction = IdentityReducer.restore({"variable_names": list(names)})
    return TorchSurrogate.build(equations, Transforms.none(list(names)), reduction)


def samples(operator: Operator, dtype: torch.dtype) -> Tensor:
    """Points of the domain, some of them close to zero, shape (ROWS, arity)."""
    generator = np.random.default_rng(7)
    columns = []
    for low, high in operator.domain:
        low, high = max(low, -5.0), min(high, 5.0)
        edge = 1e-3 * (high - low)
        column = generator.uniform(low + edge, high - edge, ROWS)
        if low <= 0 < high:
            column[-8:] = np.geomspace(1e-4, 1e-2, 8)
        columns.append(column)
    return torch.tensor(np.stack(columns, axis=1), dtype=dtype)


def reference(expression: Expression, names: str, rows: Tensor) -> Tensor:
    """Values by sympy and mpmath, rounded once at the end."""
    function = sp.lambdify([sp.Symbol(name, real=True) for name in names], to_sympy(expression), "mpmath")
    with mpmath.workdps(40):
        values = [float(function(*(mpmath.mpf(value) for value in row))) for row in rows.tolist()]
    return torch.tensor(values, dtype=torch.float64)


def assert_close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    error = (got.double().reshape(-1) - expected.reshape(-1)).abs()
    assert bool((error <= tolerance * expected.reshape(-1).abs()).all()), error.max()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_the_surrogate_computes_what_sympy_says(name: str, dtype: torch.dtype) -> None:
    operator = OPERATORS[name]
    names = NAMES[: operator.arity]
    expression = Call(name, *map(Variable, names))
    rows = samples(operator, dtype)
    expected = reference(expression, names, rows)
    surrogate = surrogate_of(expression, names=names)
    for shape in SHAPES:
        count = 1 if shape in {(1, -1), (-1,)} else ROWS
        x = rows[:count].reshape(*shape[:-1], operator.arity)
        for inputs in (x, x.clone().requires_grad_()):  # one operation for many nodes, and one for each
            value = surrogate(inputs).detach()
            assert value.shape == (*x.shape[:-1], 1)
            assert value.dtype == dtype
            assert_close(value, expected[:count], TOLERANCE[dtype])


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_takes_numbers_in_any_place(name: str) -> None:
    operator = OPERATORS[name]
    point = samples(operator, torch.float64)[0]
    columns = dict(zip(NAMES, point, strict=False))
    variable = evaluate(Call(name, *map(Variable, NAMES[: operator.arity])), columns)
    rows = point.repeat(5, 1)
    x = torch.nn.functional.pad(rows, (0, 3 - operator.arity))
    for fixed in range(1, 2**operator.arity):
        args = [
            Constant(float(point[i])) if fixed >> i & 1 else Variable(NAMES[i]) for i in range(operator.arity)
        ]
        surrogate = surrogate_of(Call("+", Call(name, *args), Constant(0.0)), Call(name, *args))
        for inputs in (x, x.clone().requires_grad_()):
            assert torch.allclose(surrogate(inputs).detach(), variable.expand(5, 2), rtol=1e-14, atol=0)


STEPS = {
    "floor",
    "ceil",
    "round",
    "sign",
    "greater",
    "less",
    "greater_equal",
    "less_equal",
    "logical_or",
    "logical_and",
}


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in STEPS])
def test_gradients_are_those_of_the_function(name: str) -> None:
    operator = OPERATORS[name]
    rows = samples(operator, torch.float64)[:8].requires_grad_()
    surrogate = surrogate_of(
        Call(name, *map(Variable, NAMES[: operator.arity])), names=NAMES[: operator.arity]
    )
    assert torch.autograd.gradcheck(surrogate, (rows,))


@pytest.mark.parametrize("name", OPERATORS)
def test_parity_and_degree_are_true(name: str) -> None:
    operator = OPERATORS[name]
    if operator.arity != 1:
        assert operator.parity == 0
        assert operator.degree is None
        return
    x = samples(operator, torch.float64)[:, 0]
    value = operator.torch(x)
    if operator.parity:
        assert torch.allclose(operator.torch(-x), operator.parity * value, rtol=1e-13)
    if operator.degree is not None:
        assert torch.allclose(operator.torch(3 * x), 3**operator.degree * value, rtol=1e-13)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("real", [True, False])
def test_sympy_and_back_gives_the_same_numbers(name: str, real: bool) -> None:
    operator = OPERATORS[name]
    names = NAMES[: operator.arity]
    expression = Call(name, *map(Variable, names))
    columns = dict(zip(names, samples(operator, torch.float64).T, strict=True))
    exact = to_sympy(expression, real=real)
    assert exact.free_symbols == {sp.Symbol(name, real=real or None) for name in names}
    back = from_sympy(exact)
    assert torch.allclose(evaluate(back, columns), evaluate(expression, columns), rtol=1e-12, atol=1e-15)


ARITHMETIC = ("+", "-", "*", "/", "neg", "inv", "square", "exp", "sin", "tanh", "abs", "max")


@settings(max_examples=60)
@given(
    expressions(
        operators=ARITHMETIC, numbers=st.floats(-3, 3).map(lambda value: round(value, 2)), max_leaves=8
    )
)
def test_whole_expressions_survive_sympy(expression: Expression) -> None:
    x = torch.linspace(0.3, 2.1, 7, dtype=torch.float64)
    columns = {"x": x, "y": 1.7 - 0.6 * x}
    expected = evaluate(expression, columns).expand_as(x)
    if not bool(expected.isfinite().all()) or float(expected.abs().max()) > 1e6:
        return
    got = evaluate(from_sympy(to_sympy(expression)), columns).expand_as(x)
    # sympy reorders sums, so digits may go where large terms cancel.
    assert torch.allclose(got, expected, rtol=1e-8, atol=1e-8)


def test_symbols_are_real_and_whole_numbers_are_integers() -> None:
    equation = to_sympy(parse("3.0*x^2.0 + 0.1*x"))
    x = sp.Symbol("x", real=True)
    assert equation == 3 * x**2 + sp.Float("0.1", 17) * x
    assert str(equation) == "3*x**2 + 0.1*x"
    assert str(to_sympy(parse("3.14159*x"), digits=3)) == "3.14*x"


def test_constants_are_exact_in_sympy() -> None:
    number = math.pi * 1e-7
    assert from_sympy(to_sympy(Constant(number))) == Constant(number)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (sp.zeta(sp.Symbol("x")), "no row for sympy's zeta"),
        (sp.Symbol("x") + sp.I, "not a real number"),
        (sp.oo, "not a real number"),
        (sp.zoo, "not a real number"),
        (sp.nan, "not a real number"),
        (sp.Integral(sp.Symbol("x"), sp.Symbol("x")), "no row for sympy's Integral"),
    ],
)
def test_what_the_table_lacks_is_named(expression: sp.Basic, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        from_sympy(expression)


def test_sympy_forms_that_people_write() -> None:
    x, y = sp.symbols("x y")
    columns = {"x": torch.tensor([0.5, 2.0]), "y": torch.tensor([3.0, -1.0])}
    for expression in (
        sp.Rational(1, 3) * x - y / 7,
        sp.sqrt(x) / y,
        (1 + 1 / x) * y,
        sp.exp(-x) * y,
        sp.Max(x, y, 1),
        x ** sp.Rational(-3, 2),
        sp.Piecewise((x, x > 1), (y, y > 0), (sp.pi, True)),
        sp.Piecewise((x, sp.And(x > 1, y < 0)), (0, True)),
    ):
        function = sp.lambdify([x, y], expression, "math")
        expected = torch.tensor([function(0.5, 3.0), function(2.0, -1.0)])
        tree = from_sympy(expression)
        assert set(variables(tree)) <= {"x", "y"}
        assert torch.allclose(evaluate(tree, columns), expected)


def test_evaluate_takes_other_constants_and_expressions_without_variables() -> None:
    expression = parse("2*x + 3")
    assert evaluate(expression, {"x": torch.ones(2)}, torch.tensor([5.0, 7.0])).tolist() == [12.0, 12.0]
    assert float(evaluate(parse("2^3 + 1"), {})) == 9.0
    assert constants(expression) == (2.0, 3.0)


def test_an_unknown_operator_lists_the_table() -> None:
    with pytest.raises(
        ExpressionError, match="unknown operator 'tanhh'. Did you mean 'tanh'.*Known operators: "
    ):
        lookup("tanhh")
