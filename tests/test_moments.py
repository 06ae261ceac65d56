"""Means and covariances against numpy, whole and in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from symtorch_core.errors import SearchError
from symtorch_core.reduction.moments import (
    Moments,
    compute_principal_axes,
    compute_pseudo_inverse,
    compute_spectrum,
    compute_square_roots,
)

RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.normal(size=(300, 5)) @ RNG.normal(size=(5, 5)) + 100.0)
Y = torch.from_numpy(RNG.normal(size=(300, 2))) + X[:, :2]
WEIGHTS = torch.from_numpy(RNG.uniform(size=300))


def same(first: Moments, second: Moments) -> None:
    for name in ("x", "y", "xx", "xy", "yy"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=1e-9, atol=1e-9)
    assert first.weight == pytest.approx(second.weight)


def test_they_are_numpys() -> None:
    moments = Moments.of(X, Y, WEIGHTS)
    both = np.concatenate([X.numpy(), Y.numpy()], axis=1)
    wanted = torch.from_numpy(np.cov(both.T, aweights=WEIGHTS.numpy(), bias=True))
    torch.testing.assert_close(moments.xx, wanted[:5, :5], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moments.xy, wanted[:5, 5:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moments.yy, wanted[5:, 5:], rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=6))
def test_parts_give_the_whole(sizes: list[int]) -> None:
    ends = np.cumsum(sizes).clip(max=300)
    starts = [0, *ends[:-1]]
    parts = [(X[a:b], Y[a:b], WEIGHTS[a:b]) for a, b in zip(starts, ends, strict=True) if b > a]
    n = int(ends[-1])
    same(Moments.from_batches(parts), Moments.of(X[:n], Y[:n], WEIGHTS[:n]))


def test_batches_without_weight_count_for_nothing() -> None:
    nothing = torch.zeros(300)
    same(Moments.from_batches([(X, Y, None), (X + 7, Y, nothing)]), Moments.of(X, Y))
    with pytest.raises(SearchError, match="at least one row"):
        Moments.from_batches([(X, Y, nothing)])
    with pytest.raises(SearchError, match="at least one row"):
        Moments.from_batches([])


def test_single_precision_far_from_zero_loses_nothing() -> None:
    far = (torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) + 1e4).float()
    torch.testing.assert_close(
        Moments.of(far, far).xx, far.double().T.cov(correction=0), rtol=1e-9, atol=1e-9
    )


def test_the_linear_map_is_least_squares() -> None:
    moments = Moments.of(X, Y, WEIGHTS)
    root = WEIGHTS.sqrt()[:, None]
    centred = X - moments.x, Y - moments.y
    wanted = torch.linalg.lstsq(root * centred[0], root * centred[1]).solution.T
    torch.testing.assert_close(moments.linear_map(), wanted, rtol=1e-6, atol=1e-9)
    left = centred[1] - centred[0] @ wanted.T
    share = (WEIGHTS / WEIGHTS.sum())[:, None]
    torch.testing.assert_close(
        moments.rest(moments.linear_map()), left.T @ (share * left), rtol=1e-6, atol=1e-9
    )


def test_seen_through_a_map() -> None:
    down = torch.from_numpy(RNG.normal(size=(2, 5)))
    same(Moments.of(X, Y).seen_through(down), Moments.of(X @ down.T, Y))


def test_what_does_not_vary_has_no_inverse() -> None:
    flat = torch.diag(torch.tensor([4.0, 0.0, 1.0], dtype=torch.float64))
    root, inverse = compute_square_roots(flat)
    assert root.diagonal().tolist() == pytest.approx([2, 0, 1])
    assert inverse.diagonal().tolist() == pytest.approx([0.5, 0, 1])
    assert compute_pseudo_inverse(flat).diagonal().tolist() == pytest.approx([0.25, 0, 1])
    assert bool(torch.isfinite(compute_pseudo_inverse(torch.zeros(3, 3, dtype=torch.float64))).all())
    assert compute_spectrum(flat).tolist() == pytest.approx([4, 1, 0])
    assert bool((compute_principal_axes(flat, 3).amax(0) > 0).all())
