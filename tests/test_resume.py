"""A search that was killed, however often and wherever, ends with the fronts of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("killed_searches.py")
STAND_INS = PROGRAM.parents[1] / "backends" / "symtorch-pysr" / "tests" / "stand_ins"
WORKER = ["env", f"PYTHONPATH={STAND_INS}", sys.executable, "-m", "symtorch_pysr.worker"]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    with started:
        yield started
        os.killpg(started.pid, signal.SIGKILL)  # with what joblib leaves behind where its parent was killed


@pytest.mark.parametrize(
    ("regressor", "niterations", "options", "weighted"),
    [
        ("torchgp", 20, {"population_size": 30}, False),
        pytest.param(
            "torchgp", 30, {"population_size": 30, "islands": 2, "n_jobs": 2}, True, marks=pytest.mark.slow
        ),
        ("sparse", 1, {}, True),
        ("gplearn", 4, {"population_size": 60, "populations": 1}, False),
        pytest.param(
            "gplearn", 4, {"population_size": 60, "populations": 1, "n_jobs": 2}, True, marks=pytest.mark.slow
        ),
        ("operon", 4, {"population_size": 50, "islands": 1}, True),
        ("pysr", 3, {"deterministic": True, "worker": WORKER}, False),
    ],
    ids=["torchgp", "torchgp-jobs", "sparse", "gplearn", "gplearn-jobs", "operon", "pysr"],
)
def test_a_killed_search_ends_as_if_it_had_not_been(
    program: subprocess.Popen[str], regressor: str, niterations: int, options: dict[str, Any], weighted: bool
) -> None:
    pytest.importorskip(f"symtorch_{regressor}")
    settings = {
        "regressor": regressor,
        "niterations": niterations,
        "options": options,
        "weighted": weighted,
        "seed": 0,
    }
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(json.dumps(settings) + "\n")
    program.stdin.flush()
    found = json.loads(program.stdout.readline())
    assert found["resumed"] == found["whole"]
