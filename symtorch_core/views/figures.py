"""Figures of a page: matplotlib's SVG, in the colours of the page's theme, with marks that scripts can address."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from markupsafe import escape

from symtorch_core.components.escaping import escape_html
from symtorch_core.views.plots import check_matplotlib

# Placeholders for the page's colours, replaced in the SVG; no plot would use them by chance.
INK, GRID, FIRST, SECOND, THIRD = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
_IN_THE_PAGE: Mapping[str, str] = MappingProxyType(
    {
        INK: "var(--ink)",
        GRID: "var(--grid)",
        FIRST: "var(--first)",
        SECOND: "var(--second)",
        THIRD: "var(--third)",
    }
)
_STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10.0,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "svg.hashsalt": "symtorch",
    }
)


@contextmanager
def use_page_theme() -> Iterator[None]:
    """Use the page's colours for plots made inside the context."""
    check_matplotlib()
    import matplotlib as mpl
    from matplotlib.rcsetup import cycler

    style: Any = {**_STYLE, "axes.prop_cycle": cycler(color=[FIRST, SECOND, THIRD])}
    with mpl.rc_context(style):
        yield


def render_svg(
    draw: Callable[[Any], Any], *, width: float = 5.2, height: float = 3.6, label: str = ""
) -> str:
    """Return a figure as inline SVG.

    Args:
        draw: function that draws on the axes it receives.
        width, height: size in inches; the page scales the figure to its column.
        label: description for screen readers.
    """
    with use_page_theme():
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.patch.set_alpha(0.0)
        for ax in figure.axes:
            ax.patch.set_alpha(0.0)
        text = io.StringIO()
        with warnings.catch_warnings():  # the reader's browser has other fonts
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _make_inline(text.getvalue(), label)


def _make_inline(document: str, label: str) -> str:
    """Return the <svg> element only, in the page's colours, scaling with its column; matplotlib makes ids unique."""
    element = document[document.index("<svg") :].strip()
    for colour, variable in _IN_THE_PAGE.items():
        element = element.replace(colour, variable)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'font: ([\d.]+)px [^;"]*', r"font-size: \1px", element)
    opening = element[: element.index(">")]
    view = re.search(r'viewBox="[^"]*"', opening)
    attributes = (
        f'class="figure" {view.group(0) if view else ""} role="img" aria-label="{escape(escape_html(label))}"'
    )
    return f"<svg {attributes}>{element[len(opening) + 1 :]}"
