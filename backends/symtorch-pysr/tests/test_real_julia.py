"""The real thing: PySR in Julia. Run with ``pytest -m julia`` where Julia is; skipped elsewhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import symtorch_core as st
from symtorch_core.events import Event, OutputImproved, StageTold
from symtorch_pysr.julia import check_julia

pytestmark = [
    pytest.mark.julia,
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(finding.ok for finding in check_julia()), reason="Julia is not ready: symtorch doctor pysr"
    ),
]

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(400, 2, generator=GENERATOR, dtype=torch.float64) * 4 - 2
LAW = 2 * torch.sin(X[:, :1]) + X[:, 1:].square()
QUICK: dict[str, Any] = {
    "regressor": "pysr",
    "unary_operators": ("sin",),
    "niterations": 20,
    "maxsize": 12,
    "timeout_in_seconds": 30.0,
    "progress": False,
}


@pytest.fixture(autouse=True)
def told(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Iterator[list[Event]]:
    """Collect the events of the test; print versions and seconds at its end."""
    events: list[Event] = []
    started = time.monotonic()
    yield events
    versions = [
        event.text for event in events if isinstance(event, StageTold) and event.text.startswith("PySR")
    ]
    with capsys.disabled():
        line = f"\n{request.node.name}: {time.monotonic() - started:.1f} s; {', '.join(versions)}\n"
        os.write(2, line.encode())


def test_the_law_twice_the_same(told: list[Event]) -> None:
    settings = {
        **QUICK,
        "regressor_options": {"deterministic": True},
        "timeout_in_seconds": None,
        "seed": 5,
    }
    first, second = (
        st.distill((X, LAW), **settings, callbacks=[told.append], variable_names=["beta", "E"])
        for _ in range(2)
    )
    assert str(first.chosen()[0]) in {"2*sin(beta) + E^2", "E^2 + 2*sin(beta)"}
    assert first.front() == second.front()
    assert any(isinstance(event, OutputImproved) for event in told)


def test_a_module_with_two_outputs(told: list[Event]) -> None:
    class Block(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[:, 0] * x[:, 1], x[:, 0] + 3 * x[:, 1]], dim=1)

    block = st.SymbolicModel(Block())
    result = block.distill(X.float(), **QUICK, callbacks=[told.append])
    assert all(entry.held_out.r2 > 0.9999 for entry in result.fidelity)
    block.switch_to_symbolic()
    assert torch.allclose(block(X.float()), Block()(X.float()), atol=1e-3)


def test_custom_operators_weights_and_a_loss_of_our_own(told: list[Event]) -> None:
    target = 3 * torch.exp(-X[:, :1].square()) + X[:, 1:].abs().sqrt()
    wrong, weights = target.clone(), torch.ones(len(X))
    wrong[::3], weights[::3] = 40.0, 0.0
    result = st.distill(
        (X, wrong),
        **{**QUICK, "unary_operators": ("gauss(x) = exp(-x^2)", "sqrt_abs", "inv"), "loss": "abs(r)^1.5"},
        weights=weights,
        callbacks=[told.append],
    )
    best = result.front().select("accuracy")
    prediction = result.surrogate(complexity=best.complexity)(X)
    assert float((prediction - target).square().mean() / target.var()) < 1e-3


def test_killed_and_taken_up_again(told: list[Event], tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        told.append(event)
        if isinstance(event, OutputImproved):
            os.kill(os.getpid(), signal.SIGINT)

    settings = {
        **QUICK,
        "niterations": 100_000,
        "regressor_options": {"early_stop_condition": 1e-7},
    }
    partial = st.distill((X, LAW), **settings, resume=tmp_path, callbacks=[stop])
    assert partial.interrupted
    assert len(partial.front()) > 1
    result = st.distill((X, LAW), **settings, resume=tmp_path, callbacks=[told.append])
    assert not result.interrupted
    assert result.fidelity[0].held_out.r2 > 0.9999
