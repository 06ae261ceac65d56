"""Figures of a page: matplotlib's SVG, in the colours of the page's theme, with marks that scripts can address."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from markupsafe import Markup, escape
from torch import Tensor

from symtorch_core.components.escaping import escape_html
from symtorch_core.views.page_parts import Following
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


_POINTS = 72
"""Units of an SVG in an inch."""
_MARGINS: Mapping[str, float] = MappingProxyType(
    {"left": 0.185, "right": 0.965, "bottom": 0.145, "top": 0.97}
)
_HUGE = 1e30  # matplotlib's transforms overflow beyond


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
    draw: Callable[[Any], Any],
    *,
    width: float = 5.2,
    height: float = 3.6,
    label: str = "",
    fixed_margins: bool = False,
) -> str:
    """Return a figure as inline SVG.

    Args:
        draw: function that draws on the axes it receives.
        width, height: size in inches; the page scales the figure to its column.
        label: description for screen readers.
        fixed_margins: leave margins for a short label and ticks, instead of measuring them, which takes as long as
            all the rest.
    """
    with use_page_theme():
        return _write_svg(_draw_figure(draw, width, height, fixed_margins), label)


def render_following(
    draw: Callable[[Any], Any],
    xs: Tensor,
    ys: Sequence[Tensor],
    *,
    chosen: int,
    key: str,
    dots: bool,
    caption: str,
    label: str = "",
    width: float = 5.2,
    height: float = 3.6,
) -> Following:
    """Return a figure of which one line, or the dots of one cloud, follow the equation that the reader chose.

    Args:
        draw: function that draws the rest on the axes it receives, and sets their limits.
        xs: positions of the points, shape (n,), in units of the axes.
        ys: for each equation, positions of its points, shape (n,).
        chosen: index of the equation shown first.
        key: id of the path, unique on the page.
        dots: whether the points are drawn as dots, not as a line.
        caption: text above the figure.
        label: description for screen readers.
        width, height: size in inches.
    """
    style = {"linewidth": 4.0, "solid_capstyle": "round", "alpha": 0.6} if dots else {"linewidth": 2.0}

    def draw_all(ax: Any) -> None:
        draw(ax)
        # A path to be replaced: what matplotlib writes for an equation that is not finite would have none.
        ax.plot([0, 1], [0, 1], color=FIRST, gid=key, scalex=False, scaley=False, **style)

    with use_page_theme():
        figure = _draw_figure(draw_all, width, height, fixed_margins=True)
        svg = _write_svg(figure, label)
        to_points = figure.axes[0].transData.transform
    top = height * _POINTS
    columns = []
    for y in ys:
        finite = torch.where(torch.isfinite(y), y.clamp(-_HUGE, _HUGE), torch.nan)
        points = to_points(torch.stack([xs, finite], dim=1).numpy())
        inside = (top - points[:, 1]).clip(-top, 2 * top)
        columns.append([round(10 * v) if math.isfinite(v) else None for v in inside.tolist()])
    across = tuple(round(10 * v) for v in points[:, 0].tolist())
    path = _trace_path(across, columns[chosen], dots)
    svg = re.sub(rf'(<g id="{re.escape(key)}">\s*<path d=")[^"]*', lambda found: found.group(1) + path, svg)
    return Following(key, Markup(svg), caption, dots, across, tuple(map(tuple, columns)))


def _trace_path(xs: Sequence[int], ys: Sequence[int | None], dots: bool) -> str:
    """Return the path that the page's script would draw."""
    steps, pen = [], "M"
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            pen = "M"
            continue
        steps.append(f"{pen}{x / 10:g} {y / 10:g}" + ("h0" if dots else ""))
        pen = pen if dots else "L"
    return "".join(steps)


def _draw_figure(draw: Callable[[Any], Any], width: float, height: float, fixed_margins: bool) -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=None if fixed_margins else "constrained", dpi=_POINTS)
    FigureCanvasSVG(figure)
    if fixed_margins:
        figure.subplots_adjust(**_MARGINS)
    draw(figure.add_subplot())
    figure.patch.set_alpha(0.0)
    for ax in figure.axes:
        ax.patch.set_alpha(0.0)
    return figure


def _write_svg(figure: Any, label: str) -> str:
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
