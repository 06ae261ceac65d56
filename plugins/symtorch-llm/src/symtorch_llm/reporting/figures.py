"""Figures 4 and 5 of the paper, with our results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from symtorch_core.studies import Drawing
from symtorch_llm.reporting.findings import Findings


def find_pareto_front(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Return the names of the points (name, throughput, score) that no other point beats in both.

    >>> find_pareto_front([("a", 1.0, 5.0), ("b", 2.0, 9.0), ("c", 1.5, 9.5)])
    ['a', 'b']
    """
    return [
        name
        for name, fast, score in points
        if not any((f >= fast and s <= score) and (f > fast or s < score) for n, f, s in points if n != name)
    ]


def draw_findings(found: Findings) -> Iterator[tuple[str, Drawing]]:
    """Draw figures 5 and 4 of the paper, and what replacing more and more layers costs."""
    yield "pareto", _pareto(found)
    if found.sensitivity:
        yield "sensitivity", _sensitivity(found)
    if found.frontier:
        yield "frontier", _frontier(found)


def _pareto(found: Findings) -> Drawing:
    finals = {name: sum(v.final for v in found.find(name)) / len(found.find(name)) for name in found.names}
    points = [
        (name, one.throughput, finals[name])
        for name, one in found.speeds.items()
        if math.isfinite(finals[name])
    ]
    front = set(find_pareto_front(points))

    def draw(ax: Any) -> None:
        for name, fast, score in sorted(points, key=lambda point: point[2]):
            on_it = name in front
            (line,) = ax.plot([fast], [score], "o" if on_it else "x", markersize=7 if on_it else 6)
            line.set_label(name + (" *" if on_it else ""))
        steps = sorted((fast, score) for name, fast, score in points if name in front)
        ax.plot(
            [fast for fast, _ in steps],
            [score for _, score in steps],
            "-",
            color="0.6",
            linewidth=1,
            zorder=0,
        )
        if all(score > 0 for _, _, score in points):
            ax.set_yscale("log")
        ax.set(xlabel="tokens a second", ylabel=found.score_name)
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.02, 0.5))

    return Drawing(draw, f"{found.score_name} against throughput; * on the Pareto front", 7.5, 4.0)


def _sensitivity(found: Findings) -> Drawing:
    def draw(ax: Any) -> None:
        reducers = list(dict.fromkeys(s.reducer for s in found.sensitivity))
        widths = sorted({s.k_out for s in found.sensitivity})
        for (colour, reducer), (marker, width) in itertools.product(
            enumerate(reducers), zip("osd^v*x", widths, strict=False)
        ):
            line = [s for s in found.sensitivity if (s.reducer, s.k_out) == (reducer, width)]
            ax.plot(
                [s.k_in for s in line],
                [s.score for s in line],
                f"{marker}-",
                color=f"C{colour}",
                markersize=5,
                alpha=0.8,
                label=f"{reducer}, k_out {width}",
            )
        ax.axhline(found.baseline, color="0.5", linewidth=1, label="baseline")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set(xlabel="k_in", ylabel=found.score_name)
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.02, 0.5))

    return Drawing(draw, "The exact MLPs between maps", 7.5, 4.0)


def _frontier(found: Findings) -> Drawing:
    levels = {
        kind: [
            (one.layers, found.task.compute_level(one.score) - found.task.compute_level(found.baseline))
            for one in found.frontier
            if one.kind == kind and math.isfinite(one.score)
        ]
        for kind in dict.fromkeys(one.kind for one in found.frontier)
    }

    def draw(ax: Any) -> None:
        for kind, line in levels.items():
            ax.plot(*zip((0, 0.0), *line, strict=True), "o-", markersize=4, label=kind)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set(xlabel="layers replaced, the cheapest first", ylabel=found.task.rise_name)
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")

    return Drawing(draw, "What replacing more and more layers costs, as fitted", 7.5, 4.0)
