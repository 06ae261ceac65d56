"""A differential equation as text: the same text trains the network and checks the equation found in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.expressions import Constant, Expression, evaluate, parse, substitute

SIDE = 100
"""Points along each side of the grid on which everything is judged (SymTorch paper, Table 9)."""


@final
@dataclass(frozen=True)
class Condition:
    """A boundary or initial condition.

    Attributes:
        equation: the expression that is zero there, in the unknown and its derivatives: ``"u - sin(pi*x)"``.
        at: the variables that are fixed, and where: ``{"t": 0.0}``.
    """

    equation: str
    at: Mapping[str, float]


@final
@dataclass(frozen=True)
class Problem:
    """A differential equation for u, and what is known of its solution.

    Attributes:
        name: for the command line.
        title: a headline.
        ranges: for each variable, in order, its range in training.
        equation: the expression that is zero inside, as :func:`symtorch_core.residual_check` reads it.
        conditions: on boundaries.
        form: the true solution, with a name for each of its constants.
        values: those constants.
        constants: the unknown constants of the equation, at their true values.
        start: their values at the start of a training.
        extends: the variable along which the solution is tested up to twice its range.
        measured: ranges of the data points, where these are narrower.
        data_points: number of known values of the solution.
        unary_operators: those that the search may use.
    """

    name: str
    title: str
    ranges: Mapping[str, tuple[float, float]]
    equation: str
    conditions: tuple[Condition, ...]
    form: str
    values: Mapping[str, float]
    extends: str
    constants: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    data_points: int = 10
    unary_operators: tuple[str, ...] = ("inv", "sin", "exp")

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in order."""
        return tuple(self.ranges)

    def compute_solution(self, points: Tensor) -> Tensor:
        """Return the true solution at points (n, d), shape (n, 1)."""
        solution = evaluate(self.fill_form(self.values), self.split_columns(points))
        return solution.expand(len(points))[:, None]

    def split_columns(self, points: Tensor) -> dict[str, Tensor]:
        """Return points (n, d) by variable, each of shape (n,)."""
        return dict(zip(self.variables, points.unbind(1), strict=True))

    def move_to_boundary(self, condition: Condition, points: Tensor) -> Tensor:
        """Return points (n, d), moved to where a condition holds."""
        edge = points.clone()
        for name, value in condition.at.items():
            edge[:, self.variables.index(name)] = value
        return edge

    def fill_form(self, values: Mapping[str, float]) -> Expression:
        """Return the form with numbers for its constants."""
        return substitute(parse(self.form), {name: Constant(value) for name, value in values.items()})

    def sample_inside(self, count: int, seed: int) -> Tensor:
        """Draw points that fill every variable's range independently, float64, shape (count, d)."""
        return _draw_uniform(self.ranges, count, seed)

    def sample_data(self, seed: int) -> tuple[Tensor, Tensor]:
        """Draw the points (n, d) whose values are known; return both, the values of shape (n, 1)."""
        points = _draw_uniform({**self.ranges, **self.measured}, self.data_points, seed)
        return points, self.compute_solution(points)

    def build_grid(self) -> Tensor:
        """Return a regular grid over the domain, ``SIDE`` points along each variable."""
        return _build_grid(self.ranges)

    def build_grid_beyond(self) -> Tensor:
        """Return a grid as fine, on the second half of twice the range of the variable ``extends``."""
        low, high = self.ranges[self.extends]
        return _build_grid({**self.ranges, self.extends: (high, 2 * high - low)})

    def build_search_space(self, **options: object) -> SearchSpace:
        """Return the paper's search space (F): no sin or exp inside another; arguments of complexity 3 at most."""
        functions = [name for name in self.unary_operators if name != "inv"]
        return SearchSpace(
            unary_operators=self.unary_operators,
            complexity_of_operators=dict.fromkeys(functions, 3),
            constraints=dict.fromkeys(functions, 3),  # type: ignore[arg-type]  # one number, for the one argument
            nested_constraints={outer: dict.fromkeys(functions, 0) for outer in functions},
            **options,  # type: ignore[arg-type]
        )


