"""Progress bars in the terminal, driven by events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from symtorch_core.components.escaping import shorten, show_hidden
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
    from rich.progress import TaskID

_SHOWN = 70


@contextmanager
def progress_bars(console: Console | None = None) -> Iterator[Callback]:
    """Yield a callback that draws a bar for each stage and each output in the search, with its best equation.

    Bars disappear at the end of the stage. Nothing is drawn if the console is not a terminal.

    Args:
        console: console to draw on; standard error by default.
    """
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
    stages: dict[str, TaskID] = {}
    outputs: dict[int, TaskID] = {}
    lowest: dict[int, float] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def show(event: Event) -> None:
            match event:
                case StageStarted(stage, total):
                    stages[stage] = bars.add_task(_to_line(stage), total=total, note="")
                case StageAdvanced(stage, steps) if stage in stages:
                    bars.advance(stages[stage], steps)
                case StageTold(stage, text) if stage in stages:
                    bars.update(stages[stage], note=_to_line(text))
                case StageFinished(stage, _) if stage in stages:
                    bars.remove_task(stages.pop(stage))
                case OutputProgressed(output, fraction):
                    bars.update(_get_task(output), completed=round(100 * fraction))
                case OutputImproved(output, equation, loss) if loss < lowest.get(output, float("inf")):
                    lowest[output] = loss
                    bars.update(_get_task(output), note=_to_line(f"{loss:.3g}  {equation}"))
                case OutputFinished(output, _):
                    if output in outputs:
                        bars.remove_task(outputs.pop(output))
                    if "regress" in stages:
                        bars.advance(stages["regress"])

        def _get_task(output: int) -> TaskID:
            if output not in outputs:
                outputs[output] = bars.add_task(f"  output {output}", total=100, note="")
            return outputs[output]

        yield show


def _to_line(text: str) -> str:
    return show_hidden(shorten(text, _SHOWN))
