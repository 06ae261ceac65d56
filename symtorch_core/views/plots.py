"""Plots of fronts, fits, residuals and slices (needs matplotlib).

Every function draws on the given axes or on new ones, and returns them.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from symtorch_core.activations.block_function import to_row_function
from symtorch_core.activations.estimators import as_function
from symtorch_core.activations.rows import Activations
from symtorch_core.components.checks import (
    check_choice,
    check_function,
    check_names,
    check_number,
)
from symtorch_core.components.escaping import escape_plot
from symtorch_core.errors import MissingDependencyError, SelectionError
from symtorch_core.expressions import Expression, to_text
from symtorch_core.expressions.printing import name_to_latex, to_latex
from symtorch_core.views.wording import format_r2, pick_rows, say_where

if TYPE_CHECKING:
    from symtorch_core.reduction.loadings import Loadings
    from symtorch_core.reduction.sweep import Sweep
    from symtorch_core.results.distillation import Distillation
    from symtorch_core.search.front import Candidate, ParetoFront

_GRID = 200
_GRID_2D = 60
_SHOWN_ROWS = 2000
_LONGEST_LABEL = 60
_MOST_TICKS = 40
_LONGEST_TICK = 16


def new_axes(ax: Any = None, *, size: tuple[float, float] = (5.0, 3.6)) -> Any:
    """Return the given axes, or new ones.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        SelectionError: what was given are no axes.
    """
    check_matplotlib()
    if ax is not None:
        from matplotlib.axes import Axes

        if not isinstance(ax, Axes):
            raise SelectionError(f"ax must be matplotlib axes, not a {type(ax).__name__}")
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]


def check_matplotlib() -> None:
    """Raise :class:`MissingDependencyError` if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError("plots need matplotlib. Try: pip install matplotlib", name="matplotlib")


def label_with_latex(name: str, expression: Expression | None = None) -> str:
    """Return a name, or name = expression, as matplotlib's mathematics; as text where that cannot be read or seen.

    >>> label_with_latex("theta"), label_with_latex("a b")
    ('$\\\\theta$', 'a b')
    """
    from matplotlib.mathtext import MathTextParser

    text = name if expression is None else f"{name} = {to_text(expression, 3)}"
    if len(text) > _LONGEST_LABEL:
        return escape_plot(text)
    latex = name_to_latex(name) + ("" if expression is None else f" = {to_latex(expression, 3)}")
    # Names that are no symbols would be set in typewriter; other alphabets are not in matplotlib's mathematics.
    if latex.isascii() and r"\mathtt" not in latex:
        with suppress(ValueError):
            MathTextParser("path").parse(f"${latex}$")
            return f"${latex}$"
    return escape_plot(text)


def plot_result(
    result: Distillation, kind: str = "front", output: int | str | None = None, ax: Any = None
) -> Any:
    """Draw one output of a distillation: its ``"front"``, its ``"fit"``, or its ``"residuals"``.

    Raises:
        SelectionError: the plot or the output does not exist, or there are no rows in memory.
    """
    check_choice("kind of plot", kind, ("front", "fit", "residuals"), SelectionError)
    if kind == "front":
        position = result.find_equation(output)
        chosen = result.chosen()[position]
        ax = plot_front(result.fronts[position], chosen, ax)
        ax.set_title(label_with_latex(result.equation_names[position], chosen.expression))
        return ax
    return plot_fit(result, output, ax) if kind == "fit" else plot_residuals(result, output, ax)


def plot_sweep(sweep: Sweep, value: str = "r2", ax: Any = None) -> Any:
    """Draw the unexplained variance over k_in: a line for each reducer and k_out.

    Raises:
        SelectionError: there is no such figure, or the sweep did not measure it.
    """
    check_choice("value", value, ("r2", "r2_linear", "r2_network"), SelectionError)
    if any(getattr(row, value) is None for row in sweep.rows):
        raise SelectionError(f"value={value!r} was not measured: sweep with network=True")
    ax = new_axes(ax, size=(7, 4.5))
    names = list(dict.fromkeys(row.reducer for row in sweep.rows))
    widths = list(dict.fromkeys(row.k_out for row in sweep.rows))
    for (color, name), (marker, k_out) in itertools.product(
        enumerate(names), zip(itertools.cycle("osd^v*x"), widths, strict=False)
    ):
        line = [row for row in sweep.rows if (row.reducer, row.k_out) == (name, k_out)]
        ax.plot(
            [str(row.k_in) for row in line],
            [1 - getattr(row, value) for row in line],
            color=f"C{color}",
            marker=marker,
            alpha=0.9,
            label=escape_plot(f"{name}, k_out {'all' if k_out is None else k_out}"),
        )
    ax.set(xlabel="k_in", ylabel="unexplained share of the variance, held out")
    ax.legend(fontsize="small")
    ax.grid(alpha=0.3)
    return ax


