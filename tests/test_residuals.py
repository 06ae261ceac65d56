"""Equations put into differential equations."""

from __future__ import annotations

import math

import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st_

import symtorch_core as st
from symtorch_core.expressions import parse

XT = torch.rand(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PLANE = {"variable_names": ("x", "t")}


@pytest.mark.parametrize(
    ("equation", "law"),
    [
        ("exp(-0.2*pi^2*t)*sin(pi*x)", "u_t - 0.2*u_xx"),
        ("sin(x - 3*t) + cos(x + 3*t)", "u_tt - 9*u_x_x"),
        ("exp(x)*sin(t)", "u_xx + u_tt"),
        ("1/(1 + 9*exp(-2*t))", "u_t - 2*u*(1 - u)"),
        ("exp(x*t)", "u_xt - u - x*t*u"),
        ("x^2*t", "u_xxt - 2"),
    ],
)
def test_solutions_leave_nothing(equation: str, law: str) -> None:
    assert st.residual_check(equation, law, XT, **PLANE).relative < 1e-12


@given(a=st_.floats(0.1, 3.0), b=st_.floats(-3.0, 3.0))
def test_what_is_left_is_the_closed_form(a: float, b: float) -> None:
    found = st.residual_check("sin(x)*exp(-t)", "u_t - a*u_xx + b", XT, constants={"a": a, "b": b}, **PLANE)
    left = (a - 1) * XT[:, 0].sin() * (-XT[:, 1]).exp() + b
    assert found.rms == pytest.approx(float(left.square().mean().sqrt()), abs=1e-12)
    assert found.max_abs == pytest.approx(float(left.abs().max()), abs=1e-12)
    assert found.rows == 400
    assert 0 <= found.relative <= 1


def test_units_do_not_matter_to_the_relative_size() -> None:
    small, large = (
        st.residual_check(f"{scale}*exp(-2.1*t)", "u_t + 2*u", XT, **PLANE) for scale in (1e-6, 1e6)
    )
    assert small.relative == pytest.approx(large.relative)
    assert small.relative == pytest.approx(0.1 / 4.1)


def test_conditions_are_equations_without_derivatives() -> None:
    edge = torch.stack([torch.zeros(50, dtype=torch.float64), XT[:50, 1]], dim=1)
    start = torch.stack([XT[:50, 0], torch.zeros(50, dtype=torch.float64)], dim=1)
    heat = "exp(-2*t)*sin(pi*x)"
    assert st.residual_check(heat, "u", edge, **PLANE).max_abs == 0.0
    assert st.residual_check(heat, "u - sin(pi*x)", start, **PLANE).max_abs < 1e-15
    assert st.residual_check(heat, "u", start, **PLANE).max_abs > 0.5


def test_every_form_of_an_equation_and_longer_names() -> None:
    points = XT.numpy()
    x = sp.Symbol("x0", real=True)
    tree = parse("square(x0)")
    forms = (tree, st.Candidate(tree, 2, 0.0), x**2, "x0^2")
    for form in forms:
        found = st.residual_check(form, "v_x0_x0 - 2", points, variable_names=("x0", "x1"), unknown="v")
        assert found.rms == 0.0
        assert found.residual == 0


def test_values_that_are_not_finite_are_no_solution() -> None:
    points = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert st.residual_check("log(x)", "u_x - 1", points, **PLANE).rms == math.inf


@pytest.mark.parametrize(
    ("equation", "law", "message"),
    [
        ("x", "u_y", "'u_y' in the differential equation is neither"),
        ("x", "u_t - k*u", "'k' in the differential equation"),
        ("x + z", "u_t", "unknown variable 'z'"),
        ("x", "u_t -", "cannot read"),
        ("max(x, t)", "u_xx", "Heaviside|DiracDelta"),
    ],
)
def test_what_cannot_be_checked(equation: str, law: str, message: str) -> None:
    with pytest.raises(st.ExpressionError, match=message):
        st.residual_check(equation, law, XT, **PLANE)


def test_points_of_another_width() -> None:
    with pytest.raises(st.ExpressionError, match="3 columns for 2 variables"):
        st.residual_check("x", "u_t", torch.rand(5, 3), **PLANE)


@given(a=st_.floats(0.05, 3.0), k=st_.floats(0.5, 2.0))
def test_constants_are_those_for_which_the_equation_is_a_solution(a: float, k: float) -> None:
    solution = f"exp({-a * k**2}*t)*sin({k}*x)"
    found = st.identify_constants(solution, "u_t - a*u_xx", XT, start={"a": 1.0}, **PLANE)
    assert found == pytest.approx({"a": a}, rel=1e-9)


def test_constants_inside_functions_and_more_than_one() -> None:
    points = XT[:, 1:] * 6
    growth = "2/(1 + 9*exp(-1.5*t))"
    law = "u_t - r*u*(1 - u/K)"
    found = st.identify_constants(growth, law, points, variable_names=["t"], start={"r": 1.0, "K": 1.0})
    assert found == pytest.approx({"r": 1.5, "K": 2.0}, rel=1e-8)
    assert st.residual_check(growth, law, points, variable_names=["t"], constants=found).relative < 1e-8


def test_an_equation_that_solves_nothing_gets_the_nearest_constants() -> None:
    found = st.identify_constants(
        "exp(-2*t) + x", "u_t + k*exp(-2*t) - b", XT, start={"k": 0.0, "b": 1.0}, **PLANE
    )
    assert found == pytest.approx({"k": 2.0, "b": 0.0}, abs=1e-9)
    assert st.identify_constants("x", "u_xx", XT, start={}, **PLANE) == {}


def test_constants_need_a_start_where_all_is_finite() -> None:
    with pytest.raises(st.ExpressionError, match="not finite on every point"):
        st.identify_constants("exp(-t)", "u_t + u/K", XT, start={"K": 0.0}, **PLANE)
    with pytest.raises(st.ExpressionError, match="'K' in the differential equation"):
        st.identify_constants("exp(-t)", "u_t + u/K", XT, start={"L": 1.0}, **PLANE)
