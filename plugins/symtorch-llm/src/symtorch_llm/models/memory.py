"""Memory of a run, known before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import psutil  # type: ignore[import-untyped]
import torch

from symtorch_core import SearchError

_COPIES = 4
"""Of the predictions of a batch in float32: their logarithms, what is taken of them, and gradients."""


@final
@dataclass(frozen=True)
class Needs:
    """Bytes that a run needs beside the model.

    Attributes:
        rows: inputs and outputs of all captured MLPs, and once more of one of them while it is fitted.
        predictions: of a batch.
    """

    rows: int
    predictions: int

    @property
    def total(self) -> int:
        """Bytes of all."""
        return self.rows + self.predictions

    def __str__(self) -> str:
        """Return them in words.

        >>> str(Needs(2_000_000_000, 500_000_000))
        '2.5 GB beside the model (2 GB for rows, 0.5 GB for predictions)'
        """
        return (
            f"{write_bytes(self.total)} beside the model ({write_bytes(self.rows)} for rows, "
            f"{write_bytes(self.predictions)} for predictions)"
        )


def estimate_needs(*, layers: int, rows: int, width: int, sequences: int, length: int, outputs: int) -> Needs:
    """Estimate the memory of a run.

    Args:
        layers: number of MLPs that are captured.
        rows: of each.
        width: of the model.
        sequences, length: of a batch.
        outputs: numbers that the model gives for a token.
    """
    size = torch.float32.itemsize
    of_one = rows * 2 * width * size
    return Needs(of_one * layers + 2 * of_one, _COPIES * sequences * length * outputs * size)


def check_free(needs: Needs) -> None:
    """Refuse a run that does not fit into the memory that is free.

    Raises:
        SearchError: it does not fit; the message says how it could.
    """
    free = get_free_memory()
    if needs.total > free:
        raise SearchError(
            f"the run needs {needs}, and {write_bytes(free)} are free: give fewer --rows, or --batch 1 and a shorter "
            "--length"
        )


def get_free_memory() -> int:
    """Return the bytes of memory that can be used without swapping."""
    return int(psutil.virtual_memory().available)


def write_bytes(number: int) -> str:
    """Return a number of bytes in words.

    >>> write_bytes(7_100_000_000)
    '7.1 GB'
    """
    return f"{number / 1e9:.3g} GB"
