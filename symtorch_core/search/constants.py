"""Refitting of an equation's constants: least squares, reweighted for losses other than mse."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.expressions import Expression, constants, evaluate, with_constants
from symtorch_core.search.deadline import NEVER, Deadline
from symtorch_core.search.losses import Loss

CONVERGED: Final = 1e-4
"""Default relative gain in loss below which reweighting stops."""
_IRLS_STEPS = 20
_LM_STEPS = 50
_LM_STEPS_REWEIGHTED = 6
_NUDGE = 1e-3
"""Share of a constant by which it is moved, and the move of a zero."""
_SAME_DIRECTION = 1e-12


def refit_constants(
    expression: Expression,
    columns: Mapping[str, Tensor],
    target: Tensor,
    weights: Tensor | None,
    loss: Loss,
    tolerance: float = CONVERGED,
    deadline: Deadline = NEVER,
    exact: Collection[int] = (),
) -> Expression:
    """Return the same structure with constants that minimise the loss, by a local search from the present ones.

    The search is Levenberg-Marquardt for mse, and the same on iteratively reweighted residuals for other losses.
    Integer exponents belong to the structure and are not fitted. The result is never worse than the input: where
    the fit does not help, the expression is returned unchanged.

    Args:
        expression: finite on every row.
        columns: a float64 tensor of shape (n,) for each variable.
        target: float64, shape (n,).
        weights: float64, shape (n,), or None.
        loss: the loss to minimise.
        tolerance: relative gain in loss below which reweighting stops; not used for mse.
        deadline: when to stop; the constants after the last finished round are returned.
        exact: positions of constants that stay as they are.
    """
    start = np.array(constants(expression))
    if start.size == 0 or len(target) < start.size or deadline.is_over():
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
        # The residuals that least squares sees are near one, whatever the units: its first step is a number.
        size = float((row_scale * residual).abs().max())
        if 0 < size < math.inf:
            row_scale = row_scale / size
        refitted = _least_squares(predict, target, row_scale, best, steps, deadline, list(exact))
        refitted_loss = loss_at(refitted)
        if not refitted_loss < best_loss:
            break
        converged = best_loss - refitted_loss < tolerance * best_loss
        best, best_loss = refitted, refitted_loss
        if converged or deadline.is_over():
            break
    return with_constants(expression, [float(value) for value in best])


def _least_squares(
    predict: Callable[[Tensor], Tensor],
    target: Tensor,
    row_scale: Tensor,
    start: np.ndarray,
    steps: int,
    deadline: Deadline,
    fixed: Sequence[int],
) -> np.ndarray:
    from scipy.optimize import least_squares  # slow to import

    def residuals(values: np.ndarray) -> np.ndarray:
        if deadline.is_over():
            raise _TimeIsUpError
        errors = row_scale * (predict(torch.from_numpy(values)) - target)
        finite: np.ndarray = np.nan_to_num(errors.numpy(), nan=1e150, posinf=1e150, neginf=-1e150)
        return finite

    def slopes(values: np.ndarray) -> np.ndarray:
        gradient = compute_slopes(predict, torch.from_numpy(values), len(target))
        finite: np.ndarray = np.nan_to_num((row_scale * gradient).numpy().T)
        finite[:, fixed] = 0.0  # a constant that changes nothing is not moved
        return finite

    # Slopes beside the start: at the start itself, a factor of zero would hide what it multiplies.
    free = _find_independent(slopes(np.where(start == 0, _NUDGE, start * (1 + _NUDGE))))
    if free.size == 0:
        return start

    def with_free(values: np.ndarray) -> np.ndarray:
        complete = start.copy()
        complete[free] = values
        return complete

    # A step out of the domain overflows and is rejected by the loss.
    with np.errstate(all="ignore"), suppress(_TimeIsUpError):
        refitted = with_free(
            least_squares(
                lambda values: residuals(with_free(values)),
                start[free],
                lambda values: slopes(with_free(values))[:, free],
                method="lm",
                x_scale="jac",
                max_nfev=steps,
            ).x
        )
        if np.isfinite(refitted).all():
            return refitted
    return start


def compute_slopes(predict: Callable[[Tensor], Tensor], values: Tensor, rows: int) -> Tensor:
    """Return the derivative of each row's prediction by each constant, shape (k, rows).

    Args:
        predict: function from constants, shape (k,) or (k, rows), to predictions, shape (rows,).
        values: the constants, shape (k,).
        rows: number of rows.
    """
    # A copy of the constants for every row: one reverse pass then gives the whole Jacobian.
    copies = values[:, None].repeat(1, rows).requires_grad_()
    # Zero times the constants: a comparison alone gives autograd nothing to follow.
    (gradient,) = torch.autograd.grad(predict(copies).sum() + 0.0 * copies.sum(), copies)
    return gradient


class _TimeIsUpError(Exception):
    """The deadline is over; scipy's search can only be left by an error."""


def _find_independent(slopes: np.ndarray) -> np.ndarray:
    """Return the positions of constants that no others can replace; ``slopes`` has shape (n, k).

    In a (b x + c) + d, two of the four constants are superfluous. If fitted, they drift along the direction that
    changes nothing as far as rounding takes them, and end at large numbers that differ from run to run.
    """
    from scipy.linalg import qr  # slow to import

    largest = np.abs(slopes).max(axis=0)
    active = np.flatnonzero(largest > 0)
    if active.size == 0:
        return active
    columns = slopes[:, active] / largest[active]
    # einsum, not a matrix product: on a few columns, the threads of a product wait longer than they work.
    products = np.einsum("ni,nj->ij", columns, columns)
    norms = np.sqrt(np.diag(products))
    triangle, order = qr(products / np.outer(norms, norms), mode="r", pivoting=True)
    rank = int((np.abs(np.diag(triangle)) > _SAME_DIRECTION).sum())
    return np.sort(active[order[:rank]])


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one thread, and restore the caller's setting afterwards.

    Fitting constants runs thousands of operations on a few thousand rows: too little to share, and on a busy
    machine the threads wait for each other many times longer than they work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
