"""Operon: every symbol means what the core means by it; laws are found; a run can be stopped and repeated."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pyoperon as op
import pytest
import torch

from symtorch_core import BackendError, SearchError, SearchSpace
from symtorch_core.events import Event, OutputImproved, OutputInterrupted, OutputProgressed
from symtorch_core.expressions import OPERATORS, evaluate, parse, variables
from symtorch_operon.harvest import Harvest
from symtorch_operon.regressor import OperonRegressor
from symtorch_operon.symbols import SYMBOLS, Symbol, get_symbols, to_expression


def draw_points(domain: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Draw rows inside an operator's domain that are exact in single precision."""
    rng = np.random.default_rng(0)
    columns = [rng.uniform(max(low, -3) + 0.01, min(high, 3) - 0.01, 64) for low, high in domain]
    return np.column_stack(columns).astype(np.float32).astype(np.float64)


def make_leaf(variable: op.Variable, weight: float) -> op.Node:
    node = op.Node.Variable(weight)
    node.HashValue = variable.Hash
    return node


def make_call(symbol: Symbol) -> op.Node:
    node = op.Node(symbol.kind)
    node.Arity = symbol.arity
    return node


@pytest.mark.parametrize("name", SYMBOLS)
def test_operon_computes_what_the_translation_says(name: str) -> None:
    symbol, weights = SYMBOLS[name], (0.5, 0.75)
    X = draw_points(OPERATORS[name].domain)
    dataset = op.Dataset(np.asfortranarray(X))
    known = sorted(dataset.Variables, key=lambda variable: variable.Index)
    leaves = [make_leaf(variable, weight) for variable, weight in zip(known, weights, strict=False)]
    tree = op.Tree([*leaves, make_call(symbol)]).UpdateNodes()
    theirs = op.Evaluate(op.DispatchTable(), tree, dataset, op.Range(0, len(X)))
    expression = to_expression(tree.Nodes, {int(v.Hash): (f"x{i}", 1.0) for i, v in enumerate(known)})
    assert name in str(parse(str(expression))) or expression.operator == name
    columns = {f"x{i}": torch.from_numpy(X[:, i].copy()) for i in range(symbol.arity)}
    np.testing.assert_allclose(theirs, evaluate(expression, columns).numpy(), rtol=2e-6, atol=1e-6)


def test_weights_are_put_back_in_the_units_of_the_data() -> None:
    dataset = op.Dataset(np.asfortranarray(np.ones((4, 1))))
    (variable,) = dataset.Variables
    tree = op.Tree([make_leaf(variable, 3.0), make_call(SYMBOLS["sin"])]).UpdateNodes()
    assert str(to_expression(tree.Nodes, {int(variable.Hash): ("t", 4.0)})) == "sin(0.75*t)"


def test_sums_of_many_children_are_read() -> None:
    dataset = op.Dataset(np.asfortranarray(np.ones((4, 1))))
    (variable,) = dataset.Variables
    wide = make_call(SYMBOLS["-"])
    wide.Arity = 3
    tree = op.Tree(
        [op.Node.Constant(2.0), op.Node.Constant(5.0), make_leaf(variable, 1.0), wide]
    ).UpdateNodes()
    assert str(to_expression(tree.Nodes, {int(variable.Hash): ("t", 1.0)})) == "t - 5.0 - 2.0"


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(SearchError, match="'gamma'.*another backend"):
        get_symbols(["+", "gamma"])
    with pytest.raises(SearchError, match="'cube'"):
        get_symbols(["+", "cube"])
    assert len(get_symbols(["*", "cube"])) == 1
    with pytest.raises(SearchError, match="parsimony"):
        OperonRegressor().check(SearchSpace(parsimony=0.1))
    with pytest.raises(SearchError, match="at least one operator"):
        OperonRegressor().check(SearchSpace(binary_operators=(), unary_operators=()))
    with pytest.raises(SearchError, match="population_size must be at least 2"):
        OperonRegressor(population_size=1)
    with pytest.raises(SearchError, match="mutation_probability must be at least 0 and at most 1, got 2.0"):
        OperonRegressor(mutation_probability=2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"islands": 0}, "operon's islands must be at least 1, got 0"),
        ({"islands": 1.5}, "operon's islands must be a whole number, got 1.5"),
        ({"local_iterations": -1}, "operon's local_iterations must be at least 0, got -1"),
        ({"threads": -1}, "operon's threads must be at least 0, got -1"),
        ({"max_length": 0}, "operon's max_length must be at least 1, got 0"),
        ({"max_length": 9.5}, "operon's max_length must be a whole number, got 9.5"),
        ({"local_probability": "often"}, "operon's local_probability must be a finite number, got 'often'"),
        ({"n_jobs": 0}, "operon's n_jobs must be a number of jobs, or -1 for one per core, got 0"),
        ({"n_jobs": 1.5}, "got 1.5"),
    ],
)
def test_an_invalid_option_is_refused_when_the_regressor_is_made(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SearchError, match=message):
        OperonRegressor(**options)


