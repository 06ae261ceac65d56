"""Run searches, kill them at random moments and repeat them: a program for the tests of ``resume=``.

python tests/killed_searches.py

It reads a search from each line of its input, as JSON, and writes one line for it: the fronts of a run that nobody
stopped, and those of a run in a folder that was killed some times. It forks, so that torch is loaded once.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import symtorch_core as st
from symtorch_core.events import Event

ROWS = 40
KILLS = 2


def search(folder: Path | None, settings: Mapping[str, Any], answer: Path, kill_at: int) -> None:
    """Search, and write fronts and number of events; end by SIGKILL at the event of a number, if it is not 0."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, ROWS, generator=generator, dtype=torch.float64) * 2 - 1).unbind()
    noise = 0.05 * torch.randn(ROWS, generator=generator, dtype=torch.float64)
    targets = [1.7 * x + y.square(), torch.full_like(x, 3.0), x * y + noise, torch.exp(y) * x + noise]
    weights = torch.rand(ROWS, generator=generator) + 0.1
    events = 0

    def count(event: Event) -> None:
        nonlocal events
        events += 1
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    result = st.distill(
        (torch.stack([x, y], dim=1), torch.stack(targets, dim=1)),
        regressor=settings["regressor"],
        regressor_options=settings["options"],
        weights=weights if settings["weighted"] else None,
        niterations=settings["niterations"],
        maxsize=9,
        unary_operators=(),
        resume=folder,
        callbacks=[count],
        progress=False,
        out_of_range=False,
        test_fraction=0,
    )
    answer.write_text(json.dumps({"fronts": [front.to_json() for front in result.fronts], "events": events}))


def run(folder: Path | None, settings: Mapping[str, Any], kill_at: int = 0, after: float = 0.0) -> Any:
    """Search in a child that is killed at an event or after some seconds; return its answer, or None."""
    with tempfile.TemporaryDirectory() as temporary:
        answer = Path(temporary) / "answer.json"
        child = os.fork()
        if not child:
            search(folder, settings, answer, kill_at)
            os._exit(0)
        if after:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return json.loads(answer.read_text()) if answer.exists() else None


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    for line in sys.stdin:
        settings = json.loads(line)
        importlib.import_module(f"symtorch_{settings['regressor']}.regressor")  # once, and not in each child
        moments = random.Random(settings["seed"])
        started = time.monotonic()
        whole = run(None, settings)
        seconds = time.monotonic() - started
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(KILLS):
                run(Path(folder), settings, kill_at=moments.randint(1, whole["events"]))
            run(Path(folder), settings, after=moments.uniform(0.0, seconds))
            resumed = run(Path(folder), settings)
        sys.stdout.write(json.dumps({"whole": whole["fronts"], "resumed": resumed["fronts"]}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
