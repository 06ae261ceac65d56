"""A machine without Julia: one error, in seconds, that says what to do; and the findings of the doctor."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from juliapkg import state

import symtorch_core as st
from symtorch_core.testing import run_command
from symtorch_pysr.julia import check_julia

X = torch.rand(20, 1)


@pytest.fixture
def no_julia(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Hide Julia and the network, and use temporary folders only."""
    for name in [name for name in os.environ if name.startswith(("PYTHON_JULIA", "JULIA"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JULIA_DEPOT_PATH", str(tmp_path / "depot"))
    monkeypatch.setenv("JULIAUP_DEPOT_PATH", str(tmp_path / "juliaup"))
    monkeypatch.setenv("PYTHON_JULIAPKG_PROJECT", str(tmp_path / "project"))
    monkeypatch.setenv("PYTHON_JULIAPKG_OFFLINE", "yes")
    monkeypatch.setattr(state, "STATE", {})
    import symtorch_pysr.julia as ours

    state.reset_state()
    monkeypatch.setattr(ours, "STATE", state.STATE, raising=False)
    return monkeypatch


@pytest.mark.usefixtures("no_julia")
def test_it_fails_within_seconds_and_says_what_works() -> None:
    started = time.monotonic()
    with pytest.raises(st.MissingDependencyError) as caught:
        st.distill((X, X.sin()), progress=False)
    assert time.monotonic() - started < 30
    message = str(caught.value)
    for words in (
        "needs Julia",
        "PYTHON_JULIACALL_EXE",
        "PYTHON_JULIAPKG_",
        "symtorch doctor pysr",
        'regressor="operon"',
    ):
        assert words in message


def test_the_doctor_tells_what_is_missing(no_julia: pytest.MonkeyPatch) -> None:
    result = run_command(["doctor", "pysr"])
    assert result.exit_code == 1
    assert "PYTHON_JULIAPKG_OFFLINE is set" in result.output
    assert "ok  PySR" in result.output


def test_the_doctor_tells_what_the_first_search_would_download(
    no_julia: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_julia.delenv("PYTHON_JULIAPKG_OFFLINE")
    state.reset_state()
    finding = check_julia()[-1]
    assert not finding.ok
    assert str(tmp_path / "project") in finding.text
    assert "gigabyte" in finding.text
    assert "Julia =1.10.0, 1.10.3" in finding.text


def test_the_doctor_finds_a_prepared_environment(no_julia: pytest.MonkeyPatch, tmp_path: Path) -> None:
    julia = tmp_path / "julia"
    julia.write_text(f"#!{sys.executable}\nprint('julia version 1.11.5')\n")
    julia.chmod(0o755)
    meta = Path(state.STATE["meta"])
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"executable": str(julia), "version": "1.11.5"}))
    assert [finding.ok for finding in check_julia()] == [True, True, True]
    assert "Julia 1.11.5" in check_julia()[1].text
    julia.write_text("#!/bin/false\n")
    assert not check_julia()[-1].ok


def test_the_doctor_looks_at_what_the_user_set_up(no_julia: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_julia.setenv("PYTHON_JULIACALL_EXE", str(tmp_path / "absent"))
    assert "must be set together" in check_julia()[-1].text
    no_julia.setenv("PYTHON_JULIACALL_PROJECT", str(tmp_path))
    exe, project = check_julia()[1:]
    assert not exe.ok
    assert "does not run" in exe.text
    assert project.ok
