"""Measure how many one-line changes of a room of the core its tests notice.

python tests/mutants.py search           # every change; an hour or more
python tests/mutants.py search --last 3  # changes whose number ends in 3: about a tenth

`make mutants ROOM=search LAST=3` installs mutmut and runs this. A copy of the sources, build/mutants, is changed.
Prints the share of changes that some test notices, and the changes that none does; `mutmut show NAME` there shows one.
Texts of errors and warnings are not changed, since tests hold them in part only; tests that compile the model are left
out, since compilers cannot look into changed functions.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPY = ROOT / "build" / "mutants"
ROOMS = {
    "search": "front losses search fitting contracts calls",
    "verification": "fidelity residuals surroundings pipeline",
    "results": "model pipeline",
    "model": "model hooks modes surroundings block_attributes pruning tuning where_models_live",
}
SETTINGS = """[mutmut]
source_paths = symtorch_core
only_mutate = symtorch_core/{room}/*
do_not_mutate_patterns =
    ^\\s*raise\\b
    warnings\\.warn\\(
pytest_add_cli_args_test_selection =
    {tests}
pytest_add_cli_args =
    -n0
    -pno:cacheprovider
    -mnot slow and not study
    -knot compile and not export and not graph
also_copy =
    conftest.py
track_dependencies = false
use_git_change_detection = false
"""


def main() -> None:
    """Run mutmut on one room and print the rate."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("room", choices=ROOMS)
    options.add_argument(
        "--last", default="", help="last digit of the numbers of the changes to try; all by default"
    )
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = options.parse_args()
    tests = [f"tests/test_{part}.py" for part in ROOMS[chosen.room].split()]
    shutil.rmtree(COPY, ignore_errors=True)
    for folder in ("symtorch_core", "tests"):
        shutil.copytree(ROOT / folder, COPY / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / file, COPY / file)
    COPY.joinpath("setup.cfg").write_text(SETTINGS.format(room=chosen.room, tests="\n    ".join(tests)))
    pattern = f"symtorch_core.{chosen.room}.*__mutmut_*{chosen.last}"
    run("run", "--max-children", str(chosen.jobs), pattern)
    report(run("results", "--all", "true", quiet=True), pattern_end=chosen.last)


def run(*arguments: str, quiet: bool = False) -> str:
    """Run mutmut in the copy, on one thread for each process, and return what it printed if it is quiet."""
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=COPY, env=environment, stdout=subprocess.PIPE if quiet else None, text=True
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def report(results: str, pattern_end: str) -> None:
    """Print the rate of changes noticed, and the names of the others."""
    entries = [line.strip().rsplit(": ", 1) for line in results.splitlines() if "__mutmut_" in line]
    entries = [
        (name, state) for name, state in entries if name.endswith(pattern_end) and state != "not checked"
    ]
    unnoticed = [f"{name}: {state}" for name, state in entries if state in ("survived", "no tests")]
    counts = Counter(state for _, state in entries)
    rate = 1 - len(unnoticed) / max(1, len(entries))
    tried = ", ".join(f"{number} {state}" for state, number in counts.items())
    lines = [*unnoticed, f"{rate:.1%} of {len(entries)} changes are noticed ({tried})"]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
