"""Figures of the errors: how large they are, and where."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from symtorch_arithmetic.experiment import Run
from symtorch_core import Transforms
from symtorch_core.expressions import to_text
from symtorch_core.studies import escape_plot

_LETTERS: Final = 40
_FEW: Final = 12  # values of a variable that fit on an axis


def draw_errors(ax: Any, run: Run) -> None:
    """Draw answer minus truth over the truth, on an axis that is logarithmic except near 0."""
    truth, errors = run.task.compute_truth(run.numbers)[run.usable], run.errors[run.usable]
    right = errors == 0
    ax.scatter(truth[right], errors[right], s=6, color="0.6", label="right")
    ax.scatter(truth[~right], errors[~right], s=10, color="C3", label="wrong")
    ax.set_yscale("symlog", linthresh=run.task.step)
    ax.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    ax.set(xlabel="true answer", ylabel="answer minus truth")
    ax.legend(loc="best", fontsize="small")


def draw_laws(ax: Any, run: Run) -> None:
    """Draw answers over right answers, coloured by the law that explains them."""
    truth, values = run.task.compute_truth(run.numbers)[run.usable], run.values[run.usable]
    places = run.mixture.places
    ax.scatter(truth[places < 0], values[places < 0], s=8, color="0.7", label="no law")
    for place, law in enumerate(run.mixture.laws):
        shown = places == place
        text = escape_plot(to_text(law.expression, 4), _LETTERS)
        ax.scatter(truth[shown], values[shown], s=12, color=f"C{place}", label=text)
    ax.set_yscale("symlog", linthresh=max(1.0, float(truth.abs().median())))
    ax.set(xlabel="true answer", ylabel="answer")
    ax.legend(loc="best", fontsize="small")


def draw_where(ax: Any, run: Run) -> None:
    """Draw the share of wrong answers over the two most important variables, or over one, where there are no two."""
    values = Transforms(run.task.variables, run.task.digits)(run.numbers[run.usable]).numpy()
    wrong = (run.errors[run.usable] != 0).double().numpy()
    names = list(run.task.digits)
    columns = [(name, values[:, names.index(name)]) for name in _choose_variables(run, values, names)]
    if len(columns) == 1:
        _draw_bars(ax, columns[0], wrong)
    else:
        _draw_map(ax, columns[0], columns[1], wrong)


def _draw_bars(ax: Any, shown: tuple[str, np.ndarray], wrong: np.ndarray) -> None:
    name, column = shown
    levels, place = np.unique(column, return_inverse=True)
    ax.bar(levels, np.bincount(place, wrong) / np.bincount(place), color="C3")
    ax.set(xlabel=name, ylabel="share of wrong answers", ylim=(0, 1), xticks=levels)


def _draw_map(ax: Any, across: tuple[str, np.ndarray], up: tuple[str, np.ndarray], wrong: np.ndarray) -> None:
    (x_name, x), (y_name, y) = across, up
    sizes, x_edges, y_edges = np.histogram2d(x, y, bins=(_find_edges(x), _find_edges(y)))
    mistakes, *_ = np.histogram2d(x, y, bins=(x_edges, y_edges), weights=wrong)
    shares = np.divide(mistakes, sizes, out=np.full_like(sizes, np.nan), where=sizes > 0)
    mesh = ax.pcolormesh(x_edges, y_edges, shares.T, vmin=0, vmax=1, cmap="Reds")
    ax.grid(visible=False)
    ax.set(xlabel=x_name, ylabel=y_name, xticks=np.unique(x), yticks=np.unique(y))
    ax.figure.colorbar(mesh, ax=ax, label="share of wrong answers")


def _choose_variables(run: Run, values: np.ndarray, names: list[str]) -> list[str]:
    """Choose up to two variables of few values: the most important ones, or else the first ones."""
    few = [name for place, name in enumerate(names) if len(np.unique(values[:, place])) <= _FEW]
    wanted = [*run.error_analysis.important, *run.error_variables]
    chosen = [name for name in dict.fromkeys(wanted) if name in few]
    return (chosen or few)[:2]


def _find_edges(column: np.ndarray) -> np.ndarray:
    return np.arange(column.min() - 0.5, column.max() + 1.0)
