"""A search from the caller's side, with a stand-in for PySR in the real worker."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import symtorch_core as st
from symtorch_core.events import (
    Event,
    OutputFinished,
    OutputImproved,
    OutputInterrupted,
    OutputProgressed,
    StageTold,
)
from symtorch_pysr.regressor import PySRRegressor

STAND_INS = Path(__file__).with_name("stand_ins")
WORKER = ("env", f"PYTHONPATH={STAND_INS}", sys.executable, "-m", "symtorch_pysr.worker")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(200, 2, generator=GENERATOR, dtype=torch.float64) * 4 - 2
LAW = 2 * torch.sin(X[:, :1]) + X[:, 1:].square()
SETTINGS: dict[str, Any] = {
    "unary_operators": ("sin",),
    "niterations": 3,
    "progress": False,
    "variable_names": ["beta", "E"],
    "regressor_options": {"worker": WORKER},
}


def distill(
    Y: torch.Tensor = LAW, regressor_options: Mapping[str, Any] | None = None, **options: Any
) -> st.Distillation:
    of_backend = {**SETTINGS["regressor_options"], **(regressor_options or {})}
    return st.distill((X, Y), regressor="pysr", **{**SETTINGS, **options, "regressor_options": of_backend})


def read_seen(folder: Path) -> str:
    (text,) = [path.read_text() for path in folder.rglob("seen.txt")]
    return text


def test_the_law_comes_back_in_the_users_names() -> None:
    assert str(distill().chosen()[0]) in {"2*sin(beta) + E^2", "E^2 + 2*sin(beta)"}


def test_it_is_the_default_regressor() -> None:
    assert st.distill((X, LAW), **SETTINGS).provenance.regressor == "pysr"


def test_two_outputs_are_one_search(tmp_path: Path) -> None:
    result = distill(
        torch.cat([LAW, torch.full_like(LAW, 3.0), X[:, :1] * X[:, 1:]], dim=1),
        regressor_options={"output_directory": str(tmp_path), "run_id": "both"},
    )
    assert [str(candidate) for candidate in result.chosen()][1:] == ["3", "beta*E"]
    assert "(160, 2), (160, 2)" in read_seen(tmp_path)  # the constant column is not searched
    assert "'niterations': 3" in read_seen(tmp_path)


def test_weights_reach_pysr_in_the_shape_of_the_targets(tmp_path: Path) -> None:
    weights = torch.linspace(0.5, 2.0, len(X))
    distill(
        torch.cat([LAW, X[:, :1] * X[:, 1:]], dim=1),
        weights=weights,
        regressor_options={"output_directory": str(tmp_path)},
    )
    assert "(160, 2), (160, 2), (160, 2)" in read_seen(tmp_path)


def test_options_pass_through_and_fit_options_go_to_fit(tmp_path: Path) -> None:
    distill(
        regressor_options={
            "populations": 40,
            "batching": True,
            "X_units": ["m", "s"],
            "output_directory": str(tmp_path),
        },
        seed=7,
    )
    text = read_seen(tmp_path)
    assert "'populations': 40" in text
    assert "'batching': True" in text
    assert "{'X_units': ['m', 's'], 'variable_names': ['x0', 'x1']}" in text
    assert "deterministic" not in text


@pytest.mark.parametrize(
    ("targets", "options", "seen"),
    [
        (1e9 + LAW, {}, "'precision': 64"),
        (1e-30 * LAW, {}, "'precision': 64"),
        (1e9 + LAW, {"precision": 32}, "'precision': 32"),
        (LAW, {}, None),
        ((1e9 + LAW).float().double(), {}, None),  # single precision has all of it
    ],
)
def test_pysr_computes_in_double_precision_where_the_data_need_it(
    targets: torch.Tensor, options: dict[str, Any], seen: str | None, tmp_path: Path
) -> None:
    targets = torch.cat([targets, LAW], dim=1)
    distill(targets, regressor_options={**options, "output_directory": str(tmp_path)})
    text = read_seen(tmp_path)
    assert ("precision" not in text) if seen is None else (seen in text)


def test_limits_of_two_arguments_arrive_as_pysr_wants_them(tmp_path: Path) -> None:
    distill(constraints={"*": (-1, 9), "sin": 5}, regressor_options={"output_directory": str(tmp_path)})
    assert "'constraints': {'*': (-1, 9), 'sin': 5}" in read_seen(tmp_path)


def test_deterministic_is_serial_with_the_seed(tmp_path: Path) -> None:
    distill(regressor_options={"deterministic": True, "output_directory": str(tmp_path)}, seed=7)
    assert "'random_state': 7, 'deterministic': True, 'parallelism': 'serial'" in read_seen(tmp_path)


def test_nothing_is_written_where_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    distill()
    assert list(tmp_path.iterdir()) == []


def test_the_users_folder_keeps_pysrs_files_and_is_not_written_twice(tmp_path: Path) -> None:
    distill(regressor_options={"output_directory": str(tmp_path), "run_id": "mine"})
    assert {"hall_of_fame.csv", "worker.log", "job.json"} <= {
        path.name for path in (tmp_path / "mine").iterdir()
    }
    assert not (tmp_path / "mine" / "data.npz").exists()
    with pytest.raises(st.SearchError, match="another run_id"):
        distill(regressor_options={"output_directory": str(tmp_path), "run_id": "mine"})


def test_what_it_tells() -> None:
    told: list[Event] = []
    distill(niterations=80, callbacks=[told.append])
    texts = [event.text for event in told if isinstance(event, StageTold)]
    assert texts[0].startswith("starting Julia")
    assert any(text.startswith("PySR 2.7.2, Julia 1.11.0") for text in texts)
    fractions = [event.fraction for event in told if isinstance(event, OutputProgressed)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    improved = [event for event in told if isinstance(event, OutputImproved)]
    assert {event.complexity for event in improved} == {3, 7, 11, 15}
    assert all(
        "beta" in event.equation or "E" in event.equation for event in improved if event.complexity == 7
    )
    assert [type(event) for event in told].count(OutputFinished) == 1


def test_garbage_on_the_pipe_is_output_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "garbage")
    assert "sin(beta)" in str(distill().chosen()[0])


@pytest.mark.parametrize("how", ["crash", "hang"])
def test_a_crash_keeps_the_partial_front_and_says_why(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("STAND_IN", how)
    reason = "SIGSEGV" if how == "crash" else "did not stop 1 s after its time limit"
    with pytest.warns(RuntimeWarning, match=reason) as caught:
        result = distill(regressor_options={"overtime_in_seconds": 1.0}, timeout_in_seconds=0.5)
    assert result.interrupted
    assert "sin(beta)" in str(result.chosen()[0])
    if how == "crash":
        assert "Segmentation fault" in str(caught[0].message)


def test_a_crash_with_nothing_on_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "crash at once")
    with pytest.raises(st.BackendError, match="SIGKILL.*out of memory"):
        distill()


def test_what_pysr_refuses_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "refuse")
    with pytest.raises(st.BackendError, match="ValueError: Julia says no"):
        distill()


def test_a_command_that_is_not_there_is_an_error() -> None:
    with pytest.raises(st.BackendError, match="cannot start"):
        distill(regressor_options={"worker": ("/no/such/python",)})


def test_ctrl_c_keeps_what_is_on_disk_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "hang")
    told: list[Event] = []

    def watch(event: Event) -> None:
        told.append(event)
        if isinstance(event, OutputImproved) and event.complexity == 3:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    started = time.monotonic()
    result = distill(callbacks=[watch])
    assert time.monotonic() - started < 60
    assert result.interrupted
    assert [event.output for event in told if isinstance(event, OutputInterrupted)] == [0]
    assert "sin(beta)" in str(result.chosen()[0])
    assert wait_for(lambda: not list_running(str(STAND_INS)))


def test_ctrl_c_while_the_fronts_are_built_keeps_those_that_are_waiting() -> None:
    told: list[Event] = []

    def watch(event: Event) -> None:
        told.append(event)
        if isinstance(event, OutputFinished):
            raise KeyboardInterrupt

    result = distill(torch.cat([LAW, X[:, :1] * X[:, 1:]], dim=1), callbacks=[watch])
    assert result.interrupted
    assert [event.output for event in told if isinstance(event, OutputFinished)] == [0]
    assert [event.output for event in told if isinstance(event, OutputInterrupted)] == [1]
    assert "beta" in str(result.chosen()[1])


def list_running(marker: str) -> list[str]:
    """List the running workers that were started with this environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                marker in (process / "environ").read_text()
                and "symtorch_pysr" in (process / "cmdline").read_text()
            ):
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import torch, symtorch_core as st\n"
        "from symtorch_pysr.regressor import PySRRegressor\n"
        "X = torch.rand(50, 1)\n"
        f"regressor = PySRRegressor(output_directory={str(tmp_path)!r}, worker={WORKER!r})\n"
        "st.distill((X, X.sin()), regressor=regressor, niterations=3, progress=False)"
    )
    marker = str(tmp_path / "marker")
    environment = {**os.environ, "STAND_IN": "hang", "MARKER": marker}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: list(tmp_path.rglob("hall_of_fame.csv"))), "the search did not start"
        assert list_running(marker)
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not list_running(marker))


