"""Fidelity: how well predictions agree with a block's outputs, and its records in a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import msgspec
import torch
from torch import Tensor

from symtorch_core.storage.documents import Count, Number, encode_number


@final
class FidelityRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of one :class:`Fidelity` in a file."""

    r2: Number
    nmse: Number
    max_error: Number
    mae: Number
    rows: Count


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

    @classmethod
    def from_record(cls, record: FidelityRecord) -> Fidelity:
        """Build a fidelity from its record."""
        return cls(
            float(record.r2), float(record.nmse), float(record.max_error), float(record.mae), record.rows
        )


@final
class EquationFidelityRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fidelity of one equation in a file."""

    train: FidelityRecord | None
    held_out: FidelityRecord | None
    out_of_range: FidelityRecord | None
    truth: FidelityRecord | None


@final
@dataclass(frozen=True)
class EquationFidelity:
    """Fidelity of one equation beside its own target: an output of the block, or what a reducer makes of outputs.

    Attributes:
        train: fidelity on the rows of the fit; None if it was not measured.
        held_out: fidelity on rows the search never saw; None if no rows were held out.
        out_of_range: fidelity on inputs beyond the range of the fit; None if the block cannot be evaluated there.
        truth: agreement with the user's own measurements; None if there are none.
    """

    train: Fidelity | None = None
    held_out: Fidelity | None = None
    out_of_range: Fidelity | None = None
    truth: Fidelity | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON data."""
        return {name: value and value.to_json() for name, value in vars(self).items()}

    @classmethod
    def from_record(cls, record: EquationFidelityRecord) -> EquationFidelity:
        """Build a fidelity from its record."""
        parts = (record.train, record.held_out, record.out_of_range, record.truth)
        return cls(*(None if part is None else Fidelity.from_record(part) for part in parts))


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
