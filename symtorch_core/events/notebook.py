"""Progress bars in a notebook: one table of HTML, drawn again in its place."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

from markupsafe import Markup

from symtorch_core.events.bars import Bars, to_label, to_line
from symtorch_core.events.records import Stopwatch

_SECONDS_BETWEEN = 0.25
_MOST_OUTPUTS = 12
_CELL = "border:0;padding:1px 10px 1px 0;text-align:left;white-space:nowrap"


def find_display() -> Callable[[str], Callable[[str], None]] | None:
    """Return a function that shows HTML in the notebook and returns another one that replaces it; None elsewhere.

    A notebook has imported IPython and started a kernel; nothing is imported to find out.
    """
    shells = sys.modules.get("ipykernel.zmqshell")
    ipython = sys.modules.get("IPython")
    if shells is None or ipython is None or not isinstance(ipython.get_ipython(), shells.ZMQInteractiveShell):
        return None
    screen: Any = importlib.import_module("IPython.display")  # no dependency: whoever has a notebook has it

    def show(text: str) -> Callable[[str], None]:
        handle = screen.display(screen.HTML(text), display_id=True)
        return lambda again: handle.update(screen.HTML(again))

    return show


@contextmanager
def show_notebook_bars(display: Callable[[str], Callable[[str], None]]) -> Iterator[Bars]:
    """Show bars in the notebook as they change, a few times a second, and once more at the end.

    Args:
        display: what :func:`find_display` returned.
    """
    bars = NotebookBars(display)
    try:
        yield bars
    finally:
        bars.draw()


@final
@dataclass
class _Bar:
    total: int | None
    done: int = 0
    note: str = ""
    seconds: float | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)


@final
class NotebookBars(Bars):
    """Bars as a table of HTML, which stay when they have ended.

    Args:
        display: shows HTML, and returns a function that replaces it.
    """

    def __init__(self, display: Callable[[str], Callable[[str], None]]) -> None:
        self._display = display
        self._replace: Callable[[str], None] | None = None
        self._bars: dict[str | int, _Bar] = {}
        self._next = 0.0

    def add(self, label: str | int, total: int | None) -> None:
        self._bars.pop(label, None)  # a stage may run again: it is then the last
        self._bars[label] = _Bar(total)
        self._draw_at_times()

    def advance(self, label: str | int, steps: int) -> None:
        self._bars[label].done += steps
        self._draw_at_times()

    def complete(self, label: str | int, steps: int) -> None:
        self._bars[label].done = steps
        self._draw_at_times()

    def tell(self, label: str | int, note: str) -> None:
        self._bars[label].note = note
        self._draw_at_times()

    def end(self, label: str | int) -> None:
        bar = self._bars[label]
        bar.seconds = bar.watch.seconds()
        self._draw_at_times()

    def draw(self) -> None:
        """Draw the bars as they are; nothing if there has been none."""
        if not self._bars:
            return
        text = self._render()
        if self._replace is None:
            self._replace = self._display(text)
        else:
            self._replace(text)
        self._next = time.monotonic() + _SECONDS_BETWEEN

    def _draw_at_times(self) -> None:
        if time.monotonic() >= self._next:
            self.draw()

    def _render(self) -> str:
        outputs = [label for label in self._bars if isinstance(label, int)]
        # Those in work come first, since they change.
        outputs.sort(key=lambda label: self._bars[label].seconds is not None)
        shown = set(outputs[:_MOST_OUTPUTS])
        rows = [
            _render_row(label, bar)
            for label, bar in self._bars.items()
            if isinstance(label, str) or label in shown
        ]
        if len(outputs) > _MOST_OUTPUTS:
            rows.append(
                f'<tr><td colspan="4" style="{_CELL}">and {len(outputs) - _MOST_OUTPUTS} more</td></tr>'
            )
        return f'<table style="font-size:0.9em;border:0">{"".join(rows)}</table>'


def _render_row(label: str | int, bar: _Bar) -> str:
    ended = bar.seconds is not None
    share = 1.0 if ended else min(1.0, bar.done / bar.total) if bar.total else 0.0
    count = "" if bar.total is None else f"{bar.done}/{bar.total}"
    seconds = bar.watch.seconds() if bar.seconds is None else bar.seconds
    fill = f"background:{'#15803d' if ended else '#1f6feb'};height:8px;border-radius:4px;width:{100 * share:.0f}%"
    track = "background:rgba(128,128,128,0.3);border-radius:4px;width:10em"
    note = Markup("<code>{}</code>").format(to_line(bar.note)) if bar.note else ""
    return Markup(
        f'<tr style="background:none"><td style="{_CELL}">{{}}</td>'
        f'<td style="{_CELL}"><div style="{track}"><div style="{fill}"></div></div></td>'
        f'<td style="{_CELL}">{{}}</td><td style="{_CELL}">{{}}</td></tr>'
    ).format(
        to_label(label).replace("  ", "\u2003"),
        " ".join(part for part in (count, f"{seconds:.1f} s") if part),
        note,
    )
