"""Studies: experiments that a user starts by name, and what they report (``symtorch run NAME``).

A study trains or loads models, distills them, and says what came out beside what was asked or published. It is
written on the public API alone, so that anybody can ship one.
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
    """An experiment with declared options.

    A study that can be run is a frozen dataclass with a ``name``. Its fields are the options of
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
        """Do the experiment.

        Args:
            folder: where models and finished searches are kept at once, so that a run that was stopped goes on when it
                is started again with the same options. It exists.
            callbacks: told of every :class:`symtorch_core.events.records.Event`.

        Returns:
            What came out. Nothing of the report is written yet.
        """


def setting(default: Any, help: str) -> Any:
    """A field of a study, with the help that ``symtorch run NAME --help`` shows."""
    return field(default=default, metadata={"help": help})


def require_finished(result: Distillation) -> Distillation:
    """The distillation, if its search was not stopped: half a search must not be reported as a whole one.

    Raises:
        BackendError: the search was stopped, by the user or by a failure.
    """
    if result.interrupted:
        raise BackendError(
            "the study was stopped in a search; what was finished is kept: run it again with the same options to go on"
        )
    return result


@final
@dataclass(frozen=True)
class Claim:
    """Something that a study was asked to show, or that a paper says, and what came out.

    Attributes:
        text: what it is about.
        asked: the figure or statement to reach.
        reached: what came out.
        met: whether that is as good; None where it is only told.
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
        width, height: in inches; wider than 8, it takes the whole width of a page.
    """

    draw: Callable[[Any], Any]
    caption: str = ""
    width: float = 5.2
    height: float = 3.6

    def part(self) -> Figure:
        """The figure for a page.

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
            ax.set_title(self.caption, fontsize="medium")
        figure.savefig(path, dpi=dots_per_inch)


@final
@dataclass(frozen=True)
class StudyReport:
    """What a study found.

    Attributes:
        name: of the study.
        title, subtitle: of the page.
        claims: what was asked beside what was reached.
        tables: file name without ending -> table; the first ones are what a reader looks for.
        drawings: file name without ending -> figure.
        sections: of the page, after the claims.
        figures: everything that was measured, as JSON data.
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
        """The page: claims, then the study's own sections."""
        claims = Section("What was asked, and what came out", (_to_claims_table(self.claims),))
        first = (claims,) if self.claims else ()
        return Page(self.title, self.subtitle, (*first, *self.sections), self.footer)

    def write(self, folder: Path | str) -> Path:
        """Write ``report.html``, ``figures.json``, a CSV for each table and a PNG for each drawing.

        Returns:
            The page.

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
        """The first table, and the claims; of many claims, how many are met and which are not."""
        shown = (
            self.claims if len(self.claims) <= _CLAIMS_SHOWN else [c for c in self.claims if c.met is False]
        )
        judged = [claim.met for claim in self.claims if claim.met is not None]
        return Group(
            *(_to_terminal_table(table) for table in list(self.tables.values())[:1]),
            *((_to_terminal_table(_to_claims_table(shown, self.title)),) if shown else ()),
            *((f"{sum(judged)} of {len(judged)} claims are met",) if judged else ()),
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
