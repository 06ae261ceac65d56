"""The constants of an equation: least squares, reweighted for other losses, from its own constants on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.expressions import Expression, constants, evaluate, with_constants
from symtorch_core.search.losses import Loss

CONVERGED: Final = 1e-4
"""Relative gain in loss below which reweighting stops, unless told otherwise."""
_IRLS_STEPS = 20
_LM_STEPS = 50
_LM_STEPS_REWEIGHTED = 6
_NUDGE = 1e-3
_SAME_DIRECTION = 1e-12


def refit_constants(
    expression: Expression,
    columns: Mapping[str, Tensor],
    target: Tensor,
    weights: Tensor | None,
    loss: Loss,
    tolerance: float = CONVERGED,
) -> Expression:
    """The same structure with constants that minimise the loss, from a local search started at its own.

    Levenberg-Marquardt for mse, and the same on iteratively reweighted residuals for other losses. Whole
    exponents are structure and stay. Never worse than the input: where the fit does not help, the expression
    comes back as is.

    Args:
        expression: with finite values on every row.
        columns: a float64 tensor of shape (n,) for each variable.
        target: float64, shape (n,).
        weights: float64, shape (n,), or None.
        loss: what to minimise.
        tolerance: relative gain below which reweighting stops; mse needs none.
    """
    start = np.array(constants(expression))
    if start.size == 0 or len(target) < start.size:
        return expression

    def predict(values: Tensor) -> Tensor:
        return evaluate(expression, columns, values).expand_as(target)

    def loss_at(values: np.ndarray) -> float:
        return loss(predict(torch.from_numpy(values)), target, weights)

    base = torch.ones_like(target) if weights is None else weights
    best, best_loss = start, loss_at(start)
    rounds, steps = (1, _LM_STEPS) if loss.name == "mse" else (_IRLS_STEPS, _LM_STEPS_REWEIGHTED)
    for _ in range(rounds):
        residual = predict(torch.from_numpy(best)) - target
        if not bool(torch.isfinite(residual).all()):
            return expression
        row_scale = (base * loss.influence(residual)).sqrt()
        fitted = _least_squares(predict, target, row_scale, best, steps)
        fitted_loss = loss_at(fitted)
        if not fitted_loss < best_loss:
            break
        converged = best_loss - fitted_loss < tolerance * best_loss
        best, best_loss = fitted, fitted_loss
        if converged:
            break
    return with_constants(expression, [float(value) for value in best])


def _least_squares(
    predict: Callable[[Tensor], Tensor], target: Tensor, row_scale: Tensor, start: np.ndarray, steps: int
) -> np.ndarray:
    from scipy.optimize import least_squares  # slow to import

    def residuals(values: np.ndarray) -> np.ndarray:
        errors = row_scale * (predict(torch.from_numpy(values)) - target)
        finite: np.ndarray = np.nan_to_num(errors.numpy(), nan=1e150, posinf=1e150, neginf=-1e150)
        return finite

    def slopes(values: np.ndarray) -> np.ndarray:
        # A copy of the constants for every row: one reverse pass then gives the whole Jacobian, (k, n).
        copies = torch.from_numpy(values)[:, None].repeat(1, len(target)).requires_grad_()
        # Zero times the constants: a comparison alone gives autograd nothing to follow.
        (gradient,) = torch.autograd.grad(predict(copies).sum() + 0.0 * copies.sum(), copies)
        finite: np.ndarray = np.nan_to_num((row_scale * gradient).numpy().T)
        return finite

    # Looked at beside the start, where a factor of zero does not hide what it multiplies.
    free = _independent(slopes(start * (1 + _NUDGE) + _NUDGE))
    if free.size == 0:
        return start

    def whole(values: np.ndarray) -> np.ndarray:
        everything = start.copy()
        everything[free] = values
        return everything

    with np.errstate(all="ignore"):  # a step out of the domain overflows and is rejected by the loss
        fitted = whole(
            least_squares(
                lambda values: residuals(whole(values)),
                start[free],
                lambda values: slopes(whole(values))[:, free],
                method="lm",
                x_scale="jac",
                max_nfev=steps,
            ).x
        )
    return fitted if np.isfinite(fitted).all() else start


def _independent(slopes: np.ndarray) -> np.ndarray:
    """Positions of constants that others cannot make up for; shape of ``slopes``: (n, k).

    In a (b x + c) + d, two of the four are superfluous. Fitted all the same, they drift along the direction
    that changes nothing, as far as rounding takes them: large numbers, and other ones on every run.
    """
    from scipy.linalg import qr  # slow to import

    largest = np.abs(slopes).max(axis=0)
    active = np.flatnonzero(largest > 0)
    if active.size == 0:
        return active
    columns = slopes[:, active] / largest[active]
    # einsum, not a matrix product: on a few columns the threads of the latter wait longer than they work.
    products = np.einsum("ni,nj->ij", columns, columns)
    norms = np.sqrt(np.diag(products))
    triangle, order = qr(products / np.outer(norms, norms), mode="r", pivoting=True)
    rank = int((np.abs(np.diag(triangle)) > _SAME_DIRECTION).sum())
    return np.sort(active[order[:rank]])


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, the caller's setting afterwards.

    Fitting constants runs thousands of operations on a few thousand rows: too small to share out, and on a busy
    machine the threads wait for each other many times longer than they work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
