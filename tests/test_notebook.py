"""A notebook, run from its first cell to the last by a kernel of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

CELLS = (
    """
import torch, symtorch_core as st
X = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) + 0.5
options = {"variable_names": ["mass", "theta"], "output_names": ["<b>"], "regressor": "sparse"}
result = st.distill((X, 2*X[:, :1]*X[:, 1:]), **options)
""",
    "quiet = st.distill((X, X[:, :1]), **options, progress=False)",
    "result",
    "result.explore()",
    "import sys; 'ipywidgets' in sys.modules",
)


def test_a_notebook_shows_progress_results_and_a_slider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entry for entry in sys.path if entry))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=folder).execute()
    run, quiet, result, explorer, widgets = ([to_html(o) for o in cell.outputs] for cell in notebook.cells)
    (progress,) = run  # one display, drawn again in its place
    assert progress.count("<table") == 1
    assert "regress" in progress
    assert "mass" in progress[progress.index("<code>") :]
    assert progress.count("width:100%") == progress.count("<tr")  # all have ended
    assert quiet == []
    assert "&lt;b&gt;" in result[0]
    assert "<mi>mass</mi>" in result[0]
    assert len(result[0]) < 2000
    assert "type=&#34;range&#34;" in explorer[0]
    assert "srcdoc=" in explorer[0]
    assert widgets == ["False"]


def to_html(output: Any) -> str:
    """What a notebook shows of an output."""
    assert output.output_type in {"display_data", "execute_result"}, output
    return output.data.get("text/html", output.data["text/plain"])
