"""Progress bars, drawn into a terminal that is not there."""

from __future__ import annotations

import io

from rich.console import Console

from symtorch_core.events.progress import progress_bars
from symtorch_core.events.records import (
    OutputImproved,
    OutputProgressed,
    StageFinished,
    StageStarted,
    StageTold,
)


def test_what_a_stage_is_busy_with_is_shown_and_brackets_are_no_markup() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200, color_system=None)
    with progress_bars(console) as show:
        show(StageStarted("regress", total=1))
        show(StageTold("regress", "starting Julia [juliapkg] " + 100 * "x"))
        show(OutputProgressed(0, 0.5))
        show(OutputImproved(0, "2*x0", 0.25))
        show(StageTold("unknown stage", "nothing"))
        show(StageFinished("regress", 1.0))
    assert "starting Julia [juliapkg] xxx" in screen.getvalue()
    assert 80 * "x" not in screen.getvalue()
    assert "0.25  2*x0" in screen.getvalue()
    assert "nothing" not in screen.getvalue()
