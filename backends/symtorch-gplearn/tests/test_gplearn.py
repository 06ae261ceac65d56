"""gplearn: functions are the core's, constants are scaled in closed form, laws are found, a run stops."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from gplearn._program import _Program

from symtorch_core import BackendError, SearchError, SearchSpace
from symtorch_core.events import Event, OutputInterrupted, OutputProgressed
from symtorch_core.expressions import OPERATORS, evaluate
from symtorch_core.search import LOSSES, Deadline, Problem, build_front, list_functions
from symtorch_gplearn.harvest import Harvest, get_structure
from symtorch_gplearn.programs import WORST, Scaling, make_function, to_expression
from symtorch_gplearn.regressor import GplearnRegressor

NAMES = ["x0", "x1", "x2"]
TABLE = {
    operator.name: operator
    for operator in list_functions(
        SearchSpace(
            binary_operators=[name for name, row in OPERATORS.items() if row.arity == 2],
            unary_operators=[name for name, row in OPERATORS.items() if row.arity == 1],
        ),
        "gplearn",
    )
}


@pytest.mark.parametrize("name", [name for name, row in OPERATORS.items() if row.arity <= 2])
def test_gplearn_computes_what_the_translation_says(name: str) -> None:
    arity = OPERATORS[name].arity
    X = np.random.default_rng(0).uniform(-2, 2, (50, 3))
    program = object.__new__(_Program)  # only its execution is wanted, not its birth
    program.program = [make_function(TABLE[name]), 1, *([2.5] if arity == 2 else [])]
    theirs = program.execute(X)
    columns = {label: torch.from_numpy(column.copy()) for label, column in zip(NAMES, X.T, strict=True)}
    ours = evaluate(to_expression(program.program, NAMES, TABLE), columns).numpy()
    # The vector code of a function may differ from the code for the last few rows in the last digit.
    np.testing.assert_allclose(theirs, ours, rtol=1e-14)


def test_arguments_keep_their_order() -> None:
    minus, over = make_function(TABLE["-"]), make_function(TABLE["/"])
    assert str(to_expression([minus, 0, over, 1, 2.0], NAMES, TABLE)) == "x0 - x1/2.0"


@pytest.mark.parametrize("loss", LOSSES)
def test_scaling_finds_offset_and_factor(loss: str) -> None:
    values = np.random.default_rng(0).normal(size=300) + 1000.0
    scaling = Scaling(3.0 * values - 7.0, LOSSES[loss])
    assert scaling.fit(values) == pytest.approx((-7.0, 3.0), rel=1e-6)
    assert scaling.compute_error(values) == pytest.approx(0.0, abs=1e-6)


def test_scaling_withstands_outliers_under_mae() -> None:
    values = np.random.default_rng(0).normal(size=300)
    target = 3.0 * values - 7.0
    target[::10] += 50.0
    offset, factor = Scaling(target, LOSSES["mae"]).fit(values)
    assert offset == pytest.approx(-7.0, abs=0.5)
    assert factor == pytest.approx(3.0, abs=0.5)


def test_what_is_not_finite_is_the_worst() -> None:
    scaling = Scaling(np.arange(4.0), LOSSES["mse"])
    assert scaling.compute_error(np.array([1.0, np.nan, 2.0, 3.0])) == WORST
    assert scaling.compute_error(np.array([1.0, np.inf, 2.0, 3.0])) == WORST
    assert scaling.compute_error(np.zeros(4)) == pytest.approx(1.25)


def test_the_best_of_every_length_is_kept_over_all_generations() -> None:
    plus = make_function(TABLE["+"])
    harvest = Harvest(lambda program: to_expression(program, NAMES, TABLE))
    for error, program in [(3.0, [plus, 0, 1.5]), (1.0, [plus, 0, 2.5]), (2.0, [plus, 0, 3.5]), (9.0, [1])]:
        harvest.offer(program, error)
    assert [str(expression) for expression in harvest] == ["x1", "x0 + 2.5"]
    assert get_structure([plus, 0, 1.5]) == get_structure([plus, 0, 2.5]) == ("+", 0, None)


def test_parsimony_keeps_the_population_short() -> None:
    X = np.random.default_rng(0).uniform(-2, 2, (100, 2))
    y = X[:, 0] ** 3 - 2 * X[:, 0] * X[:, 1] + X[:, 1]

    def find_best_loss(parsimony: float) -> float:
        search = SearchSpace(
            unary_operators=(), niterations=12, maxsize=30, parsimony=parsimony, refine=False
        )
        problem = Problem(X, y, None, search, ("a", "b"), seed=0)
        found = GplearnRegressor(population_size=150).search(problem)
        return build_front(found, X, y, search, ("a", "b"))[-1].loss

    assert find_best_loss(100.0) > 1.5 * find_best_loss(0.0)


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(SearchError, match="at least one operator"):
        GplearnRegressor().check(SearchSpace(binary_operators=(), unary_operators=()))
    with pytest.raises(SearchError, match="shares of a generation and must add up to at most 1, got 1.55"):
        GplearnRegressor(crossover=0.9, subtree_mutation=0.5)
    with pytest.raises(SearchError, match="population_size must be at least 2"):
        GplearnRegressor(population_size=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 1.5}, "gplearn's patience must be a whole number, got 1.5"),
        ({"hoist_mutation": -0.1}, "gplearn's hoist_mutation must be at least 0 and at most 1, got -0.1"),
        ({"crossover": "most"}, "gplearn's crossover must be a finite number, got 'most'"),
        ({"constant_range": -1.0}, "gplearn's constant_range must be at least 0, got -1.0"),
        ({"n_jobs": 0}, "gplearn's n_jobs must be a number of jobs, or -1 for one per core, got 0"),
        ({"n_jobs": "all"}, "got 'all'"),
    ],
)
def test_an_invalid_option_is_refused_when_the_regressor_is_made(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SearchError, match=message):
        GplearnRegressor(**options)


@pytest.mark.slow
def test_the_known_law_is_explained() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (4000, 5))
    y = X[:, 0] ** 2 + 3 * np.sin(X[:, 4]) - 4
    noisy = y + 0.05 * y.std() * rng.normal(size=len(y))
    names = [f"x{i}" for i in range(5)]
    (front,) = GplearnRegressor(populations=1).fit(
        torch.from_numpy(X[:3000]),
        torch.from_numpy(noisy[:3000])[:, None],
        search=SearchSpace(niterations=70),
        variable_names=names,
    )
    columns = {name: torch.from_numpy(X[3000:, i].copy()) for i, name in enumerate(names)}
    error = evaluate(front.select("best").expression, columns).numpy() - y[3000:]
    assert 1 - np.mean(error**2) / y[3000:].var() > 0.98


def test_a_signal_stops_it() -> None:
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 2)))
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(200, 1)))
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        GplearnRegressor(patience=10**6).fit(
            X, noise, search=SearchSpace(niterations=10**6), variable_names=["a", "b"]
        )
    assert time.monotonic() - started < 6.0
    timer.join()


def test_a_generation_that_the_time_limit_overtakes_is_left() -> None:
    X = np.random.default_rng(0).normal(size=(100, 2))
    moments = map(float, itertools.count())
    done: list[float] = []

    def note(event: object) -> None:
        if isinstance(event, OutputProgressed):
            done.append(event.fraction)

    problem = Problem(
        X,
        np.random.default_rng(1).normal(size=100),
        None,
        SearchSpace(niterations=10),
        ("a", "b"),
        0,
        (note,),
        deadline=Deadline(30.0, moments.__next__),
    )
    found = list(GplearnRegressor(population_size=50).search(problem))
    assert done == [0.1, 1.0]  # it looked at the clock for each program of the second generation
    assert 30 <= next(moments) < 45
    assert found


def test_a_crash_keeps_what_earlier_generations_found(monkeypatch: pytest.MonkeyPatch) -> None:
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 2)))
    told: list[Event] = []

    def crash(event: Event) -> None:
        told.append(event)
        if isinstance(event, OutputProgressed):
            monkeypatch.setattr(Scaling, "compute_error", fail)

    def fail(*_: object) -> float:
        raise ZeroDivisionError("in the engine")

    with pytest.raises(BackendError, match="ZeroDivisionError: in the engine"):
        GplearnRegressor(population_size=50).fit(
            X, X[:, :1].exp(), search=SearchSpace(), variable_names=["a", "b"], callbacks=[crash]
        )
    (front,) = [event.front for event in told if isinstance(event, OutputInterrupted)]
    assert len(front) > 1
