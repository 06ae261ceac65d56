"""What does importing the core cost beside importing torch?

    python benchmarks/import_time.py [--runs 7]

Each run is a process of its own, in turns; CPU seconds (user and system), the least of all runs.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys

from rich.console import Console
from rich.table import Table

CASES = {"torch": "import torch", "symtorch_core": "import symtorch_core"}
ASKED = 1.25


def measure_cpu_seconds(code: str) -> float:
    """Return the CPU seconds that a fresh process takes for some code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for name in CASES:  # once for the disk's cache
        measure_cpu_seconds(CASES[name])
    for _ in range(runs):
        for name, code in CASES.items():
            seconds[name].append(measure_cpu_seconds(code))
    table = Table("import", "least CPU s", "most CPU s", title=f"{platform.machine()}, {runs} runs in turns")
    for name, values in seconds.items():
        table.add_row(name, f"{min(values):.2f}", f"{max(values):.2f}")
    console = Console()
    console.print(table)
    ratio = min(seconds["symtorch_core"]) / min(seconds["torch"])
    console.print(f"symtorch_core over torch: {ratio:.2f} (asked: at most {ASKED})")


if __name__ == "__main__":
    main()
