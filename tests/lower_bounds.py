"""Print the oldest versions that the core and what it is tested with declare, as pip reads them: ``numpy==1.26``.

python tests/lower_bounds.py > constraints.txt

`make bounds` runs the tests with them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")


def list_lower_bounds() -> list[str]:
    """Return ``name==version`` for every lower bound of the core, its extras included, without the siblings."""
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["all"]]
    found = {m.group(1): m.group(2) for m in map(BOUND.match, lines) if m and "symtorch" not in m.group(1)}
    return [f"{name}=={version}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    sys.stdout.write("\n".join(list_lower_bounds()) + "\n")
