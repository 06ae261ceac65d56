"""Notebook views: the equations and tables of a page, without its scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from symtorch_core.components.escaping import escape_html
from symtorch_core.search.fidelity import Fidelity
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.views.page_parts import read_template, render_math

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_MOST_FRONTS = 8


def render_front(front: ParetoFront, chosen: Candidate | None = None, *, is_worse: bool = False) -> str:
    """Return a front as an HTML table with typeset equations; all text is escaped.

    The chosen equation is red with ``is_worse``, where it does worse than a constant.
    """
    rows = [
        {
            "chosen": candidate == chosen,
            "complexity": candidate.complexity,
            "loss": f"{candidate.loss:.4g}",
            "held_out": "" if candidate.validation_loss is None else f"{candidate.validation_loss:.4g}",
            "score": f"{candidate.score:.3f}",
            "math": render_math(candidate.expression),
        }
        for candidate in front
    ]
    return _render_template("front.html.j2", rows=rows, unrunnable=front.unrunnable, is_worse=is_worse)


def render_result(result: Distillation) -> str:
    """Return a distillation as HTML: its fronts and its fidelity."""
    chosen, worse = result.chosen(), result.find_worse_than_constant()
    fronts = [
        (name, Markup(render_front(front, chosen[number], is_worse=number in worse)))
        for number, (name, front) in enumerate(zip(result.equation_names, result.fronts, strict=True))
    ]
    measured = any(entry.truth is not None for entry in result.fidelity)
    fidelity = [
        (
            name,
            *map(_format_r2, (entry.train, entry.held_out, entry.linear, entry.out_of_range)),
            *([_format_r2(entry.truth)] if measured else []),
        )
        for name, entry in zip(result.output_names, result.fidelity, strict=True)
    ]
    return _render_template(
        "result.html.j2",
        fronts=fronts[:_MOST_FRONTS],
        more=max(0, len(fronts) - _MOST_FRONTS),
        fidelity=fidelity,
        measured=measured,
    )


def _format_r2(entry: Fidelity | None) -> str:
    return "–" if entry is None else f"{entry.r2:.5f}"


def _render_template(name: str, **values: object) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=escape_html)
    return environment.from_string(read_template(name)).render(values)
