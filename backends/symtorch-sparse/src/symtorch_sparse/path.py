"""Paths: the best sums of one term, of two terms, and so on, from covariances alone.

To find the best k of p terms is hard, and no single way of doing it is right: adding the best next term cannot take an
early one back, and leaving out the least of all terms fails where there are more terms than the data can tell
apart. Three paths are therefore walked, and for each number of terms the best sum counts:

- forward: the best next term is added, then terms are exchanged for others as long as the sum gains (orthogonal least
  squares, Chen, Billings and Luo 1989, with exchanges);
- backward: from all terms, the one that is missed least is left out, again and again;
- of the inputs alone: a linear law is not to be missed for a sum of products that imitate it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

from symtorch_core.reduction import Moments

_EXACT: Final = 1e-14
"""Unexplained share of the variance from which a sum is exact."""
_ROUNDING: Final = 1e-9
"""Factors this close to one are one, and offsets of this share of the target's spread are zero."""
_INDEPENDENT: Final = 1e-10
"""A term needs this share of its variance that the chosen terms do not explain."""
_GAIN: Final = 1e-9
"""An exchange must lower the loss by this share, so that exchanges end."""
_EXCHANGES: Final = 20
"""Exchanges at each number of terms, at most."""
_MOST_BACKWARD: Final = 800
"""From more terms than this, the backward path starts from those that fit best one by one."""


@final
@dataclass(frozen=True)
class Step:
    """One step of a path: offset + sum of coefficients[i] * term[indices[i]].

    Attributes:
        indices: places of the terms in the library, shape (k,).
        coefficients: their factors, shape (k,).
        offset: the constant.
        loss: the mean squared error.
    """

    indices: tuple[int, ...]
    coefficients: tuple[float, ...]
    offset: float
    loss: float


def compute_path(moments: Moments, output: int, steps: int, inputs: Sequence[int] = ()) -> list[Step]:
    """Return sums of one term, of two terms, and so on, with least-squares coefficients, each better than those before.

    The covariances of the terms with each other and with the output are enough; no rows are needed. The units of
    terms and output do not matter.

    Args:
        moments: moments of the terms' values and of the outputs; no term may be constant.
        output: number of the output.
        steps: the largest number of terms.
        inputs: places of the inputs themselves among the terms.
    """
    xx, xy = moments.xx.cpu().numpy(), moments.xy[:, output].cpu().numpy()
    variance = float(moments.yy[output, output])
    height, spread = np.sqrt(variance), np.sqrt(np.diag(xx))
    problem = _Correlations(xx / np.outer(spread, spread), xy / (spread * height))
    images = _list_affine_images(problem.terms)
    usable = [place for place in range(len(spread)) if place not in images]
    linear = [place for place in inputs if place not in images]
    best: dict[int, tuple[float, tuple[int, ...]]] = {}
    for chosen in _walk(problem, steps, usable, linear):
        loss = problem.compute_loss(chosen)
        if loss < best.get(len(chosen), (np.inf, ()))[0]:
            best[len(chosen)] = loss, tuple(sorted(chosen))
    found: list[Step] = []
    lowest = np.inf
    for _, (loss, chosen) in sorted(best.items()):
        if loss >= lowest:
            continue
        lowest, places = loss, list(chosen)
        factors = height * problem.solve(places) / spread[places]
        factors[np.abs(factors - 1) < _ROUNDING] = 1.0
        offset = float(moments.y[output]) - float(factors @ moments.x.cpu().numpy()[places])
        offset = offset if abs(offset) > _ROUNDING * height else 0.0
        found.append(Step(chosen, tuple(factors.tolist()), offset, max(0.0, loss) * variance))
        if loss <= _EXACT:
            break
    return found


@final
@dataclass(frozen=True)
class _Correlations:
    """Correlations of p terms with each other, shape (p, p), and with the target, shape (p,)."""

    terms: np.ndarray
    target: np.ndarray

    def solve(self, chosen: Sequence[int]) -> np.ndarray:
        """Return the least-squares coefficients of the chosen terms, in units of spreads."""
        places = list(chosen)
        gram, target = self.terms[np.ix_(places, places)], self.target[places]
        try:
            factor = cho_factor(gram)
        except LinAlgError:  # they depend on each other
            return np.linalg.lstsq(gram, target, rcond=_INDEPENDENT)[0]
        first = cho_solve(factor, target)
        return first + cho_solve(factor, target - gram @ first)

    def compute_loss(self, chosen: Sequence[int]) -> float:
        """Return the unexplained share of the target's variance."""
        return 1.0 - float(self.solve(chosen) @ self.target[list(chosen)]) if len(chosen) else 1.0

    def find_next(self, chosen: Sequence[int], terms: Sequence[int]) -> tuple[int, float]:
        """Return the term that lowers the loss most beside the chosen ones, and by how much."""
        places, among = list(chosen), np.asarray(terms)
        rest, left = self.target[among], np.ones(len(among))
        if places:
            gram, beside = self.terms[np.ix_(places, places)], self.terms[np.ix_(among, np.asarray(places))]
            weights = np.linalg.lstsq(gram, np.column_stack([self.target[places], beside.T]), rcond=None)[0]
            rest = rest - beside @ weights[:, 0]
            left = left - np.einsum("pk,kp->p", beside, weights[:, 1:])
        gains = np.where(left > _INDEPENDENT, rest**2 / np.maximum(left, _INDEPENDENT), 0.0)
        best = int(gains.argmax())
        return int(among[best]), float(gains[best])


