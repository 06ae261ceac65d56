"""Time limits: what a search and its front get of one, and what is left out when it is over."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from symtorch_core.expressions import constants, evaluate, parse
from symtorch_core.search import AT_ONCE, Deadline, ParetoFront, Problem, SearchSpace, build_front
from symtorch_core.search.constants import refit_constants
from symtorch_core.search.deadline import reserve_for_front
from symtorch_core.search.losses import get_loss

X = np.random.default_rng(0).uniform(-2, 2, (3000, 2))
Y = 1.5 * X[:, 0] + 2.5 * np.sin(2.2 * X[:, 1]) + 0.7
COLUMNS = {name: torch.from_numpy(column.copy()) for name, column in zip("xy", X.T, strict=True)}
FOUND = ("x", "x + 0.5", "x + 0.5*sin(1.8*y)", "1.2*x + 2.0*sin(2.0*y) + 1e-9*y", "sin(1.9*y)*2.4 + x + 1.0")


def make_ticking_clock() -> Callable[[], float]:
    """Return a clock that shows one second more each time."""
    return map(float, itertools.count()).__next__


def build(deadline: Deadline, loss: str = "mse") -> ParetoFront:
    equations = [parse(text, ["x", "y"]) for text in FOUND]
    search = SearchSpace(loss=loss, unary_operators=("sin",))
    return build_front(equations, X, Y, search, ["x", "y"], None, deadline)


def test_a_limit_is_of_the_search_and_the_front() -> None:
    now = 100.0
    problem = Problem(
        X, Y, None, SearchSpace(timeout_in_seconds=30.0), ("x", "y"), 0, deadline=Deadline(130.0, lambda: now)
    )
    assert not problem.is_late()
    now = 126.9
    assert not problem.is_late()
    now = 127.0  # three seconds are for the front
    assert problem.is_late()
    assert not problem.deadline.is_over()
    now = 130.0
    assert problem.deadline.is_over()


def test_what_is_left_for_a_front() -> None:
    assert reserve_for_front(None) == 0.0
    assert [reserve_for_front(limit) for limit in (0.3, 9.0, 20.0, 30.0, 100.0)] == pytest.approx(
        [0.1, 3.0, 3.0, 3.0, 10.0]
    )


def test_the_time_left_is_shared_alike() -> None:
    now = 10.0
    whole = Deadline.after(60.0, lambda: now)
    assert whole.share(3).seconds_left() == pytest.approx(20.0)
    now = 40.0
    assert whole.seconds_left() == pytest.approx(30.0)
    assert whole.share(2).seconds_left() == pytest.approx(15.0)
    now = 80.0
    assert whole.share(2).is_over()
    assert not Deadline.after(None).share(5).is_over()


def test_a_stop_by_the_user_is_the_end_of_every_limit() -> None:
    stopped = Deadline(is_stopped=lambda: True)
    assert stopped.is_over()
    assert stopped.share(2).is_over()
    assert stopped.earlier(1.0).is_over()


def test_after_the_limit_equations_stay_as_they_were_found() -> None:
    front = build(AT_ONCE)
    assert len(front) > 2
    found = {value for text in FOUND for value in constants(parse(text, ["x", "y"]))}
    for candidate in front[1:]:
        assert set(constants(candidate.expression)) <= found


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_the_best_constant_is_there_however_late_it_is(loss: str) -> None:
    target = np.exp(X[:, 0])
    settings = X, target, SearchSpace(loss=loss), ["x", "y"], None
    (late,), (unlimited,) = build_front([], *settings, AT_ONCE), build_front([], *settings)
    assert late == unlimited
    assert (constants(late.expression)[0] == pytest.approx(float(target.mean()))) == (loss == "mse")


def test_a_limit_that_is_not_reached_changes_nothing_and_another_loses_only_refits() -> None:
    unlimited = build(Deadline())
    assert unlimited[-1].loss < 1e-20
    assert build(Deadline(1e9, make_ticking_clock())) == unlimited
    search = SearchSpace(unary_operators=("sin",))
    losses = []
    for ticks in (0.0, 1.0, 4.0, 40.0, 120.0, 400.0):
        clock = make_ticking_clock()
        front = build(Deadline(ticks, clock))
        assert clock() < ticks + 60  # it looks at the clock between the steps, and ends
        losses.append(front[-1].loss)
        for candidate in front:
            values = evaluate(candidate.expression, COLUMNS).expand(len(Y))
            assert candidate.loss == pytest.approx(float((values - torch.from_numpy(Y)).square().mean()))
            assert candidate.complexity == search.rules.count(candidate.expression)
    assert losses[0] > 1e-3
    assert losses == sorted(losses, reverse=True)


def test_a_fit_that_the_limit_overtakes_leaves_the_constants() -> None:
    start = parse("x + 0.5*sin(1.8*y)", ["x", "y"])
    target = torch.from_numpy(X[:, 0] + 2.0 * np.sin(2.0 * X[:, 1]))

    def refit(deadline: Deadline) -> tuple[float, ...]:
        return tuple(
            constants(refit_constants(start, COLUMNS, target, None, get_loss("mse"), deadline=deadline))
        )

    assert refit(Deadline()) == pytest.approx((2.0, 2.0))
    for ticks in (0.0, 1.0, 2.0, 3.0):
        assert refit(Deadline(ticks, make_ticking_clock())) == (0.5, 1.8)
