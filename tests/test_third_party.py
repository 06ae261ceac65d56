"""The example package as a stranger would use it: installed by pip, found by name, checked by its tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import symtorch_core as st

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "symtorch-example-reducer"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own that the example is installed into; no network is needed."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--target", str(folder), str(EXAMPLE)]
    subprocess.run(command, check=True, timeout=300)
    return folder


def run(target: Path, *arguments: str, cwd: Path) -> str:
    path = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_unknown_until_it_is_installed() -> None:
    with pytest.raises(st.UnknownComponentError, match="'variance'"):
        st.load("reducers", "variance")


def test_it_is_listed_selected_by_name_and_run(target: Path, tmp_path: Path) -> None:
    code = """
        import sys
        import torch
        import symtorch_core as st

        (record,) = [item for item in st.available("reducers") if item.name == "variance"]
        print(record.distribution, record.version)
        print("symtorch_example_reducer.reducer" in sys.modules)
        reducer = st.load("reducers", "variance")
        print(sys.modules[reducer.__module__].__file__)
        X = torch.tensor([[0.0, 5.0, 1.0], [9.0, 5.0, 3.0], [4.0, 5.0, 2.0]])
        reduction = reducer(k=2).fit(X, X, variable_names=["a", "b", "c"])
        print(*reduction.variable_names)
        print(reduction.reduce_inputs(X[1]).tolist())
        """
    lines = run(target, "-c", dedent(code), cwd=tmp_path).splitlines()
    assert lines[:2] == ["symtorch-example-reducer 0.1.0", "False"]
    assert Path(lines[2]).is_relative_to(target)
    assert lines[3:] == ["a c", "[9.0, 3.0]"]


def test_its_own_tests_pass_where_it_is_installed(target: Path, tmp_path: Path) -> None:
    settings = ["-c", str(EXAMPLE / "pyproject.toml"), "-p", "no:cacheprovider", "--doctest-modules"]
    what = [str(EXAMPLE / "tests"), "--pyargs", "symtorch_example_reducer"]
    output = run(target, "-m", "pytest", *settings, *what, cwd=tmp_path)
    assert " passed" in output
    assert "skipped" not in output
