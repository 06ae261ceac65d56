"""Data with a known law for the tests of regressors, and questions about what a regressor made of them."""

from __future__ import annotations

import _thread
import random
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor

from symtorch_core.errors import SearchError
from symtorch_core.events.records import Event, OutputFinished, OutputImproved, OutputInterrupted
from symtorch_core.expressions import Expression, evaluate, variables

NAMES: Final = ("alpha", "beta")
ROWS: Final = 200


def catch_refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> SearchError | None:
    """Return the error with which a call is refused, or None."""
    try:
        function(*args, **kwargs)
    except SearchError as error:
        return error
    return None


def get_random_states() -> tuple[object, ...]:
    """Return the state of every global generator."""
    name, key, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, tuple(key), *rest, tuple(torch.get_rng_state().tolist())


def inputs(seed: int = 0, rows: int = ROWS) -> Tensor:
    """Return rows to search on, shape (rows, 2); another seed gives held-out rows."""
    return torch.from_numpy(np.random.default_rng(seed).uniform(-2.0, 2.0, (rows, len(NAMES))))


def law(X: Tensor) -> Tensor:
    """Return the values of the easy law, shape (n,)."""
    return 2.5 * X[:, 0] + X[:, 1].square() - 1.0


def noisy_law() -> Tensor:
    """Return values of the easy law with noise, shape (n,): no equation solves it, so a search of it goes on."""
    return law(inputs()) + torch.from_numpy(np.random.default_rng(0).normal(size=ROWS))


def count_improvements(events: Sequence[Event]) -> int:
    """Return the number of equations that a backend reported."""
    return sum(isinstance(event, OutputImproved) for event in events)


def assert_something_is_kept(events: Sequence[Event]) -> None:
    """Check that a stopped search of one output sent a front with more than a constant."""
    fronts = [event.front for event in events if isinstance(event, OutputInterrupted | OutputFinished)]
    assert fronts, "after Ctrl-C, send OutputInterrupted with the best equations so far"
    assert any(variables(candidate.expression) for candidate in fronts[-1])


def predict(expression: Expression, X: Tensor) -> Tensor:
    """Return the values of an equation on rows, shape (n,)."""
    return evaluate(expression, dict(zip(NAMES, X.T, strict=True))).expand(len(X))


def r2(expression: Expression, unit: float = 1.0, offset: float = 0.0) -> float:
    """Return the share of the variance of unit * law + offset that an equation explains on held-out rows."""
    X = inputs(seed=1)
    error = ((predict(expression, X) - offset) / unit - law(X)).square().mean()
    return 1.0 - float(error / law(X).var())


def press_again_when_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C again, as people do, when Python drops it: it cannot raise in the callback of a weak reference."""
    report = sys.unraisablehook

    def press_again(lost: Any) -> None:
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, _thread.interrupt_main).start()
        else:
            report(lost)

    monkeypatch.setattr(sys, "unraisablehook", press_again)
