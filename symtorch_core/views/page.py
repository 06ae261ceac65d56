"""The page of a distillation: equations, fronts, fits, residuals, sensitivities and settings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from markupsafe import Markup
from torch import Tensor

from symtorch_core.activations.frames import list_renamed
from symtorch_core.activations.rows import Activations
from symtorch_core.errors import SelectionError
from symtorch_core.expressions import Expression, evaluate, variables
from symtorch_core.results.choosing import describe_choices
from symtorch_core.search.front import Candidate
from symtorch_core.verification.fidelity import OutputFidelity
from symtorch_core.views.figures import FIRST, SECOND, render_svg
from symtorch_core.views.page_fronts import (
    MOST_DRAWN,
    ROWS_DRAWN,
    EquationRows,
    build_equation_front,
    find_limits,
    get_equation_rows,
    get_rows,
    is_large,
    measure_on,
)
from symtorch_core.views.page_loadings import build_loadings_parts
from symtorch_core.views.page_parts import (
    Bars,
    Equation,
    Figure,
    Formulas,
    Page,
    Part,
    Section,
    Table,
    Text,
    render_name,
    to_table_rows,
)
from symtorch_core.views.wording import (
    count,
    describe_equations,
    describe_left_out,
    describe_rounding,
    explain_out_of_range,
    format_r2,
    make_headline,
    name_regressors,
    pick_rows,
    say_where,
)

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_FULL_SECTIONS = 12
_OTHERS = "other-equations"


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
    full = min(len(result.fronts), _FULL_SECTIONS)
    sections = [
        Section("", (_build_formulas(result),)),
        Section("Fidelity", tuple(_build_overview(result))),
        *(
            Section(
                result.equation_names[number], tuple(_build_equation_parts(result, number)), _get_key(number)
            )
            for number in range(full)
        ),
    ]
    if len(result.fronts) > full:
        sections.append(Section("The other equations", (_build_others(result),), _OTHERS))
    rows = get_rows(result)
    if not result.reduction.keeps_outputs and rows is not None:
        sections.append(Section("Outputs of the block", tuple(_build_output_figures(result, rows))))
    reduced = tuple(build_loadings_parts(result))
    if reduced:
        sections.append(Section("Maps of the reducer", reduced))
    sections.append(Section("How it was made", tuple(_build_settings(result))))
    made = result.provenance
    fitted = f"{count(made.rows[0], 'row')} fitted" + (f", {made.rows[1]} held out" if made.rows[1] else "")
    interrupted = "; interrupted, perhaps not finished" if result.interrupted else ""
    return Page(
        title=title or make_headline(result),
        subtitle=f"{count(len(result.fronts), 'equation')} by {name_regressors(result)}, {fitted}{interrupted}",
        sections=tuple(sections),
        footer=", ".join(f"{name} {version}" for name, version in made.versions.items()),
    )


def _get_key(number: int) -> str:
    return f"equation-{number}"


def _build_formulas(result: Distillation) -> Formulas:
    entries = zip(result.equation_names, result.chosen(), describe_equations(result), strict=True)
    return Formulas(
        tuple(
            (Equation.of(name, candidate.expression), note, _get_key(number))
            for number, (name, candidate, note) in enumerate(itertools.islice(entries, _FULL_SECTIONS))
        )
    )


def _build_equation_parts(result: Distillation, number: int) -> Iterator[Part]:
    front, chosen, name = result.fronts[number], result.chosen()[number], result.equation_names[number]
    rows, left_out = get_equation_rows(result, number), describe_left_out(result).get(number)
    if number in result.find_worse_than_constant():
        yield Text("On held-out rows, a constant does better than the chosen equation.", is_warning=True)
    yield build_equation_front(result, number, rows)
    if left_out is not None:
        yield Text(left_out)
    if rows is not None:
        yield _draw_residuals(chosen, rows, name)
        shares = measure_sensitivity(chosen.expression, rows.columns)
        if shares:
            yield Bars(
                "Share of the equation's variance that goes when a variable is shuffled",
                tuple((render_name(variable), share) for variable, share in shares),
                wide=False,
            )
    if front.unrunnable:
        yield Table(
            ("found, but cannot run", "complexity", "reason"),
            tuple((entry.equation, str(entry.complexity), entry.reason) for entry in front.unrunnable),
            numbers=False,
        )


def _draw_residuals(chosen: Candidate, rows: EquationRows, name: str) -> Figure:
    prediction = evaluate(chosen.expression, rows.columns).expand_as(rows.target)

    def draw(ax: Any) -> None:
        target = rows.target[:ROWS_DRAWN]
        residuals = prediction[:ROWS_DRAWN] - target
        ax.axhline(0.0, color=SECOND, linewidth=1)
        ax.plot(target, residuals, "o", color=FIRST, alpha=0.55, markersize=3.5, markeredgewidth=0)
        ax.set(xlabel=rows.of, ylabel=f"equation - {rows.of}")

    svg = Markup(render_svg(draw, fixed_margins=True, label=f"residuals of {name}"))
    caption = Markup("Residuals of the chosen {}, {} · R² {}")
    return Figure(svg, caption.format(render_name(name), rows.where, format_r2(measure_on(rows, chosen))))


def _build_output_figures(result: Distillation, rows: Activations) -> Iterator[Figure]:
    """Yield a figure for each output of the block, its prediction by all equations together."""
    with torch.no_grad():
        predictions = result.surrogate()(rows.inputs)
    targets = rows.outputs[:, list(result.outputs)]
    where = say_where(result)
    for output, name in enumerate(result.output_names[:_FULL_SECTIONS]):
        block, equations = targets[:ROWS_DRAWN, output], predictions[:ROWS_DRAWN, output]
        limits = find_limits(block, equations)

        def draw(ax: Any, block: Tensor = block, equations: Tensor = equations, limits: Any = limits) -> None:
            ax.plot(limits, limits, "-", color=SECOND, linewidth=1)
            ax.plot(block, equations, "o", color=FIRST, alpha=0.55, markersize=3.5, markeredgewidth=0)
            ax.set(xlabel="block", ylabel="equations", xlim=limits, ylim=limits)

        caption = Markup("{}: equations against block, {} · R² {}")
        yield Figure(
            Markup(render_svg(draw, fixed_margins=True, label=f"fit of {name}")),
            caption.format(render_name(name), where, format_r2(pick_rows(result.fidelity[output], where))),
        )


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
            *map(format_r2, (entry.train, entry.held_out, entry.linear, entry.out_of_range)),
            _format_error(entry),
            *([format_r2(entry.truth)] if measured else []),
        )
        for name, entry in zip(result.output_names, result.fidelity, strict=True)
    )
    yield Table(headings, rows, "The chosen equations beside the best linear map of their variables")
    explanation = explain_out_of_range(result)
    if explanation:
        yield Text(explanation)
    if result.model_fidelity is not None:
        whole = result.model_fidelity
        yield Text(
            f"The whole model, its own output on equations against the block: R² {format_r2(whole)}, largest change "
            f"{whole.max_error:.3g}."
        )
    lost = result.transforms.lost()
    if lost:
        yield Text(
            f"Fits and residuals are not drawn: {', '.join(lost)} came from Python functions, which no file holds."
        )
    if is_large(result):
        yield Text(f"Nothing is drawn of equations with more than {MOST_DRAWN} nodes.")
    if result.task_metric is not None:
        metric = result.task_metric
        yield Text(f"Task metric: {metric.block:.5g} with the block, {metric.equations:.5g} on equations.")


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
