"""Rules that choose one equation of a Pareto front, on plain numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Final, Literal

from symtorch_core.errors import SelectionError

SelectionRule = Literal["knee", "score", "best", "accuracy", "validation", "simplest"]
HELD_OUT_RULES: Final = ("validation", "simplest")
"""Rules that need held-out rows."""
BEST_WITHIN = 1.5
"""The rule "best" considers equations with a loss of at most this many times the lowest (PySR's figure)."""
SIMPLEST_WITHIN = 1.05
"""The rule "simplest" considers equations with a held-out loss of at most this many times the lowest."""
KNEE_SLOPE = 0.65
"""For the rule "knee", complexity is worth its price if log(loss) falls by this share of the steepest average fall."""
KNEE_STEEP = 0.5
"""A fall of log(loss) by this much per unit of complexity is always worth it, however steep others are."""
KNEE_BELOW = 0.2
"""The rule "knee" looks for a law if some loss is at most this share of that of the front's first equation."""
STEEP = 0.25
"""Fall of log(loss) per unit of complexity from which an equation that was not chosen deserves a word."""
_EXACT = 1e-32
"""Losses below this share of the loss of the front's first equation are rounding, and count as this large."""
_ROUNDING = 1e-9  # of the loss of the front's first equation


def compute_scores(complexities: Sequence[int], losses: Sequence[float]) -> list[float]:
    """Return the fall of log(loss) per unit of complexity, from each equation of a front to the next; 0 for the first.

    Losses that are rounding count as equal (SymTorch paper, eq. 2).

    >>> [round(score, 3) for score in compute_scores([1, 3, 4], [1.0, 0.1, 0.01])]
    [0.0, 1.151, 2.303]
    """
    logs = _take_logs(losses)
    falls = [
        (logs[i - 1] - logs[i]) / (complexities[i] - complexities[i - 1]) for i in range(1, len(complexities))
    ]
    return [0.0, *falls] if complexities else []


def choose(
    rule: SelectionRule,
    complexities: Sequence[int],
    losses: Sequence[float],
    held_out: Sequence[float | None],
) -> int:
    """Return the position of the equation that a rule chooses from a front; ties go to the simpler equation.

    Args:
        rule: see :meth:`ParetoFront.select`.
        complexities, losses: of each equation, simple ones first; losses fall.
        held_out: loss of each on held-out rows, or None.

    Raises:
        SelectionError: the rule needs held-out losses that there are not.
    """
    if rule == "knee":
        return _find_knee(complexities, losses, held_out)
    scores = compute_scores(complexities, losses)
    if rule == "score":
        return scores.index(max(scores))
    if rule == "best":
        threshold = BEST_WITHIN * losses[-1]
        return max((i for i, loss in enumerate(losses) if loss <= threshold), key=lambda i: scores[i])
    if rule == "accuracy":
        return len(losses) - 1
    judged = [math.inf if loss is None else loss for loss in held_out]
    if not math.isfinite(min(judged)):
        raise SelectionError("the front has no held-out losses: distill with test_fraction > 0")
    return _find_least(judged, 1.0, 0.0) if rule == "validation" else _find_simplest(judged, losses)


def find_left_out(complexities: Sequence[int], losses: Sequence[float], chosen: int) -> int | None:
    """Return the position of the equation that a steep fall of the loss beyond the chosen one leads to, or None.

    >>> find_left_out([1, 8, 12, 18], [50.0, 0.709, 0.0506, 0.045], 1)
    2
    """
    logs = _take_logs(losses)
    slopes = {
        i: (logs[chosen] - logs[i]) / (complexities[i] - complexities[chosen])
        for i in range(chosen + 1, len(complexities))
    }
    steepest = max(slopes, key=lambda i: slopes[i], default=None)
    return None if steepest is None or slopes[steepest] < STEEP else steepest


def _find_knee(complexities: Sequence[int], losses: Sequence[float], held_out: Sequence[float | None]) -> int:
    """Return where a line of a given slope touches log(loss) over complexity from below.

    The slope is a share of the steepest one from the first equation to any other, since a network's own errors, which
    more complex equations follow, make the loss fall more slowly than the parts of a law do. Where no equation comes
    close to the targets, there is no law to tell from errors, and the held-out loss decides.
    ``benchmarks/selection.py`` is where these numbers come from.
    """
    judged = [math.inf if loss is None else loss for loss in held_out]
    if losses[-1] > KNEE_BELOW * losses[0] and math.isfinite(min(judged)):
        return _find_simplest(judged, losses)
    logs = _take_logs(losses)
    steepest = max(
        ((logs[0] - logs[i]) / (complexities[i] - complexities[0]) for i in range(1, len(logs))), default=0.0
    )
    price = min(KNEE_STEEP, KNEE_SLOPE * steepest)
    costs = [log + price * complexity for log, complexity in zip(logs, complexities, strict=True)]
    return costs.index(min(costs))


def _find_simplest(judged: Sequence[float], losses: Sequence[float]) -> int:
    return _find_least(judged, SIMPLEST_WITHIN, _ROUNDING * losses[0])


def _find_least(judged: Sequence[float], factor: float, margin: float) -> int:
    """Return the first position with a loss of at most the least times a factor, plus a margin."""
    limit = factor * min(judged) + margin
    return next(i for i, loss in enumerate(judged) if loss <= limit)


def _take_logs(losses: Sequence[float]) -> list[float]:
    least = max(_EXACT * losses[0], sys.float_info.min) if losses else 0.0
    return [math.log(max(loss, least)) for loss in losses]