def wait_for(condition: Any) -> bool:
    """Return whether a condition becomes true within a minute."""
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_a_search_that_was_killed_is_taken_up_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STAND_IN", "crash")
    with pytest.warns(RuntimeWarning, match="SIGSEGV"):
        distill(resume=tmp_path)
    monkeypatch.setenv("STAND_IN", "")
    result = distill(resume=tmp_path)
    assert not result.interrupted
    first, second = sorted(tmp_path.rglob("seen.txt"))
    assert "guesses" not in first.read_text()
    assert "'guesses': [[" in second.read_text()
    assert "(sin(x0)" in second.read_text().partition("guesses")[2]
    files = len(list(tmp_path.rglob("seen.txt")))
    assert distill(resume=tmp_path).front() == result.front()  # finished: nothing is searched again
    assert len(list(tmp_path.rglob("seen.txt"))) == files


def test_a_front_can_be_started_from(tmp_path: Path) -> None:
    front = distill().front()
    distill(regressor_options={"start": front, "output_directory": str(tmp_path)})
    assert "sin(x0)" in read_seen(tmp_path).partition("guesses")[2]


def test_what_was_started_from_stays_a_candidate() -> None:
    result = distill(X[:, :1].tanh(), regressor_options={"start": ["tanh(beta)"]}, unary_operators=("tanh",))
    assert str(result.front().select("accuracy")) == "tanh(beta)"


