"""Print the oldest versions that the core declares, for pip: ``numpy==1.25``; torch as it is given.

python tests/lower_bounds.py 2.13.0 > constraints.txt

`make bounds` runs the tests with them. Tests of ONNX and TensorBoard, left out here, are skipped.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")
LEFT_OUT = ("onnx", "onnxscript", "tensorboard")


def list_lower_bounds(torch: str) -> list[str]:
    """Return ``name==version`` for every lower bound of the core and its extras, without the siblings."""
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["all"]]
    bounds = {match.group(1): match.group(2) for match in map(BOUND.match, lines) if match}
    kept = {
        name: version for name, version in bounds.items() if name not in LEFT_OUT and "symtorch" not in name
    }
    return [f"{name}=={version}" for name, version in sorted({**kept, "torch": torch}.items())]


if __name__ == "__main__":
    sys.stdout.write("\n".join(list_lower_bounds(sys.argv[1])) + "\n")
