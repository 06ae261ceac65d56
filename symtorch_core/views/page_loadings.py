"""The section of a page about a reducer: what the variables of the equations are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from symtorch_core.errors import SelectionError
from symtorch_core.reduction.loadings import Loadings
from symtorch_core.views.figures import render_svg
from symtorch_core.views.page_parts import Figure, Part, Table
from symtorch_core.views.plots import plot_loadings

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_MOST_ROWS = 24


def build_loadings_parts(result: Distillation) -> Iterator[Part]:
    """Yield the largest inputs of each variable of the equations, and heat maps; nothing if nothing is reduced."""
    for side, first, second in (
        ("inputs", "variable", "made of"),
        ("outputs", "equation", "weight in the outputs"),
    ):
        try:
            loadings = result.read_loadings(side)  # type: ignore[arg-type]  # a literal of a tuple is a text to mypy
        except SelectionError:  # nothing is reduced there, or by a map without loadings
            continue
        few = range(min(len(loadings.names), _MOST_ROWS))
        yield Table(
            (first, second),
            tuple((loadings.names[row], loadings.describe(row)) for row in few),
            numbers=False,
        )
        yield _build_heat_map(loadings, side)


def _build_heat_map(loadings: Loadings, side: str) -> Figure:
    rows, columns = loadings.weights.shape

    def draw(ax: Any) -> None:
        plot_loadings(loadings, ax)

    width, height = min(10.0, 4.0 + 0.3 * columns), min(8.0, 2.4 + 0.3 * rows)
    svg = render_svg(draw, width=width, height=height, label=f"loadings of the {side}")
    return Figure(Markup(svg), f"Weights of the {side}: red is positive, blue negative", wide=True)
