"""Rows around a point: where they lie, and what they weigh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st_

from symtorch_core import CaptureError
from symtorch_slime import neighbourhood

X = np.random.default_rng(0).normal(size=(400, 4)) * [1.0, 10.0, 0.1, 1.0]
ORIGIN = np.zeros(4)


@given(d=st_.integers(1, 200), seed=st_.integers(0, 1000), bandwidth=st_.floats(0.01, 100.0))
@settings(max_examples=30, deadline=None)
def test_the_kernel_does_not_starve_in_any_dimension(d: int, seed: int, bandwidth: float) -> None:
    data = np.random.default_rng(seed).normal(size=(100, d))
    near = neighbourhood(data, data[0], samples=301, seed=seed, bandwidth=bandwidth)
    synthetic = near.weights[near.neighbours :]
    assert np.median(synthetic) == pytest.approx(0.5)
    assert (synthetic > 0).all()


def test_neighbours_are_the_nearest_in_standardised_columns() -> None:
    near = neighbourhood(X, ORIGIN, neighbours=7, samples=10, neighbour_weight=3.0)
    distance = ((X / X.std(0)) ** 2).sum(1)
    assert np.array_equal(near.rows[:7], X[np.argsort(distance)[:7]])
    assert (near.weights[:7] == 3.0).all()


def test_synthetic_rows_have_half_the_neighbours_variance_and_the_papers_kernel() -> None:
    near = neighbourhood(X, ORIGIN, neighbours=60, samples=20_000, sigma=1.7)
    nearest, synthetic = near.rows[:60], near.rows[60:]
    assert np.allclose(synthetic.var(0), nearest.var(0) / 2, rtol=0.05)
    assert np.allclose(synthetic.mean(0) / synthetic.std(0), 0, atol=0.05)
    squares = ((synthetic / np.sqrt(nearest.var(0) / 2)) ** 2).sum(1)
    assert np.allclose(near.weights[60:], np.exp(-squares / 1.7**2))


def test_variances_may_be_given_and_widened() -> None:
    near = neighbourhood(X, ORIGIN, samples=20_000, variance=[1.0, 4.0, 0.0, 9.0], bandwidth=2.0)
    synthetic = near.rows[near.neighbours :]
    assert np.allclose(synthetic.std(0), [2.0, 4.0, 0.0, 6.0], rtol=0.05)
    assert (synthetic[:, 2] == 0).all()


def test_columns_that_do_not_vary_stay() -> None:
    data = X.copy()
    data[:, 1] = 5.0
    near = neighbourhood(data, np.array([0.0, 5.0, 0.0, 0.0]))
    assert (near.rows[:, 1] == 5.0).all()
    assert near.spread[1] == 0
    with pytest.raises(CaptureError, match="nothing varies near x_star"):
        neighbourhood(np.ones((10, 3)), np.ones(3))


def test_categories_come_from_neighbours_together() -> None:
    generator = np.random.default_rng(1)
    codes = generator.integers(0, 3, size=400)
    data = np.column_stack([X[:, 0], codes, 10 + codes])  # the second code follows the first
    near = neighbourhood(data, np.array([0.0, 2.0, 12.0]), neighbours=100, categorical=[1, 2])
    synthetic = near.rows[near.neighbours :]
    assert set(synthetic[:, 1]) <= {0.0, 1.0, 2.0}
    assert np.array_equal(synthetic[:, 2], 10 + synthetic[:, 1])
    assert set(near.rows[:20, 1]) == {2.0}  # an equal category is nearer
    equal = synthetic[:, 1] == 2.0
    same_place = np.abs(synthetic[:, 0]) < 0.05
    assert near.weights[near.neighbours :][same_place & equal].mean() > 0.7


def test_weights_of_the_data_multiply() -> None:
    weights = np.linspace(0.0, 2.0, 400)
    near = neighbourhood(X, ORIGIN, neighbours=400, samples=5, neighbour_weight=3.0, data_weights=weights)
    order = np.argsort(((X / X.std(0)) ** 2).sum(1))
    order = order[weights[order] > 0]
    assert near.neighbours == 399  # a row without weight is left out
    assert np.allclose(near.weights[:399], 3.0 * weights[order])


def test_one_seed_one_neighbourhood_and_numpys_own_state_is_left_alone() -> None:
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    first, again, other = (neighbourhood(X, ORIGIN, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, other.rows)
    assert np.array_equal(np.random.get_state()[1], state)


def test_any_metric() -> None:
    near = neighbourhood(X, ORIGIN, neighbours=5, metric="manhattan")
    distance = np.abs(X / X.std(0)).sum(1)
    assert np.array_equal(near.rows[:5], X[np.argsort(distance)[:5]])
    own = neighbourhood(X, ORIGIN, neighbours=5, metric=lambda a, b: abs(float(a[0] - b[0])))
    assert np.array_equal(own.rows[:5], X[np.argsort(np.abs(X[:, 0]))[:5]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": 1}, "at least 2"),
        ({"samples": 0, "neighbour_weight": 0.0}, "not both 0"),
        ({"sigma": 0.0}, "more than 0"),
        ({"sigma": 1e-9}, "no synthetic row has any weight"),
        ({"bandwidth": -1.0}, "more than 0"),
        ({"variance": [1.0, 2.0]}, "one number, or 4"),
        ({"variance": -1.0}, "not negative"),
        ({"metric": "distance"}, "metric='distance'"),
        ({"categorical": [4]}, "numbered 0 to 3"),
    ],
)
def test_invalid_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        neighbourhood(X, ORIGIN, **options)


def test_invalid_data() -> None:
    with pytest.raises(CaptureError, match="x_star has 3 numbers, a row of the data 4"):
        neighbourhood(X, np.zeros(3))
    with pytest.raises(CaptureError, match="NaN"):
        neighbourhood(X, np.full(4, np.nan))
    with pytest.raises(CaptureError, match="as rows"):
        neighbourhood(X[:1], ORIGIN)
