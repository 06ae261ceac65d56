"""The page of a distillation: equations, fronts, fits, residuals, sensitivities and settings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from markupsafe import Markup
from torch import Tensor

from symtorch_core.activations.frames import list_renamed
from symtorch_core.errors import SelectionError
from symtorch_core.expressions import Expression, evaluate, variables
from symtorch_core.expressions.tree import count_nodes
from symtorch_core.results.choosing import describe_choices
from symtorch_core.search.fidelity import Fidelity
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.verification.fidelity import OutputFidelity
from symtorch_core.views.figures import FIRST, SECOND, render_svg
from symtorch_core.views.page_loadings import build_loadings_parts
from symtorch_core.views.page_parts import (
    Bars,
    Equation,
    Figure,
    Front,
    Page,
    Part,
    Point,
    Section,
    Table,
    Text,
    to_table_rows,
)
from symtorch_core.views.plots import compare_outputs
from symtorch_core.views.terminal import describe_rounding

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_ROWS_DRAWN = 250
_FULL_SECTIONS = 24
_MOST_DRAWN = 2000
"""Figures of an equation need its surrogate and many values of it, which takes seconds for one of more nodes."""


def build_page(result: Distillation, title: str = "") -> Page:
    """Build the page of a distillation.

    Args:
        result: the distillation. Fits, residuals and the sensitivity of variables need rows: those held out in
            memory, or the sample of them in a saved file.
        title: the headline; made from the block's name by default.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        SelectionError: the title is not a text.
    """
    if not isinstance(title, str):
        raise SelectionError(f"title must be a text, not {title!r}")
    sections = [
        Section("Fidelity", tuple(_build_overview(result))),
        *(
            Section(result.equation_names[number], tuple(_build_equation_parts(result, number)))
            for number in range(min(len(result.fronts), _FULL_SECTIONS))
        ),
    ]
    if len(result.fronts) > _FULL_SECTIONS:
        sections.append(Section("The other equations", (_build_others(result),)))
    if not result.reduction.keeps_outputs and _get_rows(result) is not None:
        sections.append(Section("Outputs of the block", tuple(_build_output_parts(result))))
    reduced = tuple(build_loadings_parts(result))
    if reduced:
        sections.append(Section("Maps of the reducer", reduced))
    sections.append(Section("How it was made", tuple(_build_settings(result))))
    provenance = result.provenance
    rows = f"{provenance.rows[0]} rows fitted" + (
        f", {provenance.rows[1]} held out" if provenance.rows[1] else ""
    )
    interrupted = "; interrupted, perhaps not finished" if result.interrupted else ""
    return Page(
        title=title or f"Equations of {provenance.source.block}",
        subtitle=f"{len(result.fronts)} equations by {provenance.regressor}, {rows}{interrupted}",
        sections=tuple(sections),
        footer=", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    )


def build_front_part(front: ParetoFront, chosen: Candidate, key: str, name: str) -> Front:
    """Build the part for a front, whose points the reader can choose.

    Args:
        front: the front.
        chosen: the equation shown first.
        key: key of the front, unique on the page.
        name: left-hand side of the equations.
    """
    points = []
    for candidate in front:
        facts = [("complexity", str(candidate.complexity)), ("loss", f"{candidate.loss:.4g}")]
        if candidate.validation_loss is not None:
            facts.append(("held-out loss", f"{candidate.validation_loss:.4g}"))
        facts.append(("score", f"{candidate.score:.3f}"))
        if candidate.errors is not None and any(candidate.errors):
            facts.append(("with errors", candidate.text(errors=True)))
        judged = candidate.fidelity
        if judged is not None and judged.held_out is not None:
            facts.append(("held-out R²", _format_r2(judged.held_out)))
        if judged is not None and judged.out_of_range is not None:
            facts.append(("R² out of range", _format_r2(judged.out_of_range)))
        points.append(Point(Equation.of(name, candidate.expression), tuple(facts)))
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

    return Front(key, Markup(render_svg(draw, label=f"Pareto front of {name}")), tuple(points), position)


def _build_equation_parts(result: Distillation, number: int) -> Iterator[Part]:
    front, chosen, name = result.fronts[number], result.chosen()[number], result.equation_names[number]
    if number in result.find_worse_than_constant():
        yield Text("On held-out rows, a constant does better than the chosen equation.", is_warning=True)
    yield build_front_part(front, chosen, f"front{number}", name)
    if result.reduction.keeps_outputs:
        yield from _build_fit_figures(result, number)
    if _get_rows(result) is not None:
        shares = measure_sensitivity(chosen.expression, _get_variables(result))
        if shares:
            yield Bars("Share of the equation's variance that goes when a variable is shuffled", shares)
    if front.unrunnable:
        yield Table(
            ("found, but cannot run", "complexity", "reason"),
            tuple((entry.equation, str(entry.complexity), entry.reason) for entry in front.unrunnable),
            numbers=False,
        )


def _build_fit_figures(result: Distillation, position: int) -> Iterator[Figure]:
    """Yield figures of prediction and residuals of one output of the block, by its position in the result."""
    if _get_rows(result) is None:
        return
    block, equations = (values[:_ROWS_DRAWN] for values in compare_outputs(result, result.outputs[position]))

    def draw_fit(ax: Any) -> None:
        low, high = float(min(block.min(), equations.min())), float(max(block.max(), equations.max()))
        ax.plot([low, high], [low, high], "-", color=SECOND, linewidth=1)
        ax.plot(block, equations, "o", color=FIRST, alpha=0.55, markersize=3.5, markeredgewidth=0)
        ax.set(xlabel="block", ylabel="equations")

    def draw_residuals(ax: Any) -> None:
        ax.axhline(0.0, color=SECOND, linewidth=1)
        ax.plot(block, equations - block, "o", color=FIRST, alpha=0.55, markersize=3.5, markeredgewidth=0)
        ax.set(xlabel="block", ylabel="equations - block")

    name, where = (
        result.output_names[position],
        "held-out rows" if result.held_out is not None else "rows of the fit",
    )
    yield Figure(
        Markup(render_svg(draw_fit, width=4.4, height=3.4, label=f"fit of {name}")),
        f"Equations against block, {where}",
    )
    yield Figure(
        Markup(render_svg(draw_residuals, width=4.4, height=3.4, label=f"residuals of {name}")),
        f"Residuals, {where}",
    )


def _build_output_parts(result: Distillation) -> Iterator[Part]:
    for output in range(min(len(result.outputs), _FULL_SECTIONS // 2)):
        yield Text(result.output_names[output])
        yield from _build_fit_figures(result, output)


def _build_overview(result: Distillation) -> Iterator[Part]:
    headings: tuple[str, ...] = (
        "output",
        "R² train",
        "R² held out",
        "R² of a linear map",
        "R² out of range",
        "largest error held out",
    )
    measured = any(entry.truth is not None for entry in result.fidelity)
    headings += ("R² against your data",) if measured else ()
    rows = tuple(
        (
            name,
            *map(_format_r2, (entry.train, entry.held_out, entry.linear, entry.out_of_range)),
            _format_error(entry),
            *([_format_r2(entry.truth)] if measured else []),
        )
        for name, entry in zip(result.output_names, result.fidelity, strict=True)
    )
    yield Table(headings, rows, "The chosen equations beside the best linear map of their variables")
    if result.model_fidelity is not None:
        whole = result.model_fidelity
        yield Text(
            f"The whole model, its own output on equations against the block: R² {_format_r2(whole)}, largest change "
            f"{whole.max_error:.3g}."
        )
    lost = result.transforms.lost()
    if lost:
        yield Text(
            f"Fits and residuals are not drawn: {', '.join(lost)} came from Python functions, which no file holds."
        )
    if _is_large(result):
        yield Text(f"Nothing is drawn of equations with more than {_MOST_DRAWN} nodes.")
    if result.task_metric is not None:
        metric = result.task_metric
        yield Text(f"Task metric: {metric.block:.5g} with the block, {metric.equations:.5g} on equations.")


def _format_r2(entry: Fidelity | None) -> str:
    return "–" if entry is None or math.isnan(entry.r2) else f"{entry.r2:.5f}"


def _format_error(entry: OutputFidelity) -> str:
    return "–" if entry.held_out is None else f"{entry.held_out.max_error:.3g}"


def _build_others(result: Distillation) -> Table:
    rows = tuple(
        (name, candidate.text(), str(candidate.complexity), f"{candidate.loss:.4g}")
        for name, candidate in list(zip(result.equation_names, result.chosen(), strict=True))[_FULL_SECTIONS:]
    )
    return Table(("name", "equation", "complexity", "loss"), rows, numbers=False)


def _build_settings(result: Distillation) -> Iterator[Table]:
    transforms = ", ".join(f"{name} = {text}" for name, text in result.transforms.texts().items())
    for origin in result.origins:
        search, made = origin.search, origin.provenance
        names, by = describe_choices(result, origin)
        yield Table(
            ("setting", "value"),
            to_table_rows(
                [
                    ("equations", names),
                    ("regressor", made.regressor),
                    (
                        "reducer",
                        " ".join(part for part in (made.reducer, result.reduction.summary()) if part),
                    ),
                    ("derived variables", transforms),
                    ("chosen by", by),
                    ("operators", ", ".join(search.operators)),
                    ("loss", search.loss_function.name),
                    ("maxsize", search.maxsize),
                    ("iterations", search.niterations),
                    ("complexity of operators", _format_list(search.complexity_of_operators)),
                    ("constraints", _format_list(search.constraints)),
                    ("nested constraints", _format_list(search.nested_constraints)),
                    (
                        "time limit",
                        "" if search.timeout_in_seconds is None else f"{search.timeout_in_seconds:g} s",
                    ),
                    ("seed", made.seed),
                    ("rounded constants", "; ".join(map(describe_rounding, result.rounded))),
                    (
                        "columns",
                        _format_list(list_renamed(result.transforms.input_names, made.source.columns)),
                    ),
                    ("rows dropped (not finite)", made.source.rows_dropped or ""),
                ]
            ),
            numbers=False,
        )
        yield Table(
            ("stage", "seconds"), tuple((stage, f"{seconds:.2f}") for stage, seconds in made.seconds.items())
        )


def _format_list(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())


def _get_rows(result: Distillation) -> Any:
    """Return rows to draw; None if there are none in memory, or equations that cannot run on them, or not soon."""
    return None if result.transforms.lost() or _is_large(result) else result.held_out or result.train


def _is_large(result: Distillation) -> bool:
    return any(count_nodes(c.expression) > _MOST_DRAWN for front in result.fronts for c in front)


def _get_variables(result: Distillation) -> dict[str, Tensor]:
    """Return the variables of the equations by name, on rows that are in memory."""
    rows = _get_rows(result)
    Z = result.reduction.reduce_inputs(result.transforms(rows.inputs))
    return dict(zip(result.reduction.variable_names, Z.double().unbind(-1), strict=True))


def measure_sensitivity(
    expression: Expression, columns: Mapping[str, Tensor]
) -> tuple[tuple[str, float], ...]:
    """Estimate how much each variable contributes: Jansen's estimate of its total Sobol index over the rows.

    The index is the mean squared change of the equation when one variable is shuffled among the rows (seeded), over
    twice the variance. It is exact for independent variables only; for others it is a comparable measure.

    Args:
        expression: the equation.
        columns: its variables, each of shape (n,).

    Returns:
        (variable, share) for each variable in the equation, largest first.

    >>> from symtorch_core.expressions import parse
    >>> a, b = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> [(name, round(share, 1)) for name, share in measure_sensitivity(parse("2*a + b"), {"a": a, "b": b})]
    [('a', 0.8), ('b', 0.2)]
    """
    names = variables(expression)
    if not names:
        return ()
    value = evaluate(expression, columns)
    variance = float(value.var(correction=0))
    if not variance > 0:
        return ()
    generator = torch.Generator().manual_seed(0)
    shares = []
    for name in names:
        order = torch.randperm(len(value), generator=generator)
        change = evaluate(expression, {**columns, name: columns[name][order]}) - value
        finite = change[torch.isfinite(change)]
        shares.append((name, min(1.0, float(finite.square().mean()) / (2 * variance))))
    return tuple(sorted(shares, key=lambda entry: -entry[1]))