def _list_affine_images(correlations: np.ndarray) -> set[int]:
    """Return the places of terms that are straight-line functions of an earlier, and so simpler, term on the rows.

    >>> sorted(_list_affine_images(np.array([[1.0, -1.0, 0.3], [-1.0, 1.0, -0.3], [0.3, -0.3, 1.0]])))
    [1]
    """
    alike = 1 - np.abs(correlations) < _INDEPENDENT
    return set(np.flatnonzero(np.tril(alike, -1).any(1)).tolist())


def _walk(
    problem: _Correlations, steps: int, terms: Sequence[int], inputs: Sequence[int]
) -> Iterator[Sequence[int]]:
    """Yield the sets of terms of all paths."""
    yield from _go_forward(problem, terms, steps)
    yield from _go_backward(problem, terms, steps)
    if 0 < len(inputs) < len(terms):
        yield from _go_backward(problem, inputs, steps)


def _go_forward(problem: _Correlations, terms: Sequence[int], steps: int) -> Iterator[list[int]]:
    """Yield sets of one, two, ... terms, each with the best next term added, and others exchanged where that helps."""
    chosen: list[int] = []
    loss = 1.0
    while len(chosen) < min(steps, len(terms)):
        new, gain = problem.find_next(chosen, terms)
        if gain <= _GAIN * loss or loss <= _EXACT:
            return
        chosen = _exchange(problem, [*chosen, new], terms)
        loss = problem.compute_loss(chosen)
        yield chosen


def _exchange(problem: _Correlations, chosen: list[int], terms: Sequence[int]) -> list[int]:
    """Exchange single terms for others as long as the loss falls."""
    loss = problem.compute_loss(chosen)
    for _ in range(_EXCHANGES if len(chosen) > 1 else 0):
        best = loss * (1 - _GAIN) - _EXACT
        found = None
        for position in range(len(chosen)):
            others = chosen[:position] + chosen[position + 1 :]
            new, gain = problem.find_next(others, terms)
            reached = problem.compute_loss(others) - gain
            if reached < best:
                best, found = reached, [*others, new]
        if found is None:
            break
        exchanged = problem.compute_loss(found)
        if exchanged >= loss:
            break
        chosen, loss = found, exchanged
    return chosen


def _go_backward(problem: _Correlations, terms: Sequence[int], steps: int) -> Iterator[list[int]]:
    """Yield sets of at most ``steps`` terms, down to one: from all terms, the one that is missed least is left out."""
    places = np.asarray(terms)
    if len(places) > _MOST_BACKWARD:
        places = np.sort(places[np.argsort(-np.abs(problem.target[places]))[:_MOST_BACKWARD]])
    chosen = _select_independent(problem.terms, places.tolist())
    inverse = np.linalg.inv(problem.terms[np.ix_(chosen, chosen)])
    while chosen:
        if len(chosen) <= steps:
            yield list(chosen)
        coefficients = inverse @ problem.target[chosen]
        least = int((coefficients**2 / np.diag(inverse)).argmin())
        column = np.delete(inverse[:, least], least)
        shift = np.outer(column, column) / inverse[least, least]
        inverse = np.delete(np.delete(inverse, least, 0), least, 1) - shift
        del chosen[least]


def _select_independent(correlations: np.ndarray, places: list[int]) -> list[int]:
    """Return the places without terms that earlier ones explain."""
    kept: list[int] = []
    triangle = np.zeros((len(places), len(places)))
    for place in places:
        count = len(kept)
        row = solve_triangular(triangle[:count, :count], correlations[kept, place], lower=True)
        rest = correlations[place, place] - row @ row
        if rest > _INDEPENDENT:
            triangle[count, :count], triangle[count, count] = row, np.sqrt(rest)
            kept.append(place)
    return kept
