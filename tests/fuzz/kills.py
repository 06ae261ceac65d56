"""Kill searches at random moments, go on in their folder, and compare with a search that was left alone.

python tests/fuzz/kills.py --kills 200    # as `make fuzz`; 20 by default
python tests/fuzz/kills.py -              # one search for each name that comes in, for tests/test_resume.py

Each search is killed one to three times, at an event or at a moment, and then left to end. Prints the kills and results
of each kind of search, and those whose result differs or is lost; the exit code is 1 if there is one. It forks, so that
torch is loaded once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import torch

import symtorch_core as st
from symtorch_core.events import Event

_STAND_INS = Path(__file__).parents[2] / "backends" / "symtorch-pysr" / "tests" / "stand_ins"
_WORKER = ["env", f"PYTHONPATH={_STAND_INS}", sys.executable, "-m", "symtorch_pysr.worker"]
_ROWS = 40


@final
@dataclass(frozen=True)
class Search:
    """A kind of search: a backend with options."""

    regressor: str
    niterations: int
    options: dict[str, Any] = field(default_factory=dict)
    weighted: bool = False


SEARCHES: Final = {
    "torchgp": Search("torchgp", 20, {"population_size": 30}),
    "torchgp-jobs": Search("torchgp", 30, {"population_size": 30, "islands": 2, "n_jobs": 2}, weighted=True),
    "sparse": Search("sparse", 1, weighted=True),
    "gplearn": Search("gplearn", 4, {"population_size": 60, "populations": 1}),
    "gplearn-jobs": Search(
        "gplearn", 4, {"population_size": 60, "populations": 1, "n_jobs": 2}, weighted=True
    ),
    "operon": Search("operon", 4, {"population_size": 50, "islands": 1}, weighted=True),
    "pysr": Search("pysr", 3, {"deterministic": True, "worker": _WORKER}),
}


@final
@dataclass(frozen=True)
class Answer:
    """The end of a search: its fronts as JSON data, the number of its events, and its seconds."""

    fronts: Any
    events: int
    seconds: float


def search(folder: Path | None, kind: Search, answer: Path, kill_at: int) -> None:
    """Search, and write fronts and number of events; end by SIGKILL at the event of a number, if it is not 0."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, _ROWS, generator=generator, dtype=torch.float64) * 2 - 1).unbind()
    noise = 0.05 * torch.randn(_ROWS, generator=generator, dtype=torch.float64)
    targets = [1.7 * x + y.square(), torch.full_like(x, 3.0), x * y + noise, torch.exp(y) * x + noise]
    weights = torch.rand(_ROWS, generator=generator) + 0.1
    events = 0

    def count(event: Event) -> None:
        nonlocal events
        events += 1
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    result = st.distill(
        (torch.stack([x, y], dim=1), torch.stack(targets, dim=1)),
        regressor=kind.regressor,
        regressor_options=kind.options,
        weights=weights if kind.weighted else None,
        niterations=kind.niterations,
        maxsize=9,
        unary_operators=(),
        resume=folder,
        callbacks=[count],
        progress=False,
        out_of_range=False,
        test_fraction=0,
    )
    answer.write_text(json.dumps([[front.to_json() for front in result.fronts], events]))


def run(folder: Path | None, kind: Search, kill_at: int = 0, after: float = 0.0) -> Answer | None:
    """Search in a child that is killed at an event or after some seconds; return its answer, or None."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "answer.json"
        started = time.monotonic()
        child = os.fork()
        if not child:
            search(folder, kind, path, kill_at)
            os._exit(0)
        if after:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not path.exists():
            return None
        fronts, events = json.loads(path.read_text())
        return Answer(fronts, events, time.monotonic() - started)


def run_alone(kind: Search) -> Answer:
    """Return the answer of a search that nobody stops."""
    importlib.import_module(f"symtorch_{kind.regressor}.regressor")  # once, and not in each child
    answer = run(None, kind)
    if answer is None:
        raise SystemExit(f"{kind} does not run")
    return answer


def run_killed(kind: Search, alone: Answer, moments: random.Random, kills: int) -> tuple[Any, int]:
    """Return the fronts of a search that is killed some times before it may end, and how often it really was."""
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            if number % 2:
                ended = run(Path(folder), kind, after=moments.uniform(0.01, max(0.02, alone.seconds)))
            else:
                ended = run(Path(folder), kind, kill_at=moments.randint(1, alone.events))
            killed += ended is None
        last = run(Path(folder), kind)
    return None if last is None else last.fronts, killed


def answer_names() -> None:
    """Write, for each name of a search that comes in, its fronts alone and after kills."""
    for line in sys.stdin:
        kind = SEARCHES[line.strip()]
        alone = run_alone(kind)
        fronts, _ = run_killed(kind, alone, random.Random(0), 3)
        sys.stdout.write(json.dumps({"alone": alone.fronts, "killed": fronts}) + "\n")
        sys.stdout.flush()


def kill_many(most: int, seed: int) -> int:
    """Kill searches of all kinds in turn, print what came of it, and return the number of faults."""
    moments = random.Random(seed)
    alone = {name: run_alone(kind) for name, kind in SEARCHES.items()}
    kills: Counter[str] = Counter()
    searches: Counter[str] = Counter()
    faults = 0
    while kills.total() < most:
        name = min(SEARCHES, key=searches.__getitem__)
        fronts, killed = run_killed(SEARCHES[name], alone[name], moments, moments.randint(1, 3))
        kills[name] += killed
        searches[name] += 1
        if fronts != alone[name].fronts:
            faults += 1
            print(
                f"FAULT {name}, search {searches[name]}: {fronts!s:.500}\n  alone: {alone[name].fronts!s:.500}"
            )
    for name in SEARCHES:
        print(f"{name}: {kills[name]} kills in {searches[name]} searches")
    print(f"{kills.total()} kills, {faults} results lost or other")
    return faults


def main() -> int:
    """Kill searches as told, and return the exit code."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("names", nargs="?", choices=["-"], help="read names of searches instead")
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error" if chosen.names else "ignore")
    if chosen.names:
        answer_names()
        return 0
    return min(1, kill_many(chosen.kills, chosen.seed))


if __name__ == "__main__":
    sys.exit(main())
