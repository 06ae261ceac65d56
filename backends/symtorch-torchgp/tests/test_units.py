"""The units of inputs and targets do not decide whether a law is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from symtorch_core import ParetoFront, SearchSpace
from symtorch_core.events import Event, OutputImproved
from symtorch_core.expressions import evaluate, parse, simplify
from symtorch_torchgp.data.scales import choose_scales, remove_units, restore_units
from symtorch_torchgp.data.task import Task
from symtorch_torchgp.regressor import TorchGPRegressor

ROWS = 400
SEARCH = SearchSpace(
    binary_operators=("+", "-", "*", "/"), unary_operators=("exp", "sqrt", "square"), niterations=150
)


def draw(seed: int, *ranges: tuple[float, float]) -> np.ndarray:
    """Draw inputs that are log-uniform in these ranges."""
    generator = np.random.default_rng(seed)
    return np.stack([np.exp(generator.uniform(np.log(a), np.log(b), ROWS)) for a, b in ranges], axis=1)


def find(X: np.ndarray, y: np.ndarray, search: SearchSpace = SEARCH, **options: object) -> ParetoFront:
    names = [f"x{i}" for i in range(X.shape[1])]
    regressor = TorchGPRegressor(population_size=500, **options)  # type: ignore[arg-type]
    (front,) = regressor.fit(
        torch.from_numpy(X), torch.from_numpy(y[:, None]), search=search, variable_names=names
    )
    return front


@pytest.mark.parametrize(
    ("ranges", "law"),
    [
        (((1, 5), (1, 5)), lambda x, y: 3e18 * x**2 / y),
        (((1e23, 1e30), (1e23, 1e30), (1e8, 1e12)), lambda m, n, r: -6.674e-11 * m * n / r),
        (((0.05, 0.3), (200, 1000)), lambda energy, t: np.exp(-energy / (8.617e-5 * t))),
        (((1e24, 1e26), (1e24, 1e26), (1e6, 1e8)), lambda a, b, r: 6.674e-11 * (a + b) / r**2),
        (((1e-19, 1e-17), (1e4, 1e6), (0.1, 3)), lambda q, v, b: q * v * b),
        (((1, 5), (1, 5)), lambda x, y: 1e9 + x * y),
    ],
    ids=["large target", "gravity", "Arrhenius", "sum of masses", "Lorentz force", "offset"],
)
def test_laws_in_si_units_are_found(
    ranges: tuple[tuple[float, float], ...], law: Callable[..., np.ndarray]
) -> None:
    X, more = draw(0, *ranges), draw(1, *ranges)
    best = find(X, law(*X.T)).select("best")
    columns = {f"x{i}": torch.from_numpy(column) for i, column in enumerate(more.T)}
    np.testing.assert_allclose(evaluate(best.expression, columns), law(*more.T), rtol=1e-6)


@pytest.mark.parametrize("parsimony", [0.003, 0.01])
def test_parsimony_has_no_unit(parsimony: float) -> None:
    x, t = np.random.default_rng(0).uniform(0, 1, (2, 1000))
    u = np.exp(-1.974 * t) * np.sin(np.pi * x)
    search = SearchSpace(parsimony=parsimony)
    for unit in (1.0, 1000.0, 1e-6):
        best = find(np.stack([x, t], 1), unit * u, search).select("best")
        assert best.loss < 1e-9 * (unit * u).var()


def test_sizes_that_are_ordinary_or_alike_stay_comparable() -> None:
    assert choose_scales(draw(0, (0.1, 5), (10, 90))).tolist() == [1, 1]
    first, second, third = choose_scales(draw(0, (1e10, 2e10), (4e10, 9e10), (1e-6, 1e-5)))
    assert first == second > 1e9
    assert third < 1e-4
    assert choose_scales(np.zeros((3, 2))).tolist() == [1, 1]
    assert choose_scales(np.zeros((3, 0))).tolist() == []


def test_scaled_inputs_are_searched_in_single_precision() -> None:
    X = torch.from_numpy(draw(0, (1e20, 1e24)))
    assert Task(X, X, None, SEARCH, ("x0",)).dtype == torch.float32
    assert Task(1e30 + 1e20 * X / X.max(), X, None, SEARCH, ("x0",)).dtype == torch.float64


def test_units_come_back() -> None:
    names, scales = ["a", "b"], np.array([1024.0, 2.0**-30])
    law = parse("3*a^2/(b + 1) + sqrt(a)*log(b)")
    back = restore_units(remove_units(law, names, scales), names, scales)
    columns = {"a": torch.tensor([500.0, 3000.0]).double(), "b": torch.tensor([1e-9, 3e-9]).double()}
    torch.testing.assert_close(evaluate(back, columns), evaluate(law, columns), rtol=1e-9, atol=0)


def test_starts_and_reports_are_in_the_units_of_the_data() -> None:
    X = draw(0, (1e10, 1e12), (0.1, 3))
    events: list[Event] = []
    regressor = TorchGPRegressor(population_size=100, start=["1e-11*x0*square(x1)"])
    y = torch.from_numpy(1e-11 * X[:, :1] * X[:, 1:] ** 2)
    regressor.fit(
        torch.from_numpy(X), y, search=SEARCH, variable_names=["x0", "x1"], callbacks=[events.append]
    )
    reported = [parse(event.equation) for event in events if isinstance(event, OutputImproved)]
    columns = {"x0": torch.from_numpy(X[:, 0]), "x1": torch.from_numpy(X[:, 1])}
    torch.testing.assert_close(evaluate(reported[-1], columns), y[:, 0])
    assert simplify(reported[-1]) == reported[-1]
