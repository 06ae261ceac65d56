"""Targets in the data of a refinement: pairs of inputs and measured outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from symtorch_core.activations.batches import (
    has_rows,
    is_pair,
    iterate_batches,
    peek_batch,
    read_table,
    to_arguments,
)
from symtorch_core.activations.frames import slice_rows
from symtorch_core.activations.rows import Activations
from symtorch_core.errors import CaptureError
from symtorch_core.model.block_wrapper import BlockWrapper

_CHOICE = 'give targets="data" to fit the equations to it, or targets="block" to leave it out'


def refuse_idle(data: Any, takes: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Refuse data with a part that the model does not take: whoever gives it expects it to count.

    Args:
        data: the data.
        takes: the model that is called with their batches.
        options: options of the capture; a mask of rows may be made of that part.

    Returns:
        Data to read in their place.

    Raises:
        CaptureError: the data are a pair of arrays, or batches with more parts than the model takes.
    """
    if isinstance(data, tuple) and is_pair(data):
        raise CaptureError(
            f"the data are a pair (X, Y), and nothing says what Y is for: {_CHOICE}; give a list [X, Y] if both are "
            "batches of inputs, and [(X, Y)] if they are the arguments of one call"
        )
    batch, data = peek_batch(data, 1)
    if batch is None and not isinstance(data, Iterator):
        batch = next(iter(data), None)
    if isinstance(batch, (tuple, list)) and options.get("row_mask") is None:
        taken = len(to_arguments(takes, batch)[0])
        if taken < len(batch):
            raise CaptureError(
                f"the batches have {len(batch)} parts, but the model takes {taken}, and nothing says what the rest is "
                f"for: {_CHOICE}"
            )
    return data


def pair_batches(data: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Yield the batches (x, y) of a pair of arrays, or of an iterable of such batches.

    Raises:
        CaptureError: the data are no pairs.
    """
    if is_pair(data):
        X, Y = map(read_table, data)
        for start in range(0, len(X), batch_size):
            part = slice(start, start + batch_size)
            yield slice_rows(X, part), slice_rows(Y, part)
        return
    if isinstance(data, Mapping) or has_rows(read_table(data)):
        raise CaptureError(
            f'targets="data" takes a pair (X, Y) or batches (x, y), not a {type(data).__name__}'
        )
    for batch in data if isinstance(data, tuple) else iterate_batches(data, batch_size):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise CaptureError(
                'targets="data" takes a pair (X, Y) of arrays with as many rows, or batches (x, y)'
            )
        yield batch[0], batch[1]


def read_rows(data: Any, block: BlockWrapper) -> Activations:
    """Return pairs of a block's inputs and measured outputs as rows.

    Raises:
        CaptureError: the data are no pairs of arrays, or do not have the block's numbers of inputs and outputs.
    """
    parts = [Activations.of(x, y) for x, y in pair_batches(data, batch_size=2**20)]
    if not parts:
        raise CaptureError("the data are empty: give at least one row")
    rows = Activations(
        torch.cat([part.inputs for part in parts]), torch.cat([part.outputs for part in parts])
    )
    result = block.distillation
    for side, found, expected in (
        ("inputs", rows.inputs.shape[1], len(result.transforms.input_names)),
        ("outputs", rows.outputs.shape[1], result.block_outputs),
    ):
        if found != expected:
            raise CaptureError(
                f"the pairs have {found} {side}, {block.name} has {expected}: give (X, Y) with a column for each"
            )
    return rows
