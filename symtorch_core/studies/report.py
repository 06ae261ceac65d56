"""The parts of a study's report: claims, drawings, and a chapter for each thing that was studied."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from markupsafe import Markup
from rich.table import Column
from rich.table import Table as TerminalTable

from symtorch_core.components.escaping import escape_plot
from symtorch_core.storage.files import write_whole
from symtorch_core.views.figures import render_svg
from symtorch_core.views.page_parts import Figure, Part, Table
from symtorch_core.views.terminal import to_text_cell

_WIDE = 8.0
_MOST_IN_CAPTION = 200


@final
@dataclass(frozen=True)
class Claim:
    """Something that a study was asked to show, or that a paper says, and what came out.

    Attributes:
        text: what it is about.
        asked: the figure or statement to reach.
        reached: what came out.
        met: whether that is as good; None where nothing was asked.
    """

    text: str
    asked: str
    reached: str
    met: bool | None = None


@final
@dataclass(frozen=True)
class Drawing:
    """A figure that can be put on a page and written as PNG.

    Attributes:
        draw: draws on the axes it is given.
        caption: above it.
        width, height: in inches; a figure wider than 8 takes the whole width of a page.
    """

    draw: Callable[[Any], Any]
    caption: str = ""
    width: float = 5.2
    height: float = 3.6

    def part(self) -> Figure:
        """Draw the figure for a page.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        drawn = render_svg(self.draw, width=self.width, height=self.height, label=self.caption)
        return Figure(Markup(drawn), self.caption, wide=self.width > _WIDE)

    def png(self, path: Path, *, dots_per_inch: int = 150) -> None:
        """Write the figure as PNG.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        from symtorch_core.views.plots import check_matplotlib

        check_matplotlib()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        figure = Canvas(figsize=(self.width, self.height), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
        self.draw(ax)
        if self.caption:
            ax.set_title(escape_plot(self.caption, _MOST_IN_CAPTION), fontsize="medium")
        with write_whole(path) as unfinished:
            figure.savefig(unfinished, dpi=dots_per_inch, format="png")


@final
@dataclass(frozen=True)
class Chapter:
    """One of the problems, networks or tasks of a study, as its report shows it.

    Attributes:
        name: first part of the file names of its drawings.
        title: headline on the page.
        drawings: kind -> figure; written as ``NAME-KIND.png``.
        parts: on the page.
    """

    name: str
    title: str
    drawings: Mapping[str, Drawing]
    parts: Sequence[Part]


def build_footer(versions: Mapping[str, str]) -> str:
    """Return the small print of a report: versions of packages, and the machine.

    >>> build_footer({"torch": "2.9", "sympy": "1.14"})  # doctest: +ELLIPSIS
    'torch 2.9, sympy 1.14, ...'
    """
    return ", ".join([*(f"{name} {version}" for name, version in versions.items()), platform.machine()])


def build_claims_table(claims: Sequence[Claim], caption: str = "") -> Table:
    """Return claims as a table."""
    met = {True: "yes", False: "NO", None: ""}
    rows = tuple((claim.text, claim.asked, claim.reached, met[claim.met]) for claim in claims)
    return Table(("what", "asked", "reached", ""), rows, caption, numbers=False)


def build_terminal_table(table: Table) -> TerminalTable:
    """Return a table for the terminal."""
    shown = TerminalTable(
        *(Column(to_text_cell(name), overflow="fold") for name in table.headings),
        title=to_text_cell(table.caption),
    )
    for row in table.rows:
        shown.add_row(*map(to_text_cell, row))
    return shown
