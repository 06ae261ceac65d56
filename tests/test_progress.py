"""Progress bars, drawn into a terminal that is not there."""

from __future__ import annotations

import io
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from symtorch_core.events import notebook
from symtorch_core.events.notebook import NotebookBars, find_display, show_notebook_bars
from symtorch_core.events.progress import draw_events, progress_bars
from symtorch_core.events.records import (
    OutputFinished,
    OutputImproved,
    OutputProgressed,
    StageFinished,
    StageStarted,
    StageTold,
)
from symtorch_core.search.front import ParetoFront


class Screen:
    """A notebook: what it shows now, and how often that changed."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, text: str) -> Any:
        self.shown.append(text)
        return self.shown.append


def test_what_a_stage_is_busy_with_is_shown_and_brackets_are_no_markup() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200, color_system=None)
    with progress_bars(console) as show:
        show(StageStarted("regress", total=1))
        show(StageTold("regress", "starting Julia [juliapkg] " + 100 * "x"))
        show(OutputProgressed(0, 0.5))
        show(OutputImproved(0, "2*x0", 0.123456))
        show(StageTold("unknown stage", "nothing"))
        show(StageFinished("regress", 1.0))
    assert "starting Julia [juliapkg] xxx" in screen.getvalue()
    assert 80 * "x" not in screen.getvalue()
    assert "0.1235  2*x0" in screen.getvalue()
    assert "nothing" not in screen.getvalue()


def test_a_notebook_shows_one_table_that_stays() -> None:
    screen = Screen()
    with show_notebook_bars(screen.display) as bars:
        show = draw_events(bars)
        show(StageStarted("regress <b>", total=1))
        show(OutputProgressed(0, 0.5))
        show(OutputImproved(0, "x0 < 1", 0.123456))
        show(OutputFinished(0, ParetoFront([])))
        show(StageFinished("regress <b>", 1.0))
    last = screen.shown[-1]
    assert last.count("<table") == 1
    assert last.count("<tr") == 2
    assert "regress &lt;b&gt;" in last
    assert "0.1235  x0 &lt; 1" in last
    assert last.count("width:100%") == 2  # both have ended


def test_a_notebook_is_drawn_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, now = Screen(), [100.0]
    monkeypatch.setattr(notebook.time, "monotonic", lambda: now[0])
    bars = NotebookBars(screen.display)
    show = draw_events(bars)
    show(StageStarted("regress", total=1000))
    for step in range(1000):  # ten seconds
        now[0] = 100 + step / 100
        show(OutputProgressed(0, step / 1000))
    assert 30 <= len(screen.shown) <= 50
    bars.draw()
    assert "100/100" in screen.shown[-1]


def test_of_many_outputs_a_notebook_shows_those_in_work() -> None:
    screen = Screen()
    bars = NotebookBars(screen.display)
    show = draw_events(bars)
    for output in range(40):
        show(OutputProgressed(output, 0.5))
        if output < 35:
            show(OutputFinished(output, ParetoFront([])))
    bars.draw()
    assert all(f"output {output}<" in screen.shown[-1] for output in range(35, 40))
    assert "and 28 more" in screen.shown[-1]


def test_nothing_was_drawn_where_nothing_happened() -> None:
    screen = Screen()
    with show_notebook_bars(screen.display):
        pass
    assert screen.shown == []


def test_a_notebook_is_known_by_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        pass

    shells, ipython = ModuleType("ipykernel.zmqshell"), ModuleType("IPython")
    shells.ZMQInteractiveShell = Shell  # type: ignore[attr-defined]
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    assert find_display() is None
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert find_display() is None  # IPython in a terminal
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", shells)
    assert find_display() is None
    screen = Screen()

    class Handle:
        update = staticmethod(screen.display)

    def display_html(text: str, display_id: bool) -> Handle:
        assert display_id
        screen.display(text)
        return Handle()

    display = ModuleType("IPython.display")
    display.HTML = str  # type: ignore[attr-defined]
    display.display = display_html  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    ipython.get_ipython = Shell  # type: ignore[attr-defined]
    with progress_bars() as show:
        show(StageStarted("regress", total=1))
    assert len(screen.shown) == 2
    assert "regress" in screen.shown[0]


def test_the_core_does_not_import_ipython() -> None:
    code = "import sys, symtorch_core.events; sys.exit('IPython' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
