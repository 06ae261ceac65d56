"""Fidelity: how well equations replace a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from symtorch_core.activations.rows import BlockFunction
from symtorch_core.storage.documents import encode_number


@final
@dataclass(frozen=True)
class Fidelity:
    """Agreement of predictions with a block's outputs, for one output.

    Attributes:
        r2: share of the variance explained, 1 - nmse; NaN for a constant output that is not matched exactly.
        nmse: mean squared error over the variance of the output.
        max_error: largest absolute error, in units of the output.
        mae: mean absolute error, in units of the output.
        rows: number of rows compared.
    """

    r2: float
    nmse: float
    max_error: float
    mae: float
    rows: int

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON data; NaN and infinities become words."""
        numbers = {name: encode_number(value) for name, value in vars(self).items() if name != "rows"}
        return {**numbers, "rows": self.rows}


@final
@dataclass(frozen=True)
class OutputFidelity:
    """Fidelity of the chosen equations for one output of the block.

    Attributes:
        train: fidelity on the rows of the fit.
        held_out: fidelity on rows the search never saw; None if no rows were held out.
        out_of_range: fidelity on inputs beyond the range of the fit; None if the block cannot be evaluated there.
        linear: fidelity of the best linear map of the equations' variables, on held-out rows (on the rows of the fit
            if none were held out): the baseline that equations have to beat.
        truth: agreement with the user's own measurements, ``y_true`` of :func:`symtorch_core.distill`, on all of their
            rows; None if there are none.
    """

    train: Fidelity
    held_out: Fidelity | None = None
    out_of_range: Fidelity | None = None
    linear: Fidelity | None = None
    truth: Fidelity | None = None


def measure_fidelity(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> list[Fidelity]:
    """Return the fidelity of each output.

    Args:
        prediction: shape (n, k).
        target: shape (n, k).
        weights: shape (n,), non-negative, or None.

    >>> exact = measure_fidelity(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]))
    >>> exact[0].r2, exact[0].max_error
    (1.0, 0.0)
    """
    prediction, target = prediction.double(), target.double()
    share = torch.full((len(target),), 1.0 / len(target), dtype=torch.float64)
    if weights is not None:
        share = weights.double() / weights.double().sum()
    error = prediction - target
    mean = (share[:, None] * target).sum(0)
    variance = (share[:, None] * (target - mean).square()).sum(0)
    squared = (share[:, None] * error.square()).sum(0)
    absolute = (share[:, None] * error.abs()).sum(0)
    counted = target[share > 0]
    constant = (counted == counted[0]).all(0)
    result = []
    for column in range(target.shape[1]):
        mse, spread = float(squared[column]), float(variance[column])
        # Rounding of the mean may give a constant column a small variance.
        exact = 0.0 if mse == 0 else math.nan
        nmse = exact if constant[column] or spread == 0 else mse / spread
        result.append(
            Fidelity(
                1 - nmse, nmse, float(error[:, column].abs().max()), float(absolute[column]), len(target)
            )
        )
    return result


def extrapolate_inputs(inputs: Tensor, stretch: float = 1.5) -> Tensor:
    """Return inputs outside the range of the given ones, shape (n, d).

    Every row is moved away from the middle of each column's range until it lies on a box ``stretch`` times as wide
    in its most extreme column, so that all rows are out of range in at least one variable.

    Args:
        inputs: shape (n, d).
        stretch: width of the new box in units of the old one.
    """
    low, high = inputs.min(0).values, inputs.max(0).values
    middle, half = (low + high) / 2, (high - low) / 2
    offset = inputs - middle
    reach = torch.where(half > 0, offset.abs() / half.clamp_min(1e-30), 0.0).max(dim=1, keepdim=True).values
    return middle + offset * (stretch / reach.clamp_min(1e-6)).clamp_max(1e3)


def measure_out_of_range(
    predict: BlockFunction, block: BlockFunction, inputs: Tensor, outputs: Sequence[int], stretch: float = 1.5
) -> list[Fidelity]:
    """Return the fidelity of each output on inputs beyond the training range.

    Args:
        predict: the equations, as a function of rows.
        block: the block, as a function of rows.
        inputs: training inputs, shape (n, d).
        outputs: the block's output columns that ``predict`` returns.
        stretch: how far out of range; see :func:`extrapolate_inputs`.
    """
    far = extrapolate_inputs(inputs, stretch)
    return measure_fidelity(predict(far), block(far)[:, list(outputs)])
