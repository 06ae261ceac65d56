"""Problems as text: their true solutions solve them, and networks see the same derivatives as sympy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import symtorch_core as st
from symtorch_core.expressions import parse
from symtorch_pinn.checks import check_equation, fit_form
from symtorch_pinn.network import build_network, compute_derivatives
from symtorch_pinn.problem import HEAT, LOGISTIC, PROBLEMS, Problem
from symtorch_pinn.training import Settings, build_physics_loss

each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def solution_of(problem: Problem) -> st.Candidate:
    return st.Candidate(problem.fill_form(problem.values), 1, 0.0)


@each_problem
def test_the_true_solution_passes_every_check(problem: Problem) -> None:
    check = check_equation(solution_of(problem), problem)
    assert check.residual < 1e-10
    assert max(check.conditions) < 1e-10
    assert check.mse < 1e-20
    assert check.mse_beyond < 1e-16
    assert check.largest_error(problem.values) < 1e-8
    assert check.identified == pytest.approx(problem.constants, rel=1e-8)


@each_problem
def test_the_true_solution_has_no_loss(problem: Problem) -> None:
    class Truth(nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return problem.compute_solution(points)

    constants = {name: torch.tensor(value, dtype=torch.float64) for name, value in problem.constants.items()}
    known = problem.sample_data(0)
    inside = problem.sample_inside(40, 1)
    loss = build_physics_loss(problem, Settings(), Truth(), constants, *known, inside)
    assert loss().item() < 1e-18
    for name in constants:  # guards the line above: with a wrong constant there is a loss
        wrong = {**constants, name: constants[name] * 1.1}
        assert build_physics_loss(problem, Settings(), Truth(), wrong, *known, inside)().item() > 1e-6


def test_the_weights_are_the_papers() -> None:
    """1 for data and equation, 5 for each boundary, whose two ends count as one (F)."""
    network, alpha = build_network(HEAT.ranges, 0), torch.tensor(0.0, dtype=torch.float64)
    (points, values), inside = HEAT.sample_data(0), HEAT.sample_inside(30, 1)
    loss = build_physics_loss(HEAT, Settings(), network, {"alpha": alpha}, points, values, inside)

    def at(x: float | None, t: float | None) -> torch.Tensor:
        edge = inside.clone()
        edge[:, 0] = edge[:, 0] if x is None else x
        edge[:, 1] = edge[:, 1] if t is None else t
        return edge

    ends = torch.cat([network(at(0.0, None)), network(at(1.0, None))])
    start = network(at(None, 0.0))[:, 0] - torch.sin(math.pi * inside[:, 0])
    by_time = compute_derivatives(network, inside, [("t",)], ("x", "t"))["t",]
    expected = (
        (network(points) - values).square().mean()
        + by_time.square().mean()
        + 5 * ends.square().mean()
        + 5 * start.square().mean()
    )
    assert loss().item() == pytest.approx(expected.item(), rel=1e-12)


def test_derivatives_of_a_network_are_those_of_its_function() -> None:
    class Known(nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            x, t = points.unbind(1)
            return (x**3 * torch.exp(2 * t))[:, None]

    points = HEAT.sample_inside(20, 0)
    x, t = points.unbind(1)
    found = compute_derivatives(Known(), points, [("x", "x"), ("x", "t"), ("t",)], ("x", "t"))
    torch.testing.assert_close(found["x", "x"], 6 * x * torch.exp(2 * t))
    torch.testing.assert_close(found["x", "t"], 6 * x**2 * torch.exp(2 * t))
    torch.testing.assert_close(found["t",], 2 * x**3 * torch.exp(2 * t))
    torch.testing.assert_close(found[()], x**3 * torch.exp(2 * t))


@pytest.mark.parametrize(
    "spelling",
    [
        "{k}/(1 + {a}*exp({b}*t))",
        "{k}*exp(-({b})*t)/(exp(-({b})*t) + {a})",
        "{k} - {k}*{a}/({a} + exp(-({b})*t))",
    ],
)
def test_a_form_is_a_function_not_a_spelling(spelling: str) -> None:
    values = {"k": 2.01, "a": 8.9, "b": -1.51}
    form, error = fit_form(parse(spelling.format(**values)), LOGISTIC)
    assert error < 1e-9
    assert form == pytest.approx(values, rel=1e-6)


def test_an_approximant_has_another_form() -> None:
    near = "exp(-1.97*t)*sin(3.14*x) + 0.0001*x"
    check = check_equation(st.Candidate(parse(near), 1, 0.0), HEAT)
    assert check.form is None
    assert check.largest_error(HEAT.values) == math.inf
    assert 1e-6 < check.form_error < 1e-2
    assert check.mse < 1e-4


def test_constants_are_not_read_off_an_equation_that_does_not_tell_them() -> None:
    check = check_equation(st.Candidate(parse("0.5 - 0.5*t"), 1, 0.0), HEAT)  # u_xx = 0: any alpha will do
    assert check.identified == HEAT.start
    assert check.residual == pytest.approx(1.0)


def test_points_fill_every_range_independently() -> None:
    points = HEAT.sample_inside(2_000, 0)
    assert points.min() >= 0
    assert points.max() <= 1
    assert abs(float(torch.corrcoef(points.T)[0, 1])) < 0.05
    assert torch.equal(points, HEAT.sample_inside(2_000, 0))
    assert not torch.equal(points, HEAT.sample_inside(2_000, 1))


def test_data_may_lie_in_a_part_of_the_range() -> None:
    points, values = LOGISTIC.sample_data(0)
    assert points.shape == values.shape == (10, 1)
    assert points.max() <= 3.0


def test_the_grid_and_its_continuation() -> None:
    assert HEAT.build_grid().shape == HEAT.build_grid_beyond().shape == (10_000, 2)
    assert HEAT.build_grid_beyond()[:, 1].min() == 1.0
    assert HEAT.build_grid_beyond()[:, 1].max() == 2.0
    assert LOGISTIC.build_grid_beyond()[:, 0].max() == 12.0


def test_the_search_space_is_the_papers() -> None:
    space = HEAT.build_search_space()
    assert space.constraints == {"sin": (3,), "exp": (3,)}
    assert space.nested_constraints == {"sin": {"sin": 0, "exp": 0}, "exp": {"sin": 0, "exp": 0}}
    assert space.complexity_of_operators == {"sin": 3, "exp": 3}
    assert space.admits(HEAT.fill_form(HEAT.values))
