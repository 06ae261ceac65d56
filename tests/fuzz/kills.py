"""Kill searches at random moments, go on in their folder, and compare with a search that was left alone.

python tests/fuzz/kills.py               # 20 kills over the backends
python tests/fuzz/kills.py --kills 200   # as `make fuzz`

A search may be killed several times before it is left to end. Prints the kills and results of each backend, and the
seed of every search whose result differs or is lost; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import symtorch_core as st

BACKENDS: Final[dict[str, dict[str, Any]]] = {
    "torchgp": {"niterations": 4, "regressor_options": {"population_size": 200}},
    "sparse": {},
    "gplearn": {"niterations": 3, "regressor_options": {"population_size": 200}},
    "operon": {"niterations": 5, "regressor_options": {"population_size": 100}},
}
OUTPUTS: Final = 3


def search(backend: str, folder: Path) -> str:
    """Return the fronts of a search in a folder, as text."""
    X = torch.rand(80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.rand(80, OUTPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    Y = torch.stack([X[:, 0] * (k + 1) + X[:, 1].sin() * X[:, 0] for k in range(OUTPUTS)], 1) + 0.1 * noise
    options = {"unary_operators": ["sin"], "maxsize": 10, **BACKENDS[backend]}
    if backend == "gplearn":
        options["binary_operators"] = ["+", "*", "-"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = st.distill((X, Y), regressor=backend, resume=folder, progress=False, **options)
    return json.dumps([front.to_json() for front in result.fronts])


def run_apart(work: Callable[[], str], kill_after: float | None) -> str | None:
    """Return what a function gives in a process of its own; None if the process was killed before."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            text = work()
        except BaseException as error:
            text = f"failed: {error!r}"
        with os.fdopen(write, "w") as channel:
            channel.write(text)
        os._exit(0)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read) as channel:
        text = channel.read()
    os.waitpid(child, 0)
    return text or None


def main() -> int:
    """Kill, go on and compare, and return the exit code."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--backend", choices=BACKENDS, action="append", help="only these")
    chosen = options.parse_args()
    backends = chosen.backend or list(BACKENDS)
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="symtorch-kills-"))
    wanted, seconds = {}, {}
    for backend in backends:
        search(backend, root / f"{backend}-first")  # imports here what each child then has
        started = time.perf_counter()
        wanted[backend] = run_apart(lambda backend=backend: search(backend, root / backend), None)  # type: ignore[misc]
        seconds[backend] = time.perf_counter() - started
        if not str(wanted[backend]).startswith("["):
            raise SystemExit(f"{backend} does not run: {wanted[backend]}")
        print(f"{backend}: {seconds[backend]:.2f} s alone", flush=True)
    random = np.random.default_rng(chosen.seed)
    kills, searches, faults = dict.fromkeys(backends, 0), dict.fromkeys(backends, 0), 0
    while sum(kills.values()) < chosen.kills:
        backend = min(backends, key=kills.__getitem__)
        folder = root / f"{backend}-{searches[backend]}"
        found = None
        for _ in range(int(random.integers(1, 4))):
            found = run_apart(
                lambda backend=backend, folder=folder: search(backend, folder),  # type: ignore[misc]
                float(random.uniform(0, seconds[backend])),
            )
            kills[backend] += found is None
            if found is not None:
                break
        if found is None:
            found = run_apart(lambda backend=backend, folder=folder: search(backend, folder), None)  # type: ignore[misc]
        searches[backend] += 1
        if found != wanted[backend]:
            faults += 1
            print(
                f"FAULT {backend}, search {searches[backend]}: {found!s:.500}\n  alone: {wanted[backend]:.500}"
            )
        shutil.rmtree(folder, ignore_errors=True)
    for backend in backends:
        print(f"{backend}: {kills[backend]} kills in {searches[backend]} searches")
    print(f"{sum(kills.values())} kills, {faults} results lost or other")
    shutil.rmtree(root, ignore_errors=True)
    return min(1, faults)


if __name__ == "__main__":
    sys.exit(main())
