"""Searches that are stopped: by Ctrl-C, by an error, by a kill; in this process and in workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch

from symtorch_core import ParetoFront, distill
from symtorch_core.errors import BackendError, SearchError
from symtorch_core.events import Event, OutputFinished, OutputInterrupted, OutputProgressed
from symtorch_core.expressions import Expression, parse
from symtorch_core.search import OutputwiseRegressor, Problem, SearchSpace

X = torch.rand(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.stack([2.0 * X[:, 0] + X[:, 1], 3.0 * X[:, 0] + X[:, 1], X[:, 0] - X[:, 1]], dim=1)
TOO_LONG = 120.0


@final
@dataclass(frozen=True)
class Slow(OutputwiseRegressor):
    """A backend that finds ``2 a + 0.4`` at once, and then does for each output what its word says.

    Attributes:
        folder: gets a file for each output that is searched, and one for each process that searches.
        words: one for each output.
    """

    name: ClassVar[str] = "slow"
    folder: str = ""
    words: tuple[str, ...] = ()
    n_jobs: int = 1

    def check(self, search: SearchSpace) -> None:
        """Accept every search."""

    def search(self, problem: Problem) -> Iterator[Expression]:
        yield parse("2.0*a + 0.4", problem.variable_names)
        Path(self.folder, f"process {os.getpid()}").touch()
        Path(self.folder, f"output {problem.output}").touch()
        word = self.words[problem.output]
        if word == "wait":
            wait_for(problem.is_late)
        if word == "wait for others":
            wait_for(lambda: len(list(Path(self.folder).glob("output *"))) == len(self.words))
        if word == "sleep":
            time.sleep(TOO_LONG)
        if word == "fail":
            wait_for(lambda: len(list(Path(self.folder).glob("output *"))) == len(self.words))
            raise ZeroDivisionError("no reason")
        if word == "refuse":
            raise SearchError("no such thing")
        if word == "interrupt":
            signal.raise_signal(signal.SIGINT)
        if word == "report":
            problem.report_progress(0.5)
        yield parse("2.0*a + b", problem.variable_names)


def wait_for(condition: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < TOO_LONG
        time.sleep(0.01)


def fit(folder: Path, *words: str, callback: Callable[[Event], None], **options: Any) -> list[ParetoFront]:
    return Slow(str(folder), words, **options).fit(
        X,
        Y[:, : len(words)],
        search=SearchSpace(),
        variable_names=["a", "b"],
        callbacks=[callback],
    )


def collect_kept(events: list[Event]) -> dict[int, list[str]]:
    """Return the equations of the interrupted fronts, from simple to complex, by output."""
    return {
        event.output: [str(candidate.expression) for candidate in event.front]
        for event in events
        if isinstance(event, OutputInterrupted)
    }


def test_what_was_handed_over_before_ctrl_c_is_kept_as_it_is(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, "", "interrupt", callback=events.append)
    assert [event.output for event in events if isinstance(event, OutputFinished)] == [0]
    assert list(collect_kept(events)) == [1]
    assert collect_kept(events)[1][-1] == "2.0*a + 0.4"  # not refitted


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_stop_while_the_front_is_built_keeps_what_the_search_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def stop(*_: object) -> None:
        raise error

    events: list[Event] = []
    monkeypatch.setattr("symtorch_core.search.front_builder._improve", stop)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else BackendError):
        fit(tmp_path, "", callback=events.append)
    assert collect_kept(events)[0][-1] == "2.0*a + b"


def test_a_stop_while_a_front_is_handed_over_does_not_lose_it(tmp_path: Path) -> None:
    events: list[Event] = []

    def watch(event: Event) -> None:
        if isinstance(event, OutputFinished):
            raise KeyboardInterrupt
        events.append(event)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, "", callback=watch)
    assert collect_kept(events)[0][-1] == "2.0*a + b"


def test_an_error_of_the_engine_is_the_backends_and_keeps_what_it_found(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(BackendError, match="ZeroDivisionError: no reason"):
        fit(tmp_path, "fail", callback=events.append)
    assert collect_kept(events)[0][-1] == "2.0*a + 0.4"


def test_a_refusal_stays_one(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no such thing"):
        fit(tmp_path, "refuse", callback=lambda event: None)


def test_an_error_of_a_callback_does_not_end_the_search(tmp_path: Path) -> None:
    def complain(event: Event) -> None:
        if isinstance(event, OutputProgressed):
            raise ZeroDivisionError("mine")

    with pytest.warns(RuntimeWarning, match="the callback complain failed"):
        fit(tmp_path, "report", callback=complain)


def test_a_run_that_an_engine_ends_returns_what_there_is(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError: no reason"):
        result = distill(
            (X, Y[:, :1]),
            regressor=Slow(str(tmp_path), ("fail",)),
            variable_names=["a", "b"],
            progress=False,
        )
    assert result.interrupted
    assert str(result.front()[-1].expression) == "2.0*a + 0.4"


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_stops import *

def tell(event):
    if isinstance(event, OutputFinished | OutputInterrupted):
        print(type(event).__name__, event.output, event.front[-1].expression, flush=True)

for folder, words in {runs!r}:
    try:
        fit(Path(folder), *words, callback=tell, n_jobs=2)
    except BaseException as error:
        where = ["in search" for note in getattr(error, "__notes__", ()) if "in search" in note]
        print(type(error).__name__, *where, flush=True)
"""