def test_what_cannot_be_started_from_is_refused() -> None:
    with pytest.raises(st.SearchError, match="no operator 'tanh'"):
        distill(regressor_options={"start": ["tanh(beta)"]})
    with pytest.raises(st.SearchError, match="list of equations"):
        distill(regressor_options={"start": "sin(beta)"})


BOTH = torch.cat([LAW, X[:, :1] * X[:, 1:]], dim=1)
FOREIGN = '19,0.0,"sjn(x0)";21,1.0,"x0 * 3.0"'


def test_fronts_that_were_not_all_built_are_built_from_the_tables_of_the_search_that_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAND_IN_ROWS", FOREIGN)
    whole = distill(BOTH)

    def die(event: Event) -> None:
        if isinstance(event, OutputFinished):
            raise SystemExit

    with pytest.raises(SystemExit):
        distill(BOTH, resume=tmp_path, callbacks=[die])
    monkeypatch.setenv("STAND_IN", "refuse")  # no other search may start
    assert distill(BOTH, resume=tmp_path).fronts == whole.fronts
    assert [entry.equation for entry in whole.fronts[0].unrunnable] == ["sjn(beta)"]


def test_damaged_tables_of_a_search_that_ended_are_refused(tmp_path: Path) -> None:
    distill(resume=tmp_path)
    (fronts,), (tables,) = tmp_path.glob("fronts-*"), tmp_path.glob("search-*/tables.json")
    fronts.unlink()
    tables.write_text(tables.read_text().replace("sin(x0)", "sin(x1)"))
    with pytest.raises(
        st.FileFormatError, match="tables.json is damaged .*delete it, and its work is done again"
    ):
        distill(resume=tmp_path)


def test_of_a_killed_search_only_what_the_core_can_measure_is_taken_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAND_IN_ROWS", FOREIGN)
    monkeypatch.setenv("STAND_IN", "crash")
    with pytest.warns(RuntimeWarning, match="SIGSEGV"):
        distill(resume=tmp_path)
    monkeypatch.setenv("STAND_IN", "")
    monkeypatch.setenv("STAND_IN_ROWS", "")
    result = distill(resume=tmp_path)
    assert result.front().unrunnable == ()
    guesses = max(tmp_path.rglob("seen.txt")).read_text().partition("guesses")[2]
    assert "x0 * 3.0" in guesses
    assert "sjn" not in guesses


