"""The front of an equation on a page and in a notebook: points to choose, and a figure that follows the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from markupsafe import Markup
from torch import Tensor

from symtorch_core.activations.rows import Activations
from symtorch_core.expressions import evaluate
from symtorch_core.expressions.tree import count_nodes
from symtorch_core.search.fidelity import EquationFidelity, Fidelity, measure_fidelity
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.verification.verify import ReducedRows
from symtorch_core.views.figures import FIRST, SECOND, render_following, render_svg
from symtorch_core.views.page_parts import Equation, Following, Front, Point, render_name
from symtorch_core.views.plots import label_with_latex
from symtorch_core.views.wording import HELD_OUT, format_r2, pick_rows, say_where

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

ROWS_DRAWN = 250
MOST_DRAWN = 2000
"""Figures of an equation need its surrogate and many values of it, which takes seconds for one of more nodes."""
_CURVE_POINTS = 160
_MARGIN = 0.06


@final
@dataclass(frozen=True)
class EquationRows:
    """Rows in the terms of one equation.

    Attributes:
        columns: its variables, each of shape (n,).
        target: what it approximates, shape (n,).
        weights: shape (n,), or None.
        where: which rows they are.
        of: what the target is.
    """

    columns: Mapping[str, Tensor]
    target: Tensor
    weights: Tensor | None
    where: str
    of: str


def get_rows(result: Distillation) -> Activations | None:
    """Return rows to draw; None if there are none in memory, or equations that cannot run on them, or not soon."""
    return None if result.transforms.lost() or is_large(result) else result.held_out or result.train


def is_large(result: Distillation) -> bool:
    """Return whether an equation is too large to be drawn."""
    return any(count_nodes(c.expression) > MOST_DRAWN for front in result.fronts for c in front)


def get_equation_rows(result: Distillation, number: int) -> EquationRows | None:
    """Return rows in the terms of one equation; None if there are none to draw."""
    rows = get_rows(result)
    if rows is None:
        return None
    reduced = ReducedRows.of(rows.select_outputs(result.outputs), result.transforms, result.reduction)
    of = "block" if result.reduction.keeps_outputs else "reduced output"
    return EquationRows(reduced.columns, reduced.targets[:, number], rows.weights, say_where(result), of)


def measure_on(rows: EquationRows, candidate: Candidate) -> Fidelity:
    """Return the fidelity of an equation on such rows: as the search measured it or, where it did not, on these."""
    known = pick_rows(candidate.fidelity, rows.where)
    if known is not None:
        return known
    prediction = evaluate(candidate.expression, rows.columns).expand_as(rows.target)
    return measure_fidelity(prediction[:, None], rows.target[:, None], rows.weights)[0]


def build_equation_front(result: Distillation, number: int, rows: EquationRows | None) -> Front:
    """Build the part for one front of a distillation, with a figure that follows the choice if there are rows."""
    front, chosen, name = result.fronts[number], result.chosen()[number], result.equation_names[number]
    key = f"front{number}"
    if rows is None:
        return build_front_part(front, chosen, key, name)
    r2 = {candidate.complexity: measure_on(rows, candidate) for candidate in front}
    fit = draw_fits(front, chosen, rows, f"{key}-fit", name)
    return build_front_part(front, chosen, key, name, r2, fit=fit, where=rows.where)


def build_front_part(
    front: ParetoFront,
    chosen: Candidate,
    key: str,
    name: str,
    r2: Mapping[int, Fidelity] | None = None,
    *,
    fit: Following | None = None,
    where: str = HELD_OUT,
) -> Front:
    """Build the part for a front, whose points the reader can choose.

    Args:
        front: the front.
        chosen: the equation shown first.
        key: key of the front, unique on the page.
        name: left-hand side of the equations.
        r2: fidelity by complexity on the rows of ``fit``, or None without.
        fit: figure that follows the choice.
        where: the rows of ``fit``.
    """
    points = []
    for candidate in front:
        facts = [("complexity", str(candidate.complexity)), ("loss", f"{candidate.loss:.4g}")]
        if candidate.validation_loss is not None:
            facts.append(("held-out loss", f"{candidate.validation_loss:.4g}"))
        facts.append(("score", f"{candidate.score:.3f}"))
        if candidate.errors is not None and any(candidate.errors):
            facts.append(("with errors", candidate.text(errors=True)))
        known, drawn = candidate.fidelity or EquationFidelity(), r2 and r2[candidate.complexity]
        judged = {
            f"R², {HELD_OUT}": known.held_out,
            f"R², {where}": drawn or pick_rows(known, where),
            "R² out of range": known.out_of_range,
            "R² against your data": known.truth,
        }
        facts += [(what, format_r2(entry)) for what, entry in judged.items() if entry is not None]
        value = format_r2(drawn) if drawn else ""
        points.append(Point(Equation.of(name, candidate.expression), tuple(facts), value))
    position = list(front).index(chosen)

    def draw(ax: Any) -> None:
        complexities = [candidate.complexity for candidate in front]
        ax.step(complexities, [candidate.loss for candidate in front], where="post", color=FIRST, alpha=0.4)
        held_out = [(c.complexity, c.validation_loss) for c in front if c.validation_loss is not None]
        if held_out:
            ax.plot(*zip(*held_out, strict=True), "x", color=SECOND, label="held-out rows")
        for number, candidate in enumerate(front):
            ax.plot(
                [candidate.complexity],
                [candidate.loss],
                "o",
                color=FIRST,
                markersize=8,
                gid=f"{key}-{number}",
                label="rows of the fit" if number == 0 else None,
            )
        if all(candidate.loss > 0 for candidate in front):
            ax.set_yscale("log")
        ax.set(xlabel="complexity", ylabel="loss")
        ax.legend()

    return Front(
        key,
        Markup(render_svg(draw, fixed_margins=True, label=f"Pareto front of {name}")),
        tuple(points),
        position,
        fit,
    )


def draw_fits(front: ParetoFront, chosen: Candidate, rows: EquationRows, key: str, name: str) -> Following:
    """Draw what follows the choice: the curve over the only variable, or else predictions against targets."""
    if len(rows.columns) == 1:
        return _draw_curves(front, chosen, rows, key, name)
    target = rows.target[:ROWS_DRAWN]
    columns = {variable: column[:ROWS_DRAWN] for variable, column in rows.columns.items()}
    predictions = [evaluate(c.expression, columns).expand_as(target) for c in front]
    position = list(front).index(chosen)
    low, high = find_limits(target, predictions[position])

    def draw(ax: Any) -> None:
        ax.plot([low, high], [low, high], "-", color=SECOND, linewidth=1)
        ax.set(xlabel=rows.of, ylabel="equation", xlim=(low, high), ylim=(low, high))

    return render_following(
        draw,
        target,
        predictions,
        chosen=position,
        key=key,
        dots=True,
        caption=Markup("{}: equation against {}, {}").format(render_name(name), rows.of, rows.where),
        label=f"fit of {name}",
    )


def _draw_curves(front: ParetoFront, chosen: Candidate, rows: EquationRows, key: str, name: str) -> Following:
    ((variable, column),) = rows.columns.items()
    xs = torch.linspace(float(column.min()), float(column.max()), _CURVE_POINTS, dtype=torch.float64)
    curves = [evaluate(c.expression, {variable: xs}).expand_as(xs) for c in front]
    position = list(front).index(chosen)
    across = find_limits(xs)

    def draw(ax: Any) -> None:
        x, y = column[:ROWS_DRAWN], rows.target[:ROWS_DRAWN]
        ax.plot(x, y, "o", color=SECOND, alpha=0.55, markersize=3.5, markeredgewidth=0, label=rows.of)
        ax.plot([], [], color=FIRST, label="equation")
        ax.set(xlabel=label_with_latex(variable), xlim=across, ylim=find_limits(y, curves[position]))
        ax.legend()

    return render_following(
        draw,
        xs,
        curves,
        chosen=position,
        key=key,
        dots=False,
        caption=Markup("{} over {}, {}").format(render_name(name), render_name(variable), rows.where),
        label=f"{name} over {variable}",
    )


def find_limits(*values: Tensor) -> tuple[float, float]:
    """Return limits of an axis that hold all finite values, with a margin."""
    every = torch.cat(values)
    every = every[torch.isfinite(every)]
    low, high = float(every.min()), float(every.max())
    margin = _MARGIN * (high - low) or 0.5
    return low - margin, high + margin
