"""The repository's own bookkeeping: what is written in two places must agree."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import pytest

from symtorch_core.components.registry import FIRST_PARTY

ROOT = Path(__file__).parents[1]
SIBLINGS = sorted(
    folder
    for group in ("backends", "reducers", "plugins")
    for folder in ROOT.joinpath(group).glob("*")
    if folder.is_dir() and not folder.name.startswith((".", "_"))
)
EXAMPLE = ROOT / "docs" / "examples" / "symtorch-example-reducer"
PINNED = ">=0.1,<0.2"

each_sibling = pytest.mark.parametrize("folder", SIBLINGS, ids=lambda folder: folder.name)
each_package = pytest.mark.parametrize("folder", [*SIBLINGS, EXAMPLE], ids=lambda folder: folder.name)


def settings(folder: Path) -> dict:
    return tomllib.loads(folder.joinpath("pyproject.toml").read_text())


def test_there_are_siblings() -> None:
    assert len(SIBLINGS) >= 3


def test_the_requirement_file_installs_exactly_what_is_here() -> None:
    lines = ROOT.joinpath("requirements-dev.txt").read_text().splitlines()
    editable = [line.removeprefix("-e ") for line in lines if line.startswith("-e ")]
    assert sorted(editable) == sorted([".", *(str(folder.relative_to(ROOT)) for folder in SIBLINGS)])


def test_the_requirement_file_pins_torch_first() -> None:
    lines = ROOT.joinpath("requirements-dev.txt").read_text().splitlines()
    first = next(line for line in lines if line and not line.startswith("#"))
    assert first.startswith("torch==")


@each_package
def test_a_package_is_complete(folder: Path) -> None:
    assert folder.joinpath("README.md").read_text().strip()
    package = folder.name.replace("-", "_")
    assert folder.joinpath("src", package, "__init__.py").is_file()
    assert folder.joinpath("src", package, "py.typed").is_file()
    assert list(folder.joinpath("tests").glob("test_*.py"))


@each_package
def test_a_package_is_named_after_its_folder_and_pins_the_core(folder: Path) -> None:
    project = settings(folder)["project"]
    assert project["name"] == folder.name
    assert [item for item in project["dependencies"] if item.startswith("symtorch-core")] == [
        f"symtorch-core{PINNED}"
    ]
    assert project["entry-points"]["symtorch"]


@each_package
def test_all_distributions_have_one_version(folder: Path) -> None:
    core, sibling = settings(ROOT)["project"], settings(folder)["project"]
    assert sibling["version"] == core["version"]
    assert sibling["requires-python"] == core["requires-python"]


@each_sibling
def test_the_core_has_an_extra_for_each_sibling(folder: Path) -> None:
    extras = settings(ROOT)["project"]["optional-dependencies"]
    wanted = f"{folder.name}{PINNED}"
    assert extras[folder.name.removeprefix("symtorch-")] == [wanted]
    assert wanted in extras["all"]


def test_the_extra_all_is_the_sum_of_the_others() -> None:
    extras = settings(ROOT)["project"]["optional-dependencies"]
    others = [item for name, items in extras.items() if name != "all" for item in items]
    assert sorted(extras["all"]) == sorted(others)


@each_sibling
def test_the_registry_knows_each_sibling_by_name(folder: Path) -> None:
    assert folder.name in FIRST_PARTY.values()


@each_sibling
def test_the_tools_look_into_each_sibling(folder: Path) -> None:
    tool = settings(ROOT)["tool"]
    group = folder.parent.name
    assert group in tool["pytest"]["ini_options"]["testpaths"]
    assert f"{group}/*/src" in tool["mypy"]["files"]


def test_the_core_depends_on_no_backend() -> None:
    needed = settings(ROOT)["project"]["dependencies"]
    assert not [
        item for item in needed if item.startswith(("symtorch", "pysr", "gplearn", "pyoperon", "julia"))
    ]


def test_every_ignored_warning_carries_its_reason() -> None:
    lines = ROOT.joinpath("pyproject.toml").read_text().splitlines()
    start = lines.index("filterwarnings = [")
    block = lines[start + 1 : lines.index("]", start)]
    assert block[0].strip() == '"error",'
    for above, line in itertools.pairwise(block):
        if "ignore" in line and not line.strip().startswith("#"):
            assert above.strip().startswith("#"), f"say above it why: {line.strip()}"


def test_folders_are_not_packages() -> None:
    for name in ("backends", "reducers", "plugins", "tests", "docs"):
        assert not ROOT.joinpath(name, "__init__.py").exists()
