"""The fuzzer in small: `make fuzz` runs the same program for an hour."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "fuzz"


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, str(FOLDER / program), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("target", "inputs"),
    [("texts", 300), ("results", 1000), ("sealed", 200), ("states", 150), ("folders", 150), ("names", 40)],
)
def test_hostile_input_is_refused_or_harmless(target: str, inputs: int) -> None:
    out = run("fuzz.py", "--target", target, "--inputs", inputs, "--seconds", 400)
    assert f"{target}: {inputs} inputs" in out
    assert " 0 faults" in out
