"""The verdict on equations."""

from __future__ import annotations

import math

import pytest
import torch

from symtorch_core import Transforms
from symtorch_core.expressions import parse
from symtorch_gnn.forces import FORCES
from symtorch_gnn.laws import EDGE_NAMES, TRANSFORMS, compare_with_law

RIGHT = [
    ("spring", "(0.7*dx - 0.4*dy)*(1 - inv(r))", "full"),
    ("spring", "1.5*dx*(r - 0.99)*inv(r) + 0.02", "only dx + constant"),
    ("r1", "m1*m2*(0.7*dx + 0.4*dy)/r^2", "full"),
    ("r1", "m2*(0.7*dx + 0.4*dy)*inv(r*r) - 0.1", "full + constant"),
    ("r2", "m2*dy/r^3", "only dy"),
    ("r2", "m1*m2*exp(-3*log(r))*(dx + dy)", "full"),
    ("charge", "q1*q2*(0.1*dx - dy)/r^3", "full"),
    ("charge", "q1*q2*inv(m1)*(0.1*dx - dy)/r^3", "full"),  # the reader knows the receiver's mass
    ("spring", "(0.7*dx - 0.4*dy)*(1 - inv(r))*inv(m1)", "full"),
]


@pytest.mark.parametrize(("force", "equation", "mark"), RIGHT)
def test_images_of_the_law_are_known(force: str, equation: str, mark: str) -> None:
    assert compare_with_law(parse(equation), FORCES[force]).mark == mark


@pytest.mark.parametrize(
    ("force", "equation"),
    [
        ("spring", "dx*(1 - 0.7/r)"),  # another length of rest
        ("spring", "dx + dy"),
        ("r1", "m2*(dx + dy)/r^3"),
        ("r1", "(dx + dy)/r^2"),  # no mass
        ("r2", "m2*dx/r^2"),
        ("r2", "m2*q2*dx/r^3"),
        ("charge", "q1*dx/r^3"),
        ("spring", "dx*(1 - 1/r)/m2"),
        ("charge", "q1*q2*dx/(r^3 + 1)"),  # the same afar, another near
        ("charge", "q1*q2*m2*dx/r^3"),
        ("charge", "q2*dx/(r^3 + m1)"),  # an image for no mass, and for each another
        ("charge", "0.5"),
        ("r1", "log(dx)"),
        ("charge", "exp(-r)"),
        ("spring", "m2"),
        ("spring", "m1"),
    ],
)
def test_others_are_not(force: str, equation: str) -> None:
    verdict = compare_with_law(parse(equation), FORCES[force])
    assert not verdict.matches
    assert verdict.mark == "no"


@pytest.mark.parametrize(
    ("force", "equation", "factor"),
    [
        ("r1", "m1*m2*dx/r^2", "force"),
        ("r1", "m2*dx/r^2", "force / m1"),
        ("r1", "m2*dx/r^2*(m1 + inv(m1)) + log(m1)", "force * g(m1)"),
        ("spring", "(dx - dy)*(1 - inv(r))", "force"),
        ("spring", "(dx - dy)*(1 - inv(r))*inv(m1)", "force / m1"),
        ("spring", "(dx - dy)*(1 - inv(r))*(inv(m1) + 0.9)", "force * g(m1)"),
        ("charge", "q1*q2*dx/r^3", "force"),
        ("charge", "q2*dx/r^3", "force * q1"),
        ("charge", "q2*dx/r^3*inv(m1)", "force / m1 * q1"),
    ],
)
def test_what_the_reader_can_undo_is_told(force: str, equation: str, factor: str) -> None:
    verdict = compare_with_law(parse(equation), FORCES[force])
    assert verdict.matches
    assert verdict.factor == factor


def test_what_a_verdict_says() -> None:
    verdict = compare_with_law(parse("m2*(0.3*dx - 2*dy)/r^2"), FORCES["r1"])
    assert verdict.slopes == pytest.approx((-0.3, 2.0), rel=0.05)  # r1 attracts
    assert verdict.exponent == pytest.approx(-1, abs=0.02)
    assert compare_with_law(parse("m1*m2*dx/r^2 + q2*1e-9"), FORCES["r1"]).strange == ("q2",)
    assert math.isnan(compare_with_law(parse("0.5"), FORCES["r1"]).exponent)


def test_transforms_are_the_variables_of_the_law() -> None:
    rows = torch.randn(50, 12, dtype=torch.float64)
    derived = Transforms(EDGE_NAMES, TRANSFORMS)(rows)
    dx, dy = rows[:, 0] - rows[:, 6], rows[:, 1] - rows[:, 7]
    expected = [dx, dy, torch.hypot(dx, dy) + 0.01, rows[:, 4], rows[:, 10], rows[:, 5], rows[:, 11]]
    torch.testing.assert_close(derived, torch.stack(expected, dim=1))
