"""Studies: experiments that a user starts by name, and what they report (``symtorch run NAME``).

A study trains or loads models, distills them, and says what came out beside what was asked or published. It is
written on the public API alone, so that anybody can ship one.
"""

from __future__ import annotations

import csv
import io
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, final

from rich.console import Group, RenderableType

from symtorch_core.components.checks import check_choice
from symtorch_core.components.escaping import escape_csv
from symtorch_core.components.options import Configurable
from symtorch_core.errors import BackendError
from symtorch_core.events.records import Callback
from symtorch_core.storage.files import write_text
from symtorch_core.studies.report import (
    Chapter,
    Claim,
    Drawing,
    build_claims_table,
    build_footer,
    build_terminal_table,
)
from symtorch_core.views.page_parts import Page, Section, Table

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_CLAIMS_SHOWN = 12
_ALL = "all"

_Entry = TypeVar("_Entry")


class Study(Configurable):
    """An experiment with declared options.

    A study that can be run is a frozen dataclass with a ``name``. Its fields are the options of
    ``symtorch run NAME``; :func:`setting` declares one with its help. The class docstring's first line is the help of
    the command. A study that can do more or less work has a field ``scale``; ``scales`` says what each one means.

    Attributes:
        scales: name of a scale -> its settings, of any type.
        presets: name of a preset -> values of some options; ``symtorch run NAME --preset PRESET`` starts from them.

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

    scales: ClassVar[Mapping[str, Any]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def with_preset(cls, preset: str, options: Mapping[str, Any]) -> Self:
        """Build a study with the options of a preset, and other options, which count before those of the preset.

        Raises:
            SearchError: there is no such preset, or an option is unknown or invalid.
        """
        check_choice(f"preset of {cls.name}", preset, cls.presets)
        return cls.with_options({**cls.presets[preset], **options})

    @property
    def settings(self) -> Any:
        """Settings of the chosen scale.

        Raises:
            SearchError: there is no such scale.
        """
        self.one_of(self.scales, "scale")
        return self.scales[getattr(self, "scale")]  # noqa: B009 - a field of those studies that have scales

    def expand(self, option: str, table: Mapping[str, _Entry]) -> list[_Entry]:
        """Return the entry of a table that an option names; for ``"all"``, every entry.

        Raises:
            SearchError: there is no such entry; the message lists those there are.
        """
        self.one_of([*table, _ALL], option)
        chosen = getattr(self, option)
        return list(table.values()) if chosen == _ALL else [table[chosen]]

    @abstractmethod
    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Do the experiment and return its report; nothing of the report is written yet.

        Args:
            folder: where models and finished searches are kept, each as soon as it is finished. A run that was
                stopped goes on when it is started again with the same options. The folder exists.
            callbacks: told of every :class:`symtorch_core.events.Event`.
        """


def setting(default: Any, help: str) -> Any:
    """Declare a field of a study, with the help that ``symtorch run NAME --help`` shows."""
    return field(default=default, metadata={"help": help})


def require_finished(result: Distillation) -> Distillation:
    """Return the distillation, unless its search was stopped: half a search must not be reported as a whole one.

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

    @classmethod
    def of_chapters(
        cls,
        name: str,
        title: str,
        chapters: Sequence[Chapter],
        *,
        overview: str,
        subtitle: str = "",
        claims: Sequence[Claim] = (),
        tables: Mapping[str, Table],
        figures: Mapping[str, Any],
        versions: Mapping[str, str],
    ) -> StudyReport:
        """Build a report whose page has the tables first, then a section for each chapter.

        Args:
            name, title, subtitle, claims, tables, figures: as the attributes.
            chapters: what was studied, one after the other.
            overview: headline above the tables.
            versions: package -> version, for the small print.
        """
        return cls(
            name=name,
            title=title,
            subtitle=subtitle,
            claims=claims,
            tables=tables,
            drawings={f"{part.name}-{kind}": one for part in chapters for kind, one in part.drawings.items()},
            sections=[
                Section(overview, tuple(tables.values())),
                *(Section(part.title, tuple(part.parts)) for part in chapters),
            ],
            figures=figures,
            footer=build_footer(versions),
        )

    def page(self) -> Page:
        """Return the page: claims, then the study's own sections."""
        claims = Section("What was asked, and what came out", (build_claims_table(self.claims),))
        first = (claims,) if self.claims else ()
        return Page(self.title, self.subtitle, (*first, *self.sections), self.footer)

    def write(self, folder: Path | str) -> Path:
        """Write ``report.html``, ``figures.json``, a CSV for each table and a PNG for each drawing.

        Returns:
            Path of the page.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "figures.json", _to_json(self))
        for stem, table in self.tables.items():
            write_text(folder / f"{stem}.csv", _to_csv(table))
        for stem, drawing in self.drawings.items():
            drawing.png(folder / f"{stem}.png")
        return self.page().write(folder / "report.html")

    def __rich__(self) -> RenderableType:
        """Return the first table and the claims; of many claims, only the count and the unmet ones."""
        shown = (
            self.claims if len(self.claims) <= _CLAIMS_SHOWN else [c for c in self.claims if c.met is False]
        )
        judged = [claim.met for claim in self.claims if claim.met is not None]
        return Group(
            *(build_terminal_table(table) for table in list(self.tables.values())[:1]),
            *((build_terminal_table(build_claims_table(shown, self.title)),) if shown else ()),
            *((f"{sum(judged)} of {len(judged)} claims are met",) if judged else ()),
        )


def _to_csv(table: Table) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([escape_csv(cell) for cell in row] for row in (table.headings, *table.rows))
    return text.getvalue()


def _to_json(report: StudyReport) -> str:
    claims = [vars(claim) for claim in report.claims]
    return json.dumps({"study": report.name, "claims": claims, **report.figures}, indent=1)