def plot_front(front: ParetoFront, chosen: Candidate | None = None, ax: Any = None) -> Any:
    """Draw loss over complexity, with the chosen equation marked and labelled."""
    ax = new_axes(ax)
    held_out = [c for c in front if c.validation_loss is not None]
    ax.step([c.complexity for c in front], [c.loss for c in front], where="post", color="C0", alpha=0.5)
    ax.plot([c.complexity for c in front], [c.loss for c in front], "o", color="C0", label="rows of the fit")
    if held_out:
        losses = [c.validation_loss for c in held_out]
        ax.plot([c.complexity for c in held_out], losses, "x", color="C1", label="held-out rows")
    if chosen is not None:
        ax.plot(
            [chosen.complexity],
            [chosen.loss],
            "o",
            markersize=12,
            mfc="none",
            mec="C2",
            label=escape_plot(chosen.text(3)),
        )
    if all(c.loss > 0 for c in front):
        ax.set_yscale("log")
    ax.set(xlabel="complexity", ylabel="loss")
    ax.legend(fontsize="small")
    return ax


def plot_fit(result: Distillation, output: int | str | None = None, ax: Any = None) -> Any:
    """Draw the equations against the block's output, on held-out rows (or rows of the fit if none are held out)."""
    ax = new_axes(ax, size=(4.2, 4.0))
    block, equations = compare_outputs(result, output)
    ax.plot(block, equations, ".", alpha=0.5, color="C0")
    low, high = float(min(block.min(), equations.min())), float(max(block.max(), equations.max()))
    ax.plot([low, high], [low, high], "-", color="C1", linewidth=1)
    ax.set(xlabel=f"{_name_output(result, output)}: block", ylabel="equations")
    ax.set_title(_make_title(result, output))
    return ax


def plot_residuals(result: Distillation, output: int | str | None = None, ax: Any = None) -> Any:
    """Draw the residuals, equations - block, over the block's output."""
    ax = new_axes(ax)
    block, equations = compare_outputs(result, output)
    ax.axhline(0.0, color="C1", linewidth=1)
    ax.plot(block, equations - block, ".", alpha=0.5, color="C0")
    ax.set(xlabel=f"{_name_output(result, output)}: block", ylabel="equations - block")
    ax.set_title(_make_title(result, output))
    return ax


def _make_title(result: Distillation, output: int | str | None) -> str:
    """Return the equation, if it gives the output alone, and R2 on the rows that are drawn."""
    position, where = result.find_output(output), say_where(result)
    alone = result.chosen()[position].expression if result.reduction.keeps_outputs else None
    title = label_with_latex(result.output_names[position], alone)
    if not result.fidelity:
        return title
    return f"{title}\nR² {format_r2(pick_rows(result.fidelity[position], where))} on {where}"


