"""Rows of an MLP: those that modules are fitted to, and others that say how strongly to regularise and when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self, final

import torch
from torch import Tensor, nn

from symtorch_core import Activations

RIDGES: Final = (1e-6, 1e-2, 1e-1, 1.0)
"""Ridges to choose from, as shares of the inputs' mean variance."""


@final
@dataclass(frozen=True)
class Rows:
    """Inputs and outputs of an MLP.

    Attributes:
        fit: rows to fit to.
        stop: rows of other text, to choose and to stop by.
    """

    fit: Activations
    stop: Activations

    @classmethod
    def split(cls, rows: Activations, share: float = 0.125) -> Self:
        """Hold out the last rows to stop by; right only if no text has rows on both sides."""
        held = max(1, round(share * len(rows)))
        cut = len(rows) - held
        return cls(
            *(
                Activations.of(rows.inputs[part], rows.outputs[part])
                for part in (slice(cut), slice(cut, None))
            )
        )


def compute_stop_loss(module: nn.Module, rows: Rows) -> float:
    """Return the mean squared error of a module on the rows to stop by, as a share of their variance."""
    X, Y = rows.stop.inputs.float(), rows.stop.outputs.float()
    with torch.no_grad():
        outputs: Tensor = module(X)
    return float((outputs - Y).square().mean() / (Y - Y.mean(0)).square().mean().clamp_min(1e-12))
