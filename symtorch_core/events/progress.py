"""Progress bars in the terminal and in notebooks, driven by events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from symtorch_core.events.bars import Bars, round_numbers, to_label, to_line
from symtorch_core.events.notebook import find_display, show_notebook_bars
from symtorch_core.events.records import (
    Callback,
    Event,
    OutputFinished,
    OutputImproved,
    OutputProgressed,
    StageAdvanced,
    StageFinished,
    StageStarted,
    StageTold,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


@contextmanager
def progress_bars(console: Console | None = None) -> Iterator[Callback]:
    """Yield a callback that draws a bar for each stage and each output in the search, with its best equation.

    In a terminal, bars disappear at the end of the stage; in a notebook they stay, as one table. Nothing is drawn
    elsewhere.

    Args:
        console: console to draw on; the notebook or standard error by default.
    """
    display = find_display() if console is None else None
    if display is not None:
        with show_notebook_bars(display) as bars:
            yield draw_events(bars)
        return
    from rich.console import Console  # slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield draw_events(TerminalBars(progress))


def draw_events(bars: Bars) -> Callback:
    """Return a callback that draws events as bars: one for each stage, and one for each output in the search."""
    stages: set[str] = set()
    outputs: set[int] = set()
    lowest: dict[int, float] = {}

    def show(event: Event) -> None:
        match event:
            case StageStarted(stage, total):
                stages.add(stage)
                bars.add(stage, total)
            case StageAdvanced(stage, steps) if stage in stages:
                bars.advance(stage, steps)
            case StageTold(stage, text) if stage in stages:
                bars.tell(stage, text)
            case StageFinished(stage, _) if stage in stages:
                stages.remove(stage)
                bars.end(stage)
            case OutputProgressed(output, fraction):
                add_output(output)
                bars.complete(output, round(100 * fraction))
            case OutputImproved(output, equation, loss) if loss < lowest.get(output, float("inf")):
                lowest[output] = loss
                add_output(output)
                bars.tell(output, f"{loss:.4g}  {round_numbers(equation)}")
            case OutputFinished(output, _):
                if output in outputs:
                    outputs.remove(output)
                    bars.end(output)
                if "regress" in stages:
                    bars.advance("regress", 1)

    def add_output(output: int) -> None:
        if output not in outputs:
            outputs.add(output)
            bars.add(output, 100)

    return show


@final
class TerminalBars(Bars):
    """Bars of rich, in a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str | int, TaskID] = {}

    def add(self, label: str | int, total: int | None) -> None:
        self._tasks[label] = self._progress.add_task(to_label(label), total=total, note="")

    def advance(self, label: str | int, steps: int) -> None:
        self._progress.advance(self._tasks[label], steps)

    def complete(self, label: str | int, steps: int) -> None:
        self._progress.update(self._tasks[label], completed=steps)

    def tell(self, label: str | int, note: str) -> None:
        self._progress.update(self._tasks[label], note=to_line(note))

    def end(self, label: str | int) -> None:
        self._progress.remove_task(self._tasks.pop(label))