def plot_slice(
    result: Distillation,
    block: Callable[..., Any],
    along: str | Sequence[str],
    output: int | str | None = None,
    at: Mapping[str, float] | None = None,
    ax: Any = None,
) -> Any:
    """Draw block and equations along one input, or their difference over two, with other inputs at their medians.

    Args:
        result: the distillation.
        block: the module or function.
        along: name of one input, or names of two.
        output: name or column of a distilled output; the first one by default.
        at: values of other inputs, instead of their medians.
        ax: axes to draw on; new ones by default.

    Raises:
        SelectionError: an input or output does not exist, or the rows of the fit are not in memory.
    """
    block = as_function(block)
    check_function("block", block, "the module or function", SelectionError)
    names = (along,) if isinstance(along, str) else check_names("along", along, SelectionError)
    if at is not None and not isinstance(at, Mapping):
        raise SelectionError(f"at takes a dictionary, name of an input -> value, not {at!r}")
    for name, value in (at or {}).items():
        check_number(f"the value of at for {name!r}", value, error=SelectionError)
    position = result.find_output(output)
    name_of_output = _name_output(result, output)
    inputs = result.transforms.input_names
    unknown = [name for name in (*names, *(at or {})) if name not in inputs]
    if unknown or not 1 <= len(names) <= 2:
        missing = f"; there is no {unknown[0]!r}" if unknown else ""
        raise SelectionError(f"a slice goes along one or two of {', '.join(inputs)}{missing}")
    rows = get_drawn_rows(result).inputs
    base = rows.median(0).values
    for name, value in (at or {}).items():
        base[inputs.index(name)] = value
    columns = [inputs.index(name) for name in names]
    count = _GRID if len(names) == 1 else _GRID_2D
    spans = [
        torch.linspace(float(rows[:, c].min()), float(rows[:, c].max()), count).to(rows) for c in columns
    ]
    grid = torch.cartesian_prod(*spans).reshape(-1, len(names))
    X = base.repeat(len(grid), 1)
    X[:, columns] = grid
    column = result.outputs[position]
    with torch.no_grad():
        neural = to_row_function(block, result.provenance.source)(X)[:, column].numpy()
        symbolic = result.surrogate()(X)[:, position].numpy()
    ax = new_axes(ax)
    if len(names) == 1:
        ax.plot(grid[:, 0].numpy(), neural, color="C0", label="block")
        ax.plot(grid[:, 0].numpy(), symbolic, "--", color="C1", label="equations")
        ax.set(xlabel=escape_plot(names[0]), ylabel=name_of_output)
        ax.legend(fontsize="small")
        return ax
    difference = (symbolic - neural).reshape(count, count).T
    reach = float(abs(difference).max()) or 1.0
    mesh = ax.pcolormesh(spans[0].numpy(), spans[1].numpy(), difference, cmap="RdBu", vmin=-reach, vmax=reach)
    ax.figure.colorbar(mesh, ax=ax, label=f"{name_of_output}: equations - block")
    ax.set(xlabel=escape_plot(names[0]), ylabel=escape_plot(names[1]))
    return ax


def plot_loadings(loadings: Loadings, ax: Any = None) -> Any:
    """Draw the weights of a reducer's map as a heat map: a row for each reduced column."""
    ax = new_axes(ax, size=(7, 3))
    weights = loadings.weights.numpy()
    reach = float(abs(weights).max(initial=0.0)) or 1.0
    image = ax.imshow(weights, "RdBu_r", aspect="auto", interpolation="nearest", vmin=-reach, vmax=reach)
    ax.figure.colorbar(image, ax=ax)
    for axis, names in ((ax.xaxis, loadings.columns), (ax.yaxis, loadings.names)):
        every = -(-len(names) // _MOST_TICKS)  # names of more columns would cover each other
        places = range(0, len(names), every)
        short = (
            name if len(name) <= _LONGEST_TICK else f"{name[:_LONGEST_TICK]}..." for name in names[::every]
        )
        axis.set_ticks(list(places), list(map(escape_plot, short)))
    ax.tick_params(axis="x", rotation=90)
    ax.grid(False)
    return ax


def get_drawn_rows(result: Distillation) -> Activations:
    """Return rows to draw: held-out rows, or else rows of the fit.

    Raises:
        SelectionError: there are no rows in memory.
    """
    rows = result.held_out or result.train
    if rows is None:
        raise SelectionError("there are no rows in memory: they are not saved with this file")
    return rows.rows(torch.arange(min(len(rows), _SHOWN_ROWS)))


def compare_outputs(result: Distillation, output: int | str | None = None) -> tuple[Any, Any]:
    """Return one output of the block and its prediction by the equations, as arrays of shape (n,)."""
    rows, position = get_drawn_rows(result), result.find_output(output)
    with torch.no_grad():
        prediction = result.surrogate()(rows.inputs)[:, position]
    return rows.outputs[:, result.outputs[position]].numpy(), prediction.numpy()


def _name_output(result: Distillation, output: int | str | None) -> str:
    return escape_plot(result.output_names[result.find_output(output)])
