"""A block as a function of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import find_device, find_dtype, takes_arrays
from symtorch_core.activations.frames import build_frame, is_frame, read_columns
from symtorch_core.activations.rows import Activations, BlockFunction, Source, as_feature_rows
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.activations.tensor_paths import flatten_tensors, pick_tensor

_PROBE_ROWS = 16
CONVOLUTION = (
    "; of a convolution, whose channels are dimension 1, take patches as rows: "
    "st.distill((torch.nn.functional.unfold(x, kernel_size).mT, block(x).flatten(2).mT))"
)
"""How to get rows of a convolution, for messages."""


def as_row_function(block: Callable[..., Any], activations: Activations) -> BlockFunction | None:
    """Return the block as a function (n, d_in) -> (n, d_out), or None if it is not a function of rows.

    A block qualifies if it takes one positional tensor or array and returns the captured outputs for the captured
    inputs, whatever shape they had. Attention, which mixes rows, does not qualify. See :func:`to_row_function`.

    Args:
        block: the module or function that the activations came from.
        activations: the captured rows, with their source.
    """
    if activations.source.select_input != ("0",):
        return None
    function = to_row_function(block, activations.source)
    # Some rows, in another order than they came: a block that mixes rows would show the same for the same sequence.
    count = len(activations)
    probe = activations.rows(torch.arange(min(1, count - 1), count, max(2, count // _PROBE_ROWS)).flip(0))
    return function if _reproduces(function, probe) else None


def warn_of_mixing(block: Callable[..., Any], activations: Activations) -> None:
    """Warn if a block that is no function of rows has a layer that mixes rows, as attention does."""
    layers = block.modules() if isinstance(block, nn.Module) else ()
    mixing = next((type(layer).__name__ for layer in layers if _mixes(layer)), None)
    if mixing is not None:
        warnings.warn(
            f"{mixing} in {activations.source.block} mixes rows (tokens, times, neighbours): outputs of one row depend "
            "on others, and equations of one row cannot follow. Distill a part that treats rows one by one, such as an "
            f"MLP after it{CONVOLUTION if mixing.startswith('Conv') else ''}",
            RuntimeWarning,
            stacklevel=3,
        )


def _mixes(layer: nn.Module) -> bool:
    kinds = (nn.RNNBase, nn.MultiheadAttention, nn.modules.conv._ConvNd)
    return isinstance(layer, kinds) or "Attention" in type(layer).__name__


def to_row_function(block: Callable[..., Any], source: Source) -> BlockFunction:
    """Return the block as a function (n, d_in) -> (n, d_out), whether or not it is one.

    A module is given tensors of its own type and on its device. A function is given what the data were, tensors,
    arrays or data frames; with arrays and frames there are no gradients.

    Args:
        block: the module or function that the activations came from.
        source: their source.
    """
    device, dtype = find_device(block), find_dtype(block)

    def convert(rows: Tensor) -> Any:
        if source.arrays and takes_arrays(block):
            array = rows.detach().numpy()
            return build_frame(array, source.columns) if source.columns else array
        return rows.to(device or rows.device, dtype or rows.dtype)

    def evaluate(rows: Tensor) -> Tensor:
        with preserve_state(block, gradients=rows.requires_grad):
            _, output = pick_tensor(
                flatten_tensors(block(convert(rows))), source.select_output or None, source.block
            )
        output = output[..., None] if source.scalar_output else output
        return as_feature_rows(output).to(rows)

    return evaluate


def restore_form(rows: np.ndarray, data: Any) -> Any:
    """Return rows as what the data are: a tensor or array of their type and row shape, or a data frame.

    Captures that make rows of their own give them to the model in this form.

    Args:
        rows: shape (n, d), each row of the data flat.
        data: a tensor, array or data frame.

    >>> restore_form(np.zeros((1, 4)), torch.ones(5, 2, 2, dtype=torch.float32)).shape
    torch.Size([1, 2, 2])
    """
    if is_frame(data):
        return build_frame(rows, read_columns(data))
    if isinstance(data, Tensor):
        dtype = data.dtype if data.is_floating_point() else torch.get_default_dtype()
        return torch.from_numpy(rows).to(data.device, dtype).reshape(-1, *data.shape[1:])
    array = np.asarray(data)
    kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    return rows.astype(kind).reshape(-1, *array.shape[1:])


def _reproduces(function: BlockFunction, probe: Activations) -> bool:
    try:
        again = function(probe.inputs)
    except Exception:  # any block may refuse plain rows in its own way
        return False
    if again.shape != probe.outputs.shape:
        return False
    return torch.allclose(again.double(), probe.outputs.double(), rtol=1e-3, atol=1e-4)


def find_linear_widths(block: nn.Module) -> tuple[int | None, int | None]:
    """Return the numbers of inputs and outputs of a linear layer, or of a Sequential from one to another; or None.

    >>> find_linear_widths(nn.Sequential(nn.Linear(3, 8), nn.Tanh()))
    (3, None)
    """
    if isinstance(block, nn.Linear):
        return block.in_features, block.out_features
    if isinstance(block, nn.Sequential) and len(block) > 0:
        return find_linear_widths(block[0])[0], find_linear_widths(block[-1])[1]
    return None, None
