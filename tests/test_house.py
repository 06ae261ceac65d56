"""The house: rooms in the order of the walk, one public door, and declared dependencies."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "symtorch_core"
DOORS = (
    "symtorch_core",
    "symtorch_core.events",
    "symtorch_core.expressions",
    "symtorch_core.reduction",
    "symtorch_core.search",
    "symtorch_core.studies",
    "symtorch_core.testing",
)
OUTSIDE = sorted(
    path
    for folder in ("backends", "reducers", "plugins", "benchmarks", "docs/examples")
    for path in ROOT.joinpath(folder).rglob("*.py")
    if not {"build", ".venv"} & set(path.parts)
)
DISTRIBUTIONS = sorted(
    folder
    for group in ("backends", "reducers", "plugins", "docs/examples")
    for folder in ROOT.joinpath(group).glob("symtorch-*")
)


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the absolute imports of a file: module, and name for ``from module import name``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def test_layers_hold() -> None:
    # The same contracts that `make lint` checks; here so that they hold wherever the tests run.
    lint = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if lint is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_top_level_holds_rooms_and_little_else() -> None:
    files = {path.name for path in CORE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "errors.py", "cli.py", "demo.py", "py.typed"}
    for room in CORE.iterdir():
        if room.is_dir() and room.name != "__pycache__":
            doc = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
            assert doc, f"say in {room.name}/__init__.py what the room holds"


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_is_outside_comes_in_by_a_door(path: Path) -> None:
    for module, name in imports(path):
        if module.split(".")[0] != "symtorch_core":
            continue
        assert module in DOORS, f"{module} is private; the doors are {', '.join(DOORS)}"
        if name is not None:
            assert name in importlib.import_module(module).__all__, f"{module} does not export {name}"


@pytest.mark.parametrize("door", DOORS)
def test_a_door_opens_and_hides_no_function(door: str) -> None:
    module = importlib.import_module(door)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
        if name.islower():  # `symtorch_core.capture` is the function, whatever has been imported
            assert not Path(module.__file__ or "").parent.joinpath(name).exists(), (
                f"{door}.{name} is a folder too"
            )
            assert not Path(module.__file__ or "").parent.joinpath(f"{name}.py").exists()


@pytest.mark.parametrize("folder", [ROOT, *DISTRIBUTIONS], ids=lambda folder: folder.name)
def test_what_is_imported_is_declared(folder: Path) -> None:
    project = tomllib.loads(folder.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = [line for lines in project.get("optional-dependencies", {}).values() for line in lines]
    declared = {normal(line) for line in [*project["dependencies"], *optional]}
    source = CORE if folder == ROOT else folder / "src"
    own = {"symtorch_core"} if folder == ROOT else {path.name for path in source.iterdir()}
    known = metadata.packages_distributions()
    for path in source.rglob("*.py"):
        for module, _ in imports(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in own:
                continue
            names = {normal(name) for name in known.get(top, [top])}
            assert names & declared, (
                f"{path.relative_to(ROOT)} imports {top}, which pyproject.toml does not declare"
            )


def normal(requirement: str) -> str:
    """Return a distribution's name without version and extras, as packaging writes it."""
    name = "".join(c if c.isalnum() or c in "-_." else " " for c in requirement).split()[0]
    return name.lower().replace("_", "-").replace(".", "-")
