"""Fidelity of the chosen equations for the outputs of a block, and inputs out of range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core.search.fidelity import Fidelity


@final
@dataclass(frozen=True)
class OutputFidelity:
    """Fidelity of the chosen equations for one output of the block.

    Attributes:
        train: fidelity on the rows of the fit; None if it could not be measured.
        held_out: fidelity on rows the search never saw; None if no rows were held out.
        out_of_range: fidelity on inputs beyond the range of the fit; None if the block cannot be evaluated there.
        linear: fidelity of the best linear map of the equations' variables, on held-out rows (on the rows of the fit
            if none were held out): the baseline that equations have to beat.
        truth: agreement with the user's own measurements, ``y_true`` of :func:`symtorch_core.distill`, on all of their
            rows; None if there are none.
    """

    train: Fidelity | None = None
    held_out: Fidelity | None = None
    out_of_range: Fidelity | None = None
    linear: Fidelity | None = None
    truth: Fidelity | None = None


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
