"""Studies: experiments that a user starts by name (``symtorch run NAME``), and their reports.

A study trains or loads models, distills them, and reports its results beside the published ones. It is written on
the public API only, so that anybody can publish one.
"""

from __future__ import annotations

import csv
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.table import Column
from rich.table import Table as TerminalTable
from rich.text import Text as TerminalText

from symtorch_core.components.options import Configurable
from symtorch_core.errors import BackendError
from symtorch_core.events.records import Callback
from symtorch_core.views.figures import render_svg
from symtorch_core.views.page_parts import Figure, Page, Section, Table

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_WIDE = 8.0
_CLAIMS_SHOWN = 12


class Study(Configurable):
    """Experiment with declared options.

    A concrete study is a frozen dataclass with a ``name``. Its fields are the options of
    ``symtorch run NAME``; :func:`setting` declares one with its help. The class docstring's first line is the help of
    the command.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> @dataclass(frozen=True)
    ... class Coin(Study):
    ...     '''Is the coin fair?'''
    ...     name: ClassVar[str] = "coin"
    ...     tosses: int = setting(100, "How often to toss.")
    ...     def run(self, folder, callbacks=()):
    ...         share = 0.5
    ...         return StudyReport("coin", "Coin", claims=[Claim("fair", "0.5", f"{share}", True)])
    >>> Coin.with_options({"tosses": 10}).run(Path(".")).claims[0].met
    True
    """

    @abstractmethod
    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Run the experiment.

        Args:
            folder: existing folder where models and finished searches are saved at once, so that a stopped run
                continues when it is started again with the same options.
            callbacks: called with every :class:`symtorch_core.events.records.Event`.

        Returns:
            The report. Nothing of it is written yet.
        """


def setting(default: Any, help: str) -> Any:
    """Declare a field of a study, with its help in ``symtorch run NAME --help``."""
    return field(default=default, metadata={"help": help})


def require_finished(result: Distillation) -> Distillation:
    """Return a distillation whose search was not stopped: half a search must not be reported as a complete one.

    Raises:
        BackendError: the search was stopped, by the user or by a failure.
    """
    if result.interrupted:
        raise BackendError(
            "the study was stopped in a search; finished work is kept: run it again with the same options to continue"
        )
    return result


@final
@dataclass(frozen=True)
class Claim:
    """Result that a study should reach or that a paper reports, beside the result reached.

    Attributes:
        text: description of the result.
        asked: figure or statement to reach.
        reached: figure or statement reached.
        met: whether the claim is met; None if it is reported only.
    """

    text: str
    asked: str
    reached: str
    met: bool | None = None


@final
@dataclass(frozen=True)
class Drawing:
    """Figure for a page and for a PNG file.

    Attributes:
        draw: function that draws on the axes it receives.
        caption: text above the figure.
        width, height: size in inches; a figure wider than 8 takes the whole width of a page.
    """

    draw: Callable[[Any], Any]
    caption: str = ""
    width: float = 5.2
    height: float = 3.6

    def part(self) -> Figure:
        """Return the figure for a page.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        svg = render_svg(self.draw, width=self.width, height=self.height, label=self.caption)
        return Figure(Markup(svg), self.caption, wide=self.width > _WIDE)

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
            ax.set_title(self.caption, fontsize="medium")
        figure.savefig(path, dpi=dots_per_inch)


@final
@dataclass(frozen=True)
class StudyReport:
    """Report of a study.

    Attributes:
        name: name of the study.
        title, subtitle: title and subtitle of the page.
        claims: results to reach beside results reached.
        tables: file name without ending -> table, the most important first.
        drawings: file name without ending -> figure.
        sections: sections of the page after the claims.
        figures: all measurements, as JSON data.
        footer: small print: versions, machine.
    """

    name: str
    title: str
    subtitle: str = ""
    claims: Sequence[Claim] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    drawings: Mapping[str, Drawing] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    footer: str = ""

    def page(self) -> Page:
        """Build the page: claims, then the study's own sections."""
        claims = Section("What was asked, and what came out", (_to_claims_table(self.claims),))
        first = (claims,) if self.claims else ()
        return Page(self.title, self.subtitle, (*first, *self.sections), self.footer)

    def write(self, folder: Path | str) -> Path:
        """Write ``report.html``, ``figures.json``, a CSV for each table and a PNG for each drawing.

        Returns:
            The path of the page.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath("figures.json").write_text(_to_json(self), encoding="utf-8")
        for stem, table in self.tables.items():
            with folder.joinpath(f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([table.headings, *table.rows])
        for stem, drawing in self.drawings.items():
            drawing.png(folder / f"{stem}.png")
        return self.page().write(folder / "report.html")

    def __rich__(self) -> RenderableType:
        """Return the first table and the claims; of many claims, only the count and the unmet ones."""
        shown = (
            self.claims if len(self.claims) <= _CLAIMS_SHOWN else [c for c in self.claims if c.met is False]
        )
        outcomes = [claim.met for claim in self.claims if claim.met is not None]
        return Group(
            *(_to_terminal_table(table) for table in list(self.tables.values())[:1]),
            *((_to_terminal_table(_to_claims_table(shown, self.title)),) if shown else ()),
            *((f"{sum(outcomes)} of {len(outcomes)} claims are met",) if outcomes else ()),
        )


def _to_claims_table(claims: Sequence[Claim], caption: str = "") -> Table:
    met = {True: "yes", False: "NO", None: ""}
    rows = tuple((claim.text, claim.asked, claim.reached, met[claim.met]) for claim in claims)
    return Table(("what", "asked", "reached", ""), rows, caption, numbers=False)


def _to_terminal_table(table: Table) -> TerminalTable:
    shown = TerminalTable(
        *(Column(TerminalText(name), overflow="fold") for name in table.headings),
        title=TerminalText(table.caption),
    )
    for row in table.rows:
        shown.add_row(*map(TerminalText, row))  # Text: names may hold brackets, which are no markup
    return shown


def _to_json(report: StudyReport) -> str:
    claims = [vars(claim) for claim in report.claims]
    return json.dumps({"study": report.name, "claims": claims, **report.figures}, indent=1)
