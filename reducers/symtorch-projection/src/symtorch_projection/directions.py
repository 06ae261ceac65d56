"""Input directions in closed form: reduced-rank regression, and the active subspace of a differentiable block."""

from __future__ import annotations

import torch
from torch import Tensor

from symtorch_core import SearchError
from symtorch_core.reduction import (
    BlockFunction,
    Moments,
    Size,
    compute_principal_axes,
    compute_pseudo_inverse,
    compute_spectrum,
    compute_square_roots,
    resolve_size,
)

_ROWS_AT_ONCE = 512


def find_predictive_directions(
    moments: Moments, ridge: float, metric: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the directions of the inputs that predict the outputs linearly, best first (reduced-rank regression).

    Args:
        moments: of inputs and outputs.
        ridge: added to the inputs' variances, as a share of their mean.
        metric: the cost of errors of the outputs, shape (d_out, d_out), or None.

    Returns:
        The directions, shape (min(d_in, d_out), d_in), each of unit variance over the data, and the cost that each
        one saves, largest first. The first k span the best rank-k linear map (Izenman 1975).
    """
    predictable, root = _predict_linearly(moments, ridge, metric)
    most = min(len(moments.x), len(moments.y))
    inverse = compute_pseudo_inverse(moments.xx, ridge)
    directions = (inverse @ moments.xy @ root @ compute_principal_axes(predictable, most)).T
    return scale_to_unit_variance(directions, moments.xx), compute_spectrum(predictable)[:most]


def find_predictable_directions(moments: Moments, size: Size, ridge: float, metric: Tensor | None) -> Tensor:
    """Return the directions of the outputs that the inputs predict linearly.

    Args:
        moments: of inputs and outputs.
        size: their number, or the share of all predictable variance that they hold.
        ridge, metric: as for :func:`find_predictive_directions`.

    Returns:
        The directions, shape (d_out, k), orthonormal in the metric.

    Raises:
        SearchError: the size does not fit the data.
    """
    predictable, _ = _predict_linearly(moments, ridge, metric)
    k = resolve_size("k_out", size, compute_spectrum(predictable))
    axes = compute_principal_axes(predictable, k or len(moments.y))
    return axes if metric is None else compute_square_roots(metric)[1] @ axes


def _predict_linearly(moments: Moments, ridge: float, metric: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the covariance of the best linear prediction, in units of cost, and the square root of the metric."""
    d_out = len(moments.y)
    root = torch.eye(d_out, dtype=torch.float64, device=moments.y.device)
    if metric is not None:
        root, _ = compute_square_roots(metric)
    predicted = moments.xy.T @ compute_pseudo_inverse(moments.xx, ridge) @ moments.xy
    return root @ predicted @ root, root


def find_active_directions(
    block: BlockFunction, X: Tensor, moments: Moments, metric: Tensor | None, probes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the directions of the inputs along which a block changes most over the data (Constantine 2015).

    They are the leading eigenvectors of E[J^T M J], where J is the block's Jacobian, in coordinates in which the inputs
    are uncorrelated and of unit variance: a direction counts only as far as the data vary along it.

    Args:
        block: a differentiable function of rows.
        X: rows to average over, shape (n, d_in).
        moments: of the data.
        metric: M, shape (d_out, d_out), or None for the identity.
        probes: the most gradients computed for each row. With more outputs than this, random combinations of the
            outputs are differentiated in their place.
        seed: of those combinations.

    Returns:
        The directions, shape (d_in, d_in), each of unit variance over the data (zero where the data do not vary), and
        their eigenvalues, shape (d_in,), largest first.

    Raises:
        SearchError: the block cannot be differentiated.
    """
    d_in, d_out = len(moments.x), len(moments.y)
    root = torch.eye(d_out, dtype=torch.float64) if metric is None else compute_square_roots(metric)[0].cpu()
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(d_in, d_in, dtype=torch.float64)
    for rows in X.split(_ROWS_AT_ONCE):
        for slope in _compute_slopes(block, rows, root, probes, generator):
            total += slope.T @ slope
    # Slopes per standard deviation of the data.
    spread, inverse = compute_square_roots(moments.xx)
    uncorrelated = spread @ (total / len(X)).to(spread) @ spread
    values, vectors = torch.linalg.eigh(uncorrelated)
    directions = (inverse @ vectors.flip(1)).T
    return scale_to_unit_variance(directions, moments.xx), values.flip(0).clamp_min(0.0)


def _compute_slopes(
    block: BlockFunction, rows: Tensor, root: Tensor, probes: int, generator: torch.Generator
) -> list[Tensor]:
    """Return gradients, each (n, d_in), whose squares add up to J^T M J in every row (random probes: on average)."""
    d_out = len(root)
    leaf = rows.detach().clone().requires_grad_()
    with torch.enable_grad():
        outputs = block(leaf)
    if not outputs.requires_grad:
        raise SearchError(
            "the block cannot be differentiated, which method='active' needs: use method='rrr' or 'trained'"
        )
    if d_out <= probes:
        cotangents = [column.expand(len(rows), -1) for column in root]
    else:
        # E[v v^T] = M for v = root @ (random signs).
        signs = torch.randint(0, 2, (probes, len(rows), d_out), generator=generator).double() * 2 - 1
        cotangents = list((signs @ root) / probes**0.5)
    return [
        torch.autograd.grad(outputs, leaf, cotangent.to(outputs), retain_graph=True)[0].double().cpu()
        for cotangent in cotangents
    ]


def scale_to_unit_variance(directions: Tensor, covariance: Tensor) -> Tensor:
    """Scale directions, shape (k, d), to unit variance and a positive largest entry; to zero where nothing varies."""
    spread = (directions @ covariance * directions).sum(1).clamp_min(0.0).sqrt()
    lengths = directions.norm(dim=1) * covariance.trace().clamp_min(0.0).sqrt()
    there = spread > 1e-9 * lengths.clamp_min(1e-300)
    factor = torch.where(there, 1 / torch.where(there, spread, 1.0), 0.0)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * factor[:, None] * largest.sign()


def orthonormalize(up: Tensor, metric: Tensor | None) -> Tensor:
    """Return output directions of the same span, shape (d_out, k), orthonormal in the metric."""
    if metric is None:
        basis: Tensor = torch.linalg.qr(up).Q
        return basis
    root, inverse = compute_square_roots(metric)
    result: Tensor = inverse @ torch.linalg.qr(root @ up).Q
    return result