def make_noisy_law(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (4000, 5))
    y = X[:, 0] ** 2 + 3 * np.sin(X[:, 4]) - 4
    return torch.from_numpy(X), torch.from_numpy(y + 0.05 * y.std() * rng.normal(size=len(y)))[:, None]


@pytest.mark.slow
def test_the_known_law_is_on_the_front_and_chosen() -> None:
    X, Y = make_noisy_law(0)
    names = [f"x{i}" for i in range(5)]
    (front,) = OperonRegressor(islands=1).fit(
        X, Y, search=SearchSpace(niterations=100), variable_names=names, seed=1
    )
    for rule in ("score", "best"):
        chosen = front.select(rule)
        assert sorted(variables(chosen.expression)) == ["x0", "x4"]
        values = [
            float(
                evaluate(
                    chosen.expression, {**dict.fromkeys(names, torch.tensor(0.0)), "x0": torch.tensor(x)}
                )
            )
            for x in (-20.0, 0.0, 20.0)  # far outside: a square, not something that looks like one on [-2, 2]
        ]
        assert values == pytest.approx([396.0, -4.0, 396.0], rel=0.05)
        assert "sin(" in chosen.text()
        assert chosen.complexity <= 15


def test_an_exact_law_ends_the_search_early() -> None:
    X = np.random.default_rng(0).uniform(0, 1, (500, 2))
    y = np.exp(-(np.pi**2) * 0.2 * X[:, 1]) * np.sin(np.pi * X[:, 0])
    told: list[object] = []
    (front,) = OperonRegressor().fit(
        torch.from_numpy(X),
        torch.from_numpy(y)[:, None],
        search=SearchSpace(),
        variable_names=["x", "t"],
        callbacks=[told.append],
    )
    assert front.select("accuracy").loss < 1e-15
    fractions = [event.fraction for event in told if isinstance(event, OutputProgressed)]
    assert len(fractions) < 300
    assert fractions[-1] == 1.0
    assert all(before <= after for before, after in pairwise(fractions))
    improvements = [event for event in told if isinstance(event, OutputImproved)]
    assert improvements
    assert set(variables(parse(improvements[-1].equation))) == {"x", "t"}


def test_scales_of_the_data_do_not_matter() -> None:
    X = np.random.default_rng(0).uniform(1, 2, (300, 2)) * np.array([1e-6, 1e5])
    y = 1e8 * X[:, 0] * X[:, 1] + 3e7
    (front,) = OperonRegressor(population_size=200).fit(
        torch.from_numpy(X),
        torch.from_numpy(y)[:, None],
        search=SearchSpace(unary_operators=(), niterations=40),
        variable_names=["a", "b"],
    )
    assert front.select("accuracy").loss < 1e-12 * y.var()


def test_threads_do_not_change_the_result() -> None:
    X, Y = make_noisy_law(1)
    fronts = [
        OperonRegressor(population_size=100, islands=2, threads=threads).fit(
            X,
            Y,
            search=SearchSpace(niterations=8, maxsize=12),
            variable_names=[f"x{i}" for i in range(5)],
            seed=5,
        )
        for threads in (1, 2, 3)
    ]
    assert fronts[0] == fronts[1] == fronts[2]


def test_a_signal_stops_it_at_once() -> None:
    X, Y = make_noisy_law(2)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        OperonRegressor().fit(
            X, Y, search=SearchSpace(niterations=10**6), variable_names=[f"x{i}" for i in range(5)]
        )
    assert time.monotonic() - started < 6.0
    timer.join()
    assert not [thread for thread in threading.enumerate() if thread.name == "operon"]


def test_an_error_in_a_callback_is_said_and_the_search_goes_on() -> None:
    X, Y = make_noisy_law(3)

    def broken(event: object) -> None:
        raise ZeroDivisionError

    with pytest.warns(RuntimeWarning, match="the callback broken failed"):
        (front,) = OperonRegressor().fit(
            X,
            Y,
            search=SearchSpace(niterations=3),
            variable_names=[f"x{i}" for i in range(5)],
            callbacks=[broken],
        )
    assert len(front) > 1


def test_inputs_that_single_precision_cannot_tell_apart_are_refused() -> None:
    X = 1e9 + torch.rand(60, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SearchError, match="cannot tell the values of 'x' apart: subtract their mean first"):
        OperonRegressor().fit(X, 2 * X, search=SearchSpace(), variable_names=["x"])


def test_a_crash_keeps_what_all_generations_found(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = make_noisy_law(2)
    gather, told = Harvest.gather, list[Event]()

    def crash(harvest: Harvest, individuals: Any) -> Any:
        if len(list(harvest)) > 20:
            raise ZeroDivisionError("in the engine")
        return gather(harvest, individuals)

    monkeypatch.setattr(Harvest, "gather", crash)
    with pytest.raises(BackendError, match="ZeroDivisionError: in the engine"):
        OperonRegressor().fit(
            X,
            Y,
            search=SearchSpace(niterations=10**6),
            variable_names=[f"x{i}" for i in range(5)],
            callbacks=[told.append],
        )
    (front,) = [event.front for event in told if isinstance(event, OutputInterrupted)]
    assert len(front) > 2
