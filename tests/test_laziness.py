"""Importing the core and listing what is installed must load no backend."""

from __future__ import annotations

import json
import subprocess
import sys
from textwrap import dedent

# What a user pays for only on use: the searches, Julia, model libraries and plots.
HEAVY = (
    "pysr",
    "juliacall",
    "gplearn",
    "pyoperon",
    "transformers",
    "torch_geometric",
    "matplotlib",
    "sklearn",
    "pandas",
)


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running the code."""
    tail = "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", dedent(code) + tail], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


LIST_ALL = """
    import symtorch_core as st
    for kind in ("captures", "reducers", "regressors", "surrogates", "studies"):
        st.available(kind)
    """


def test_import_and_listing_load_nothing_heavy() -> None:
    loaded = loaded_after(LIST_ALL)
    assert "symtorch_core" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_import_alone_reads_no_plugin() -> None:
    loaded = loaded_after("import symtorch_core as st")
    assert not {name for name in loaded if name.startswith("symtorch_")} - {"symtorch_core"}


def test_listing_reads_the_plugins_and_loading_one_loads_its_backend() -> None:
    # Guards the tests above: were nothing ever loaded, they could not fail.
    assert "symtorch_gplearn" in loaded_after(LIST_ALL)
    assert "gplearn" in loaded_after("import symtorch_core as st\nst.load('regressors', 'gplearn')")