class Parent:
    """A Python process, leader of a group like that of a terminal, that fits slow backends in two workers.

    Args:
        folders: a new folder for each run, named by the words of its outputs.
    """

    def __init__(self, *folders: Path) -> None:
        for folder in folders:
            folder.mkdir()
        runs = [(str(folder), folder.name.split(",")) for folder in folders]
        script = SCRIPT.format(tests=str(Path(__file__).parent), runs=runs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def read_lines(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        return sorted(self.process.stdout.readline().rstrip() for _ in range(count))

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for_the_end(self) -> None:
        self.process.communicate(timeout=TOO_LONG)


def list_workers(folder: Path) -> list[int]:
    """Return the processes that searched in a run, and are still there."""
    numbers = [int(path.name.split()[1]) for path in folder.glob("process *")]
    return [number for number in numbers if is_running(number)]


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")  # an orphan that nobody waits for stays as a zombie
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(os.name != "posix", reason="needs signals and process groups")
def test_workers_stop_when_they_are_told_to_and_end_with_their_parent(tmp_path: Path) -> None:
    failing, waiting, sleeping = (tmp_path / name for name in ("fail,wait", "wait,wait", "sleep,sleep"))
    parent = Parent(failing, waiting, sleeping)
    # An error in one stops the other, and what both have is kept.
    assert parent.read_lines(3) == [
        "BackendError in search",
        "OutputInterrupted 0 2.0*a + 0.4",
        "OutputInterrupted 1 2.0*a + b",
    ]
    wait_for(lambda: len(list(waiting.glob("output *"))) == 2)
    parent.press_ctrl_c()
    assert parent.read_lines(3) == [
        "KeyboardInterrupt",
        "OutputInterrupted 0 2.0*a + b",
        "OutputInterrupted 1 2.0*a + b",
    ]
    wait_for(lambda: len(list(sleeping.glob("output *"))) == 2)
    assert len(list_workers(sleeping)) == 2
    parent.process.kill()
    parent.wait_for_the_end()
    wait_for(lambda: not list_workers(sleeping))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals and process groups")
def test_a_worker_that_does_not_stop_is_ended_and_the_finished_outputs_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "wait for others,sleep"
    parent = Parent(folder)
    assert parent.read_lines(1) == ["OutputFinished 0 2.0*a + b"]
    parent.press_ctrl_c()
    while (line := parent.read_lines(1)) != ["KeyboardInterrupt"]:
        assert line == ["OutputFinished 0 2.0*a + b"]  # told again, if it was interrupted while it was told
    parent.wait_for_the_end()
    wait_for(lambda: not list_workers(folder))