def test_a_deterministic_search_that_was_killed_ends_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"regressor_options": {"deterministic": True}, "refine": False}
    whole = distill(**settings)
    monkeypatch.setenv("STAND_IN", "crash")
    monkeypatch.setenv("STAND_IN_ROWS", '2,0.0,"sin(sin(x0))"')
    with pytest.warns(RuntimeWarning, match="SIGSEGV"):
        distill(resume=tmp_path, **settings)
    monkeypatch.setenv("STAND_IN", "")
    monkeypatch.setenv("STAND_IN_ROWS", "")
    assert distill(resume=tmp_path, **settings).front() == whole.front()
    assert "guesses" not in max(tmp_path.rglob("seen.txt")).read_text()


def test_custom_operators_run_written_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STAND_IN_ROWS", '19,0.0,"(gauss(x0) * 3.0f0) + symtorch_sqrt_abs(x1)"')
    target = 3 * torch.exp(-X[:, :1].square()) + X[:, 1:].abs().sqrt()
    result = distill(
        target,
        unary_operators=("sqrt_abs", "gauss(x) = exp(-x^2)"),
        nested_constraints={"gauss": {"gauss": 0}},
        regressor_options={"output_directory": str(tmp_path)},
    )
    best = result.front().select("accuracy")
    torch.testing.assert_close(result.surrogate(complexity=best.complexity)(X), target)
    text = read_seen(tmp_path)
    assert "'gauss(x) = exp(-x^2)'" in text
    assert "'nested_constraints': {'gauss': {'gauss': 0}}" in text
    result.save(tmp_path / "result.json")
    again = st.Distillation.load(tmp_path / "result.json")
    assert again.front() == result.front()


def test_what_cannot_run_is_kept_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STAND_IN_ROWS", '19,1.5f-7,"leaky(x0) + besselj(x1)";20,0.1,"NaN + x0";21,0.1,"x0 + ')
    result = distill(unary_operators=("sin", "leaky(x) = x > 0 ? x : 0.1f0 * x"))
    leaky, nan = result.front().unrunnable
    assert (leaky.equation, leaky.complexity, leaky.loss) == ("leaky(beta) + besselj(E)", 19, 1.5e-7)
    assert "leaky" in leaky.reason
    assert "NaN" in nan.reason
    assert "not runnable: leaky(beta)" in str(result)
    path = tmp_path / "result.json"
    result.save(path)
    assert st.Distillation.load(path).front().unrunnable == result.front().unrunnable
    assert "sin(beta)" in str(result.chosen()[0])


def test_torch_is_not_loaded_with_the_worker() -> None:
    code = "import sys, symtorch_pysr.worker; assert not {'torch', 'symtorch_core', 'juliacall'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, symtorch_core, symtorch_pysr.regressor; assert not {'pysr', 'juliacall'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for options in (
        {"run_id": "a"},
        {"overtime_in_seconds": -1.0},
        {"deterministic": True, "options": {"parallelism": "multithreading"}},
    ):
        with pytest.raises(st.SearchError):
            PySRRegressor(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overtime_in_seconds": -1.0}, "pysr's overtime_in_seconds must be at least 0, got -1.0"),
        ({"overtime_in_seconds": "long"}, "pysr's overtime_in_seconds must be a finite number, got 'long'"),
        ({"deterministic": "yes"}, "pysr's deterministic must be True or False, got 'yes'"),
        ({"elementwise_loss": 2}, "pysr's elementwise_loss must be a text or None, got 2"),
        ({"output_directory": 3}, "pysr's output_directory must be a path or None, got 3"),
        ({"worker": "python"}, "pysr's worker must be a list of texts"),
        ({"options": ["populations"]}, "pysr's options must be a dictionary"),
        ({"start": [2.0]}, "start takes texts and candidates; 2.0 is a float"),
    ],
)
def test_an_invalid_option_is_refused_when_the_regressor_is_made(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(st.SearchError, match=message):
        PySRRegressor(**options)


def test_its_options_are_fields_and_replaceable() -> None:
    regressor = PySRRegressor.with_options({"populations": 3, "deterministic": True})
    assert regressor.options == {"populations": 3}
    assert dataclasses.replace(regressor, deterministic=False).options == {"populations": 3}
