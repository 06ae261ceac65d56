"""The rows around a point, and their weights: a local explanation is fitted to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from symtorch_core import CaptureError

Array = NDArray[np.float64]
Metric = str | Callable[[Array, Array], float]
"""A metric of scikit-learn's NearestNeighbors, by name or as a function of two rows."""

_VARIANCE_SHARE = 0.5


@final
@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Rows around a point.

    Attributes:
        rows: shape (n, d): neighbours from the data first, then synthetic rows.
        weights: shape (n,), positive.
        neighbours: number of rows that are neighbours.
        spread: standard deviation of the synthetic rows in each column, shape (d,); 0 for columns that do not vary.
        sigma: width of the kernel, in units of ``spread``.
    """

    rows: Array
    weights: Array
    neighbours: int
    spread: Array
    sigma: float


def neighbourhood(
    X: Array,
    x_star: Array,
    *,
    neighbours: int = 50,
    samples: int = 1000,
    neighbour_weight: float = 1.0,
    variance: float | Sequence[float] | None = None,
    sigma: float | None = None,
    bandwidth: float = 1.0,
    metric: Metric = "euclidean",
    categorical: Sequence[int] = (),
    data_weights: Array | None = None,
    seed: int = 0,
) -> Neighbourhood:
    """Return neighbours of a point and Gaussian samples around it (SymTorch paper, 3.2).

    The kernel is exp(-d^2 / sigma^2), d the distance from the point with each column in units of its own spread. By
    default sigma is such that the median synthetic row weighs 0.5, in any number of dimensions.

    Args:
        X: the data, shape (n, d).
        x_star: the point, shape (d,).
        neighbours: rows of X nearest to the point that are taken (J); the metric sees standardised columns, and
            categorical ones as equal or not.
        samples: synthetic rows (N).
        neighbour_weight: weight of a neighbour (M); with 0 neighbours are left out, but still determine the spread.
        variance: of the synthetic rows, one number or one for each column; half that of the neighbours by default.
        sigma: width of the kernel, in units of the spread.
        bandwidth: factor on the spread.
        metric: for finding the neighbours.
        categorical: columns whose numbers are codes; each synthetic row takes all of them from one neighbour.
        data_weights: a weight for each row of X, times ``neighbour_weight``.
        seed: of the synthetic rows.

    Columns that do not vary among the neighbours (and those of variance 0) keep the point's value.

    >>> near = neighbourhood(np.random.default_rng(0).normal(size=(100, 3)), np.zeros(3), neighbours=10, samples=200)
    >>> near.rows.shape, round(float(np.median(near.weights[10:])), 3)
    ((210, 3), 0.5)

    Raises:
        CaptureError: the data or a setting is invalid.
    """
    _check(X, x_star, neighbours, samples, neighbour_weight, sigma, bandwidth)
    columns = _check_categorical(categorical, X.shape[1])
    nearest = np.empty(0, dtype=np.int64)
    if neighbour_weight > 0 or variance is None or len(columns):  # else they are not needed
        nearest = _find_nearest(X, x_star, min(neighbours, len(X)), metric, columns)
    spread = bandwidth * _measure_spread(X[nearest], variance)
    spread[columns] = 0.0
    generator = np.random.default_rng(seed)
    synthetic = x_star + spread * generator.standard_normal((samples, len(x_star)))
    if len(columns):
        synthetic[:, columns] = X[generator.choice(nearest, samples)][:, columns]
    if samples and not (synthetic != x_star).any():
        raise CaptureError(
            "nothing varies near x_star: its neighbours are all alike. Ask for more neighbours, or give variance="
        )
    scale = np.where(spread > 0, spread, np.inf)
    squares = (((synthetic - x_star) / scale) ** 2).sum(1) + (synthetic[:, columns] != x_star[columns]).sum(1)
    width = sigma
    if width is None:
        middle = float(np.median(squares)) if samples else 0.0
        width = math.sqrt(middle / math.log(2)) if middle > 0 else 1.0
    kernel = np.exp(-squares / width**2)
    if samples and not (kernel > 0).any():
        raise CaptureError(f"sigma={width:g} is so small that no synthetic row has any weight: leave it out")
    near = np.full(len(nearest), neighbour_weight)
    if data_weights is not None:
        near = near * data_weights[nearest]
    nearest, near = nearest[near > 0], near[near > 0]
    return Neighbourhood(
        rows=np.concatenate([X[nearest], synthetic]),
        weights=np.concatenate([near, kernel]),
        neighbours=len(nearest),
        spread=spread,
        sigma=width,
    )


def _check(
    X: Array,
    x_star: Array,
    neighbours: int,
    samples: int,
    neighbour_weight: float,
    sigma: float | None,
    bandwidth: float,
) -> None:
    if X.ndim != 2 or len(X) < 2:
        raise CaptureError("give the data around x_star as rows, at least 2, better hundreds")
    check_point(x_star, X.shape[1])
    if not (np.isfinite(X).all() and np.isfinite(x_star).all()):
        raise CaptureError(
            "the data or x_star hold NaN or infinite values: fix them, or leave those rows out"
        )
    if neighbours < 2 or samples < 0 or neighbour_weight < 0 or samples + neighbour_weight == 0:
        raise CaptureError(
            "neighbours must be at least 2, samples and neighbour_weight not negative and not both 0"
        )
    if not bandwidth > 0 or (sigma is not None and not sigma > 0):
        raise CaptureError("bandwidth and sigma must be more than 0")


def check_point(x_star: Array, width: int) -> None:
    """Refuse, with a :class:`CaptureError`, a point that is not a row of ``width`` numbers."""
    if x_star.shape != (width,):
        raise CaptureError(
            f"x_star has {x_star.size} numbers, a row of the data {width}: give one row of the model's inputs"
        )


def _check_categorical(categorical: Sequence[int], width: int) -> NDArray[np.int64]:
    columns = sorted({int(column) for column in categorical})
    if columns and not (columns[0] >= 0 and columns[-1] < width):
        raise CaptureError(f"categorical={list(categorical)}: columns are numbered 0 to {width - 1}")
    return np.array(columns, dtype=np.int64)


def _measure_spread(nearest: Array, variance: float | Sequence[float] | None) -> Array:
    width = nearest.shape[1]
    if variance is None:
        return np.sqrt(_VARIANCE_SHARE * nearest.var(axis=0))
    given = np.asarray(variance, dtype=np.float64)
    if given.shape not in ((), (width,)) or not np.isfinite(given).all() or (given < 0).any():
        raise CaptureError(f"variance must be one number, or {width}, finite and not negative")
    return np.sqrt(np.broadcast_to(given, (width,))).copy()


def _find_nearest(
    X: Array, x_star: Array, count: int, metric: Metric, categorical: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the indices of the rows nearest to the point, the nearest first."""
    plain = np.setdiff1d(np.arange(X.shape[1]), categorical)
    deviation = X[:, plain].std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)

    def seen(rows: Array) -> Array:
        # A category that differs counts as far as one standard deviation.
        codes = [
            (rows[:, [column]] == np.unique(X[:, column])) / math.sqrt(2) for column in categorical.tolist()
        ]
        return np.concatenate([rows[:, plain] / scale, *codes], axis=1)

    try:
        search = NearestNeighbors(n_neighbors=count, metric=metric).fit(seen(X))
    except ValueError as error:
        raise CaptureError(f"metric={metric!r}: {error}") from None
    found: NDArray[np.int64] = search.kneighbors(seen(x_star[None]), return_distance=False)[0]
    return found
