"""A search that was killed, however often and wherever, ends with the fronts of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "fuzz" / "kills.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, str(PROGRAM), "-"],
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
    "search",
    [
        "torchgp",
        pytest.param("torchgp-jobs", marks=pytest.mark.slow),
        "sparse",
        "gplearn",
        pytest.param("gplearn-jobs", marks=pytest.mark.slow),
        "operon",
        "pysr",
    ],
)
def test_a_killed_search_ends_as_if_it_had_not_been(program: subprocess.Popen[str], search: str) -> None:
    pytest.importorskip(f"symtorch_{search.partition('-')[0]}")
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(search + "\n")
    program.stdin.flush()
    found = json.loads(program.stdout.readline())
    assert found["killed"] == found["alone"]