def _draw_uniform(ranges: Mapping[str, tuple[float, float]], count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(list(ranges.values()), dtype=torch.float64).unbind(1)
    shares = torch.rand(count, len(ranges), generator=generator, dtype=torch.float64)
    return torch.lerp(low, high, shares)


def _build_grid(ranges: Mapping[str, tuple[float, float]]) -> Tensor:
    sides = [torch.linspace(low, high, SIDE, dtype=torch.float64) for low, high in ranges.values()]
    return torch.cartesian_prod(*sides).reshape(-1, len(sides))


HEAT = Problem(
    name="heat",
    title="Heat in a rod: u_t = α u_xx, α unknown",
    ranges={"x": (0.0, 1.0), "t": (0.0, 1.0)},
    equation="u_t - alpha*u_xx",
    conditions=(
        Condition("u", {"x": 0.0}),
        Condition("u", {"x": 1.0}),
        Condition("u - sin(pi*x)", {"t": 0.0}),
    ),
    form="c*sin(a*x)*exp(b*t)",
    values={"c": 1.0, "a": math.pi, "b": -0.2 * math.pi**2},
    extends="t",
    constants={"alpha": 0.2},
    start={"alpha": 0.0},
)
"""The paper's problem (4.3.1 and F)."""

WAVE = Problem(
    name="wave",
    title="A string that swings: u_tt = s u_xx, s unknown",
    ranges={"x": (0.0, 1.0), "t": (0.0, 1.0)},
    equation="u_tt - s*u_xx",
    conditions=(
        Condition("u", {"x": 0.0}),
        Condition("u", {"x": 1.0}),
        Condition("u - sin(pi*x)", {"t": 0.0}),
        Condition("u_t", {"t": 0.0}),
    ),
    form="c*sin(a*x)*cos(b*t)",
    values={"c": 1.0, "a": math.pi, "b": 1.5 * math.pi},
    extends="t",
    constants={"s": 2.25},
    start={"s": 1.0},
    unary_operators=("inv", "sin", "cos", "exp"),
)

OSCILLATOR = Problem(
    name="oscillator",
    title="A damped oscillator: u_tt + d u_t + k u = 0, damping and stiffness unknown",
    ranges={"t": (0.0, 6.0)},
    equation="u_tt + d*u_t + k*u",
    conditions=(Condition("u - 1", {"t": 0.0}), Condition("u_t + 0.2", {"t": 0.0})),
    form="c*exp(b*t)*cos(a*t)",
    values={"c": 1.0, "b": -0.2, "a": 2.0},
    extends="t",
    constants={"d": 0.4, "k": 4.04},
    start={"d": 0.0, "k": 1.0},
    unary_operators=("inv", "sin", "cos", "exp"),
)

LOGISTIC = Problem(
    name="logistic",
    title="Logistic growth: u_t = r u (1 - u / K), rate and capacity unknown",
    ranges={"t": (0.0, 6.0)},
    equation="u_t - r*u*(1 - u/K)",
    conditions=(Condition("u - 0.2", {"t": 0.0}),),
    form="k/(1 + a*exp(b*t))",
    values={"k": 2.0, "a": 9.0, "b": -1.5},
    extends="t",
    constants={"r": 1.5, "K": 2.0},
    start={"r": 1.0, "K": 1.0},
    measured={"t": (0.0, 3.0)},
    unary_operators=("inv", "exp"),  # growth does not oscillate
)

LAPLACE = Problem(
    name="laplace",
    title="Laplace's equation on a square: u_xx + u_yy = 0",
    ranges={"x": (0.0, 1.0), "y": (0.0, 1.0)},
    equation="u_xx + u_yy",
    conditions=(
        Condition("u", {"x": 0.0}),
        Condition("u", {"x": 1.0}),
        Condition("u", {"y": 0.0}),
        Condition("u - sin(pi*x)", {"y": 1.0}),
    ),
    form="c*sin(a*x)*sinh(b*y)",
    values={"c": 1 / math.sinh(math.pi), "a": math.pi, "b": math.pi},
    extends="y",
    unary_operators=("inv", "sin", "exp", "sinh"),
)

PROBLEMS: Mapping[str, Problem] = {p.name: p for p in (HEAT, WAVE, OSCILLATOR, LOGISTIC, LAPLACE)}
