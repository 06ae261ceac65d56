"""Plots of an explanation (needs matplotlib)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from symtorch_core.studies import escape_plot, new_axes

if TYPE_CHECKING:
    from symtorch_slime.explanation import Explanation

_GRID = 200
_GRID_2D = 60
_MOST_BARS = 12


def plot_explanation(explanation: Explanation, output: int | str | None = None, ax: Any = None) -> Any:
    """Plot the equation among the local samples, for one or two inputs that vary; else bars of the importances.

    Args:
        explanation: what to draw.
        output: column or name of an explained output; the first one by default.
        ax: matplotlib axes to draw on; new ones by default.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        SelectionError: there is no such output.
    """
    position = explanation.result.find_output(output)
    varied = explanation.spread.nonzero()[:, 0].tolist()
    ax = new_axes(ax)
    if len(varied) == 1:
        return _draw_curve(explanation, varied[0], position, ax)
    if len(varied) == 2:
        return _draw_map(explanation, varied[0], varied[1], position, ax)
    return _draw_bars(explanation, position, ax)


def _draw_curve(explanation: Explanation, column: int, output: int, ax: Any) -> Any:
    result, local = explanation.result, explanation.local
    assert local.weights is not None
    x, y = local.inputs[:, column].numpy(), local.outputs[:, result.outputs[output]].numpy()
    grid = explanation.point.repeat(_GRID, 1)
    grid[:, column] = torch.linspace(float(x.min()), float(x.max()), _GRID)
    equation = result.surrogate().predict(grid)[:, output].numpy()
    shade = {"c": local.weights.numpy(), "cmap": "Blues", "vmin": -0.5, "vmax": 1.0}
    ax.scatter(x, y, s=12, **shade, label="block; darker: more weight")
    ax.plot(grid[:, column].numpy(), equation, "--", color="C1", label="equation")
    point = float(explanation.point[column]), float(explanation.value[output])
    ax.plot(*point, "*", color="red", markersize=14, label="x*")
    ax.set(xlabel=result.transforms.input_names[column], ylabel=escape_plot(result.output_names[output]))
    ax.legend(fontsize="small")
    return ax


def _draw_map(explanation: Explanation, first: int, second: int, output: int, ax: Any) -> Any:
    result, local = explanation.result, explanation.local
    x, y, z = (
        values.numpy()
        for values in (
            local.inputs[:, first],
            local.inputs[:, second],
            local.outputs[:, result.outputs[output]],
        )
    )
    axes = [torch.linspace(float(values.min()), float(values.max()), _GRID_2D) for values in (x, y)]
    grid = explanation.point.repeat(_GRID_2D**2, 1)
    grid[:, [first, second]] = torch.cartesian_prod(*axes).to(grid)
    surface = result.surrogate().predict(grid)[:, output].reshape(_GRID_2D, _GRID_2D).T.numpy()
    shade = {"vmin": float(z.min()), "vmax": float(z.max()), "cmap": "viridis"}
    mesh = ax.pcolormesh(axes[0].numpy(), axes[1].numpy(), surface, **shade)
    ax.scatter(x, y, c=z, s=10, edgecolor="white", linewidth=0.3, **shade)
    ax.plot(
        float(explanation.point[first]), float(explanation.point[second]), "*", color="red", markersize=14
    )
    ax.figure.colorbar(
        mesh, ax=ax, label=f"{escape_plot(result.output_names[output])}: equation; dots: the block"
    )
    names = result.transforms.input_names
    ax.set(xlabel=names[first], ylabel=names[second])
    return ax


def _draw_bars(explanation: Explanation, output: int, ax: Any) -> Any:
    result, importances = explanation.result, explanation.importances[output]
    order = importances.abs().argsort(descending=True, stable=True)[:_MOST_BARS].tolist()[::-1]
    order = [i for i in order if float(importances[i])] or order
    values = importances[order].tolist()
    names = [result.transforms.input_names[i] for i in order]
    ax.barh(names, values, color=["C0" if value > 0 else "C3" for value in values])
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set(
        xlabel=f"slope of {escape_plot(result.output_names[output])} at x*, times the input's local spread"
    )
    return ax
