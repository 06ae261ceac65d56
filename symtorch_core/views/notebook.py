"""Notebook views: the chosen equations, fronts as tables, and a front to slide along."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from markupsafe import Markup

from symtorch_core.components.escaping import show_hidden
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.views.page_fronts import build_equation_front, get_equation_rows
from symtorch_core.views.page_parts import Equation, Front, render_math, render_template
from symtorch_core.views.wording import (
    count,
    describe_equations,
    describe_left_out,
    describe_truth,
    explain_out_of_range,
)

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_MOST_EQUATIONS = 8
_NEXT = (
    "explore() slides along a front, front() lists it, report(path) writes a page, print() shows everything."
)


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
    return render_template("front.html.j2", rows=rows, unrunnable=front.unrunnable, is_worse=is_worse)


def render_result(result: Distillation) -> str:
    """Return a distillation as a few lines of HTML: the chosen equations, how good they are, and what is next."""
    chosen, notes, worse = result.chosen(), describe_equations(result), result.find_worse_than_constant()
    shown = range(min(len(chosen), _MOST_EQUATIONS))
    entries = [
        (
            Equation.of(result.equation_names[number], chosen[number].expression),
            notes[number],
            number in worse,
        )
        for number in shown
    ]
    left_out = [line for number, line in describe_left_out(result).items() if number in shown]
    measured = "" if result.reduction.keeps_outputs else describe_truth(result)
    lines = [measured, explain_out_of_range(result), *left_out, _NEXT]
    return render_template(
        "result.html.j2",
        entries=entries,
        more=len(chosen) - len(entries),
        lines=[line for line in lines if line],
    )


def explore_result(result: Distillation, equation: int | str | None = None) -> Explorer:
    """Return a front that a notebook shows with a slider.

    Raises:
        SelectionError: the equation does not exist.
        MissingDependencyError: matplotlib is not installed.
    """
    position = result.find_equation(equation)
    front = build_equation_front(result, position, get_equation_rows(result, position))
    return Explorer(f"Front of {result.equation_names[position]}", front)


@final
class Explorer:
    """A front with a slider: formula, figures and the equation's curve follow it; a notebook shows it.

    Args:
        title: description for screen readers.
        front: the front.
    """

    def __init__(self, title: str, front: Front) -> None:
        self._title = title
        self._front = front

    def html(self) -> str:
        """Return a self-contained HTML document, which needs no network."""
        return render_template("explorer.html.j2", title=self._title, part=self._front)

    def __repr__(self) -> str:
        return f"Explorer({count(len(self._front.points), 'equation')}; a notebook shows them)"

    def _repr_html_(self) -> str:
        # A frame of its own: scripts and styles of notebook and document do not meet.
        return Markup(
            '<iframe srcdoc="{}" title="{}" sandbox="allow-scripts" '
            'style="width:100%;height:660px;border:0;border-radius:8px"></iframe>'
        ).format(self.html(), show_hidden(self._title))
