"""Terminal views: tables of fronts and fidelity."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from symtorch_core.activations.frames import list_renamed
from symtorch_core.components.escaping import shorten, show_hidden
from symtorch_core.errors import SelectionError
from symtorch_core.results.choosing import describe_choices
from symtorch_core.search.fidelity import Fidelity
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.views.wording import (
    count,
    describe_equations,
    describe_left_out,
    describe_rounding,
    describe_truth,
    explain_out_of_range,
    make_headline,
    name_regressors,
)

if TYPE_CHECKING:
    from symtorch_core.reduction.sweep import Sweep
    from symtorch_core.results.distillation import Distillation

_WIDTH = 110
_MOST_FRONTS = 8


def to_text_cell(text: str) -> Text:
    """Return text for the terminal as it is: brackets are no markup, and hidden characters are shown."""
    return Text(show_hidden(text))


def build_front_table(
    front: ParetoFront, title: str = "", chosen: Candidate | None = None, *, is_worse: bool = False
) -> Table:
    """Build the table of a front, from simple to complex, with the chosen equation marked.

    It is red with ``is_worse``, where it does worse than a constant, and green otherwise.
    """
    colour = "red" if is_worse else "green"
    table = Table(
        title=to_text_cell(title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
    )
    table.add_column("")
    for name in ("complexity", "loss", "held-out", "score"):
        table.add_column(name, justify="right")
    table.add_column("equation", overflow="fold")
    for candidate in front:
        held_out = "" if candidate.validation_loss is None else f"{candidate.validation_loss:.4g}"
        table.add_row(
            ">" if candidate == chosen else "",
            str(candidate.complexity),
            f"{candidate.loss:.4g}",
            held_out,
            f"{candidate.score:.3f}",
            to_text_cell(candidate.text()),
            style=f"bold {colour}" if candidate == chosen else None,
        )
    return table


def build_fidelity_table(result: Distillation) -> Table:
    """Build the table of fidelity of the chosen equations and of the linear baseline: a row for each output."""
    table = Table(title="Fidelity of the chosen equations", title_justify="left", title_style="bold")
    table.add_column("output")
    for heading in (
        "R2 train",
        "R2 held-out",
        "R2 linear",
        "NMSE held-out",
        "max error held-out",
        "R2 out of range",
    ):
        table.add_column(heading, justify="right")
    for name, entry in zip(result.output_names, result.fidelity, strict=True):
        table.add_row(
            to_text_cell(name),
            _format_number(entry.train, "r2"),
            _format_number(entry.held_out, "r2"),
            _format_number(entry.linear, "r2"),
            _format_number(entry.held_out, "nmse"),
            _format_number(entry.held_out, "max_error"),
            _format_number(entry.out_of_range, "r2"),
        )
    return table


def _format_number(entry: Fidelity | None, field: str) -> str:
    if entry is None:
        return "-"
    value = {"r2": entry.r2, "nmse": entry.nmse, "max_error": entry.max_error}[field]
    return f"{value:.5f}" if field == "r2" else f"{value:.3g}"


def render_result(result: Distillation) -> RenderableType:
    """Build the terminal view of a distillation: fronts, fidelity and provenance."""
    parts: list[RenderableType] = []
    chosen, worse, left_out = result.chosen(), result.find_worse_than_constant(), describe_left_out(result)
    for number, front in enumerate(result.fronts[:_MOST_FRONTS]):
        name, is_worse = result.equation_names[number], number in worse
        parts.append(build_front_table(front, name, chosen[number], is_worse=is_worse))
        if is_worse:
            parts.append(Text("  on held-out rows, a constant does better", style="red"))
        if number in left_out:
            parts.append(to_text_cell(f"  {left_out[number]}"))
        parts += [
            to_text_cell(f"  not runnable: {entry.equation} ({entry.reason})") for entry in front.unrunnable
        ]
    if len(result.fronts) > _MOST_FRONTS:
        parts.append(
            Text(f"... and {count(len(result.fronts) - _MOST_FRONTS, 'more front')}: see front(number)")
        )
    parts += map(to_text_cell, _describe_loadings(result))
    parts.append(build_fidelity_table(result))
    parts += [to_text_cell(line) for line in (describe_truth(result), explain_out_of_range(result)) if line]
    if result.model_fidelity is not None:
        whole = result.model_fidelity
        parts.append(
            Text(
                f"whole model, its own output on equations against the block: R2 {_format_number(whole, 'r2')}, "
                f"largest change {_format_number(whole, 'max_error')}"
            )
        )
    if result.task_metric is not None:
        metric = result.task_metric
        parts.append(
            Text(f"task metric: {metric.block:.5g} with the block, {metric.equations:.5g} on equations")
        )
    parts.append(Text(show_hidden(_format_footer(result), keep="\n"), style="dim"))
    return Group(*parts)


def _format_footer(result: Distillation) -> str:
    lines = []
    for origin in result.origins:
        made, kept, dropped = (
            origin.provenance,
            result.reduction.summary(),
            origin.provenance.source.rows_dropped,
        )
        names, by = describe_choices(result, origin)
        renamed = list_renamed(result.transforms.input_names, made.source.columns)
        lines += [
            f"{shorten(names, _WIDTH)}:" if names else "",
            f"{made.regressor} with reducer {made.reducer}; loss {origin.search.loss_function.name}; chosen by "
            f"{by!r}; {count(made.rows[0], 'row')} fitted, {made.rows[1]} held out; seed {made.seed}",
            f"{made.reducer} keeps {kept}" if kept else "",
            ", ".join(f"{name} is the column {label!r}" for name, label in renamed.items()),
            ", ".join(f"{stage} {value:.1f} s" for stage, value in made.seconds.items()),
        ]
        if dropped:
            verb = "was" if dropped == 1 else "were"
            lines.append(f"{count(dropped, 'row')} with non-finite values {verb} left out")
    lines += [describe_rounding(entry) for entry in result.rounded]
    if result.interrupted:
        lines.append("interrupted: what was found by then is here, perhaps not finished")
    return "\n".join(line for line in lines if line)


def summarize_result(result: Distillation) -> str:
    """Return a few lines: the chosen equations, and how good they are."""
    names, notes, worse = result.equation_names, describe_equations(result), result.find_worse_than_constant()
    lines = [f"{make_headline(result)}, found by {name_regressors(result)}"]
    for number, candidate in enumerate(result.chosen()[:_MOST_FRONTS]):
        equation = shorten(f"{names[number]} = {candidate.text()}", _WIDTH)
        warning = "; a constant does better" if number in worse else ""
        lines.append(f"  {show_hidden(equation)}  ({notes[number]}{warning})")
    if len(result.fronts) > _MOST_FRONTS:
        lines.append(f"  and {len(result.fronts) - _MOST_FRONTS} more")
    return "\n".join(lines)


def _describe_loadings(result: Distillation) -> list[str]:
    """Return a line for each of the first variables of the equations, about the inputs it is made of."""
    try:
        loadings = result.read_loadings("inputs")
    except SelectionError:  # nothing is reduced, or by a map without loadings
        return []
    few = range(min(len(loadings.names), _MOST_FRONTS))
    return [f"{loadings.names[row]}: {loadings.describe(row)}" for row in few]


def render_text(result: Distillation) -> str:
    """Return a distillation as plain text."""
    return _to_text(render_result(result))


def render_sweep(sweep: Sweep) -> str:
    """Return a sweep over reducers as plain text."""
    table = Table("reducer", "k_in", "k_out", "R2 block between", "R2 linear", "R2 network", "s", "")
    for row in sweep.rows:
        sizes = ("all" if k is None else str(k) for k in (row.k_in, row.k_out))
        network = "-" if row.r2_network is None else f"{row.r2_network:.4f}"
        figures = (f"{row.r2:.4f}", f"{row.r2_linear:.4f}", network, f"{row.seconds:.1f}")
        table.add_row(*map(to_text_cell, (row.reducer, *sizes, *figures, row.note)))
    return _to_text(table)


def _to_text(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get().rstrip()
