"""The parts of a page, as plain data; studies build pages of their own from the same parts."""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from sympy.printing.mathml import mathml

from symtorch_core.components.escaping import escape_html, make_python_names, show_hidden
from symtorch_core.expressions import Expression, Variable, substitute, to_text, variables
from symtorch_core.expressions.printing import name_to_symbol, to_latex, typeset_with
from symtorch_core.storage.files import write_text

_TEMPLATES = "symtorch_core.views.templates"
_TIMES = ("<mo>&InvisibleTimes;</mo>", '<mo lspace="0" rspace="0.16em">&InvisibleTimes;</mo>')
"""A space like that of LaTeX's operators: without it, mass times θ reads like one word."""
_MINUS = ("<mo>-</mo>", "<mo>\N{MINUS SIGN}</mo>")


class Part(ABC):  # noqa: B024 - a family of records with nothing to implement
    """Part of a page."""


@final
@dataclass(frozen=True)
class Equation(Part):
    """Typeset name = expression, with buttons that copy it.

    Attributes:
        name: left-hand side.
        name_math: MathML of the left-hand side.
        math: MathML of the right-hand side.
        latex, sympy, python, text: texts that the buttons copy.
    """

    name: str
    name_math: Markup
    math: Markup
    latex: str
    sympy: str
    python: str
    text: str

    @classmethod
    def of(cls, name: str, expression: Expression, digits: int = 4) -> Equation:
        """Build the part from an expression of the core."""
        from symtorch_core.exports.code import PYTHON, to_program  # the formats need the expressions first

        python_names = make_python_names(variables(expression), taken=("np", "math"))
        renamed = substitute(expression, {name: Variable(other) for name, other in python_names.items()})
        program = to_program([expression], PYTHON, python_names)
        steps = [f"{step} = {code}" for step, code in program.steps]
        return cls(
            name=name,
            name_math=render_name(name),
            math=render_math(expression, digits),
            latex=to_latex(expression, digits),
            sympy=typeset_with(str, renamed, None) or to_text(renamed),
            python="\n".join([*steps, *program.results]),
            text=to_text(expression),
        )


@final
@dataclass(frozen=True)
class Table(Part):
    """Table of text.

    Attributes:
        headings: headings of the columns.
        rows: cells as text.
        caption: text above the table; empty for none.
        numbers: whether all columns but the first hold numbers, which are aligned to the right.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    numbers: bool = True


@final
@dataclass(frozen=True)
class Figure(Part):
    """Figure as inline SVG from :func:`symtorch_core.studies.render_svg`; ``wide``: as wide as the page."""

    svg: Markup
    caption: str = ""
    wide: bool = False


@final
@dataclass(frozen=True)
class Following:
    """Figure of which one line, or the dots of one cloud, follow the equation that the reader chose.

    Attributes:
        key: id of the SVG's group that holds the path.
        svg: the figure, with the path of the equation shown first.
        caption: text above it.
        dots: whether the points are drawn as dots, not as a line.
        xs: positions of the points, in tenths of the SVG's unit.
        ys: for each equation, positions of its points; None where it has no finite value.
    """

    key: str
    svg: Markup
    caption: str
    dots: bool
    xs: tuple[int, ...]
    ys: tuple[tuple[int | None, ...], ...]

    def data(self) -> str:
        """Return what the page's script draws, as JSON: numbers only."""
        return json.dumps({"dots": self.dots, "xs": self.xs, "ys": self.ys}, separators=(",", ":"))


@final
@dataclass(frozen=True)
class Front(Part):
    """Pareto front whose points the reader can choose.

    Attributes:
        key: key of the front, unique on the page; the SVG's marks are called ``{key}-{number}``.
        svg: the plot.
        points: entries shown on a click, in the order of the marks.
        chosen: index of the point shown first.
        fit: figure that follows the choice; None for none.
    """

    key: str
    svg: Markup
    points: tuple[Point, ...]
    chosen: int
    fit: Following | None = None


@final
@dataclass(frozen=True)
class Point:
    """One equation of a front, as shown on a page; ``r2`` is written above the figure that follows it."""

    equation: Equation
    facts: tuple[tuple[str, str], ...]
    r2: str = ""


@final
@dataclass(frozen=True)
class Formulas(Part):
    """Formulas in large print, side by side, each with a note below and, if it is not empty, a link to a section."""

    entries: tuple[tuple[Equation, str, str], ...]


@final
@dataclass(frozen=True)
class Bars(Part):
    """Bars for named shares between 0 and 1; ``wide``: as wide as the page."""

    caption: str
    shares: tuple[tuple[str, float], ...]
    wide: bool = True


@final
@dataclass(frozen=True)
class Text(Part):
    """Paragraph of text, which is red with ``is_warning``."""

    text: str
    is_warning: bool = False


@final
@dataclass(frozen=True)
class Section:
    """Headline, none if it is empty, and the parts below it; links go to its ``key``."""

    title: str
    parts: tuple[Part, ...]
    key: str = ""


@final
@dataclass(frozen=True)
class Page:
    """Page that opens from disk, without a network.

    Attributes:
        title: text of the headline and the browser's tab.
        subtitle: line below the title.
        sections: sections from top to bottom.
        footer: small print.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    footer: str = ""

    def html(self) -> str:
        """Return the page as one self-contained HTML document; all text is escaped."""
        return render_template("page.html.j2", page=self)

    def write(self, path: Path | str) -> Path:
        """Write the document to a file, and return its path."""
        path = Path(path)
        document = self.html()
        write_text(path, document)
        return path


def render_math(expression: Expression, digits: int = 4) -> Markup:
    """Return an expression as MathML, ready for a page; one that is too large to be typeset, as text in MathML."""
    typeset = typeset_with(lambda part: str(mathml(part, printer="presentation")), expression, digits)
    if typeset is None:
        return _wrap_math(Markup("<mtext>{}</mtext>").format(to_text(expression, digits)))
    return _wrap_math(Markup(typeset.replace(*_TIMES).replace(*_MINUS)))


def render_name(name: str) -> Markup:
    """Return a name as MathML, with subscripts and Greek letters where it has that form."""
    symbol = name_to_symbol(name)
    if symbol is None:
        return _wrap_math(Markup("<mtext>{}</mtext>").format(show_hidden(name)))
    return _wrap_math(Markup(mathml(symbol, printer="presentation")))


def _wrap_math(inner: Markup) -> Markup:
    return Markup('<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">{}</math>').format(inner)


def to_table_rows(pairs: Sequence[tuple[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """Return pairs as rows of a table, without empty ones."""
    return tuple((name, str(value)) for name, value in pairs if str(value))


def render_template(name: str, **values: object) -> str:
    """Return a template of the package, filled in; all text is escaped, and style and script of the page are known."""
    environment = Environment(
        loader=FunctionLoader(_read_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escape_html,
    )
    environment.tests["kind"] = lambda part, name: type(part).__name__ == name
    style, script = (Markup(_read_template(file)) for file in ("page.css", "page.js"))
    return environment.get_template(name).render(style=style, script=script, **values)


def _read_template(name: str) -> str:
    return resources.files(_TEMPLATES).joinpath(name).read_text(encoding="utf-8")
