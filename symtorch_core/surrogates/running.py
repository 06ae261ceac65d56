"""Running of equations in a block's place: find inputs, compute, and mix with the block.

Equations compute with tensors. A block that is a function of numpy arrays is given arrays, so its equations give arrays
back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from symtorch_core.activations.batches import find_device
from symtorch_core.activations.frames import align_columns, is_frame
from symtorch_core.activations.rows import Source
from symtorch_core.activations.tensor_paths import (
    collect_call_tensors,
    flatten_tensors,
    holds_arrays,
    pick_inputs,
    pick_tensor,
    replace_tensor,
)
from symtorch_core.errors import SwitchError
from symtorch_core.surrogates.surrogate import Surrogate


@final
@dataclass(frozen=True)
class Replacement:
    """Equations in the place of a block.

    Attributes:
        surrogate: the equations.
        source: origin of the activations: the tensors that the equations were fitted to.
        outputs: columns of the block's output that they compute.
        block_outputs: number of columns of the block's output.
    """

    surrogate: Surrogate
    source: Source
    outputs: tuple[int, ...]
    block_outputs: int


def move_to_block(surrogate: Surrogate, block: Any) -> Surrogate:
    """Move equations to a block's device and return them; unmoved if the block has no tensors."""
    device = find_device(block)
    return surrogate if device is None else surrogate.to(device)


def apply_mask(outputs: Tensor, mask: Tensor | None) -> Tensor:
    """Return outputs, shape (..., d), with zeros where the mask, shape (d,), is False; None changes nothing."""
    return outputs if mask is None else torch.where(mask, outputs, 0)


def to_array(tensor: Tensor) -> Any:
    """Return a tensor as a numpy array or, without dimensions, a number of numpy's; neither carries gradients."""
    return tensor.detach().cpu().numpy()[()]


def _put_back(result: Any, path: str, tensor: Tensor) -> Any:
    """Return a block's result with a tensor replaced, as an array if the block gives arrays."""
    return replace_tensor(result, path, to_array(tensor) if holds_arrays(result) else tensor)


def mask_result(result: Any, mask: Tensor, name: str) -> Any:
    """Return a block's result with pruned outputs set to zero; ``name`` is the block's name, for messages."""
    path, tensor = pick_tensor(flatten_tensors(result), None, f"the result of {name}")
    return _put_back(result, path, apply_mask(tensor, mask))


def find_inputs(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    source: Source,
    aliases: Mapping[str, str],
    name: str,
) -> Tensor:
    """Return the equations' inputs from the tensors of a call, passed by position or by keyword.

    Args:
        args, kwargs: arguments of the call; of a data frame, columns are found by their names.
        source: origin of the activations, with the captured tensors.
        aliases: position of each argument by its name, and back.
        name: name of the block, for messages.
    """
    args = tuple(align_columns(value, source.columns) if is_frame(value) else value for value in args)
    tensors = collect_call_tensors(args, kwargs)
    x, _ = pick_inputs(tensors, source.select_input or ("0",), name, aliases)
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def compute_columns(surrogate: Surrogate, x: Tensor, given: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Return the wanted output columns by equations, shape (..., len(wanted)).

    Args:
        surrogate: the equations, for the columns ``given``.
        x: inputs, shape (..., d_in), or a nested tensor, as a stock TransformerEncoder packs padded batches.
        given, wanted: output columns of the block.
    """
    if x.is_nested:
        y: Tensor = torch.nested.as_nested_tensor([surrogate(part) for part in x.unbind()])
    else:
        y = surrogate(x)
    return y if tuple(wanted) == tuple(given) else y[..., [list(given).index(c) for c in wanted]]


def spread_columns(y: Tensor, columns: Sequence[int], count: int) -> Tensor:
    """Return ``count`` output columns that are zero except for the given ones, shape (..., count).

    Args:
        y: the given columns, shape (..., len(columns)).
        columns: their positions.
        count: number of columns of the result.
    """
    if len(columns) == count:
        return y
    index = torch.tensor(list(columns), device=y.device)
    return y.new_zeros(*y.shape[:-1], count).index_copy(-1, index, y)


def mix_columns(
    result: Any,
    y: Tensor,
    columns: Sequence[int],
    source: Source,
    mask: Tensor | None,
    name: str,
    count: int,
) -> Any:
    """Return a block's result with some of its output columns by equations.

    Args:
        result: result of the block.
        y: the columns by equations, shape (..., len(columns)).
        columns: their positions in the block's output.
        source: origin of the activations: which tensor was captured, and whether it has no feature dimension.
        mask: True for active outputs, or None.
        name: name of the block, for messages.
        count: number of columns of the block that the equations were found for.

    Raises:
        SwitchError: the block has another number of columns.
    """
    path = source.select_output or ""
    _, neural = pick_tensor(flatten_tensors(result), path, f"the result of {name}")
    if source.scalar_output:
        mixed = y.squeeze(-1).to(neural.dtype)
    else:
        if neural.shape[-1] != count:
            raise SwitchError(
                f"the equations are of a block with {count} outputs, but {name} gives {neural.shape[-1]}: they are "
                "another block's"
            )
        index = torch.tensor(list(columns), device=neural.device)
        mixed = apply_mask(neural.index_copy(-1, index, y.to(neural.dtype)), mask)
    if source.overwrites is not None:  # the result lies in an argument of the call
        neural.copy_(mixed)
        return result
    return _put_back(result, path, mixed)


def overwrite_argument(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    path: str,
    y: Tensor,
    aliases: Mapping[str, str],
    name: str,
) -> Tensor:
    """Write a result into an argument of the call, as the block does, and return the argument.

    Args:
        args, kwargs: arguments of the call.
        path: the argument.
        y: the result, of its shape.
        aliases: position of each argument by its name, and back.
        name: name of the block, for messages.
    """
    target, _ = pick_inputs(collect_call_tensors(args, kwargs), (path,), name, aliases)
    return target.copy_(y)
