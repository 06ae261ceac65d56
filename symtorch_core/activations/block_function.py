"""A block seen as a function of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from symtorch_core.activations.rows import Activations, BlockFunction, Source, as_feature_rows
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.activations.tensor_paths import flatten_tensors, pick_tensor

_PROBE_ROWS = 16


def as_row_function(block: Callable[..., Any], activations: Activations) -> BlockFunction | None:
    """The block as a function (n, d_in) -> (n, d_out), differentiable where it is, or None where it is none.

    A block qualifies when it takes one positional tensor (a function, perhaps, one array) and gives the
    captured outputs back for captured inputs whatever shape they once came in; attention, which mixes rows,
    does not.

    Args:
        block: the module or function the activations came from.
        activations: what was captured, with its source.
    """
    if activations.source.select_input != ("0",):
        return None
    parameters = list(block.parameters()) if isinstance(block, nn.Module) else []
    like = next((p for p in parameters if p.is_floating_point()), None)
    ways: list[Callable[[Tensor], Any]] = [
        lambda rows: rows if like is None else rows.to(like.device, like.dtype)
    ]
    if not isinstance(block, nn.Module):
        ways.append(lambda rows: rows.numpy())
    probe = activations.rows(torch.arange(min(_PROBE_ROWS, len(activations))))
    functions = (_as_block_function(block, way, activations.source) for way in ways)
    return next((function for function in functions if _reproduces(function, probe)), None)


def _as_block_function(
    block: Callable[..., Any], convert: Callable[[Tensor], Any], source: Source
) -> BlockFunction:
    def evaluate(rows: Tensor) -> Tensor:
        with preserve_state(block, gradients=rows.requires_grad):
            _, output = pick_tensor(
                flatten_tensors(block(convert(rows))), source.select_output or None, source.block
            )
        output = output[..., None] if source.scalar_output else output
        return as_feature_rows(output).to(rows)

    return evaluate


def _reproduces(function: BlockFunction, probe: Activations) -> bool:
    try:
        again = function(probe.inputs)
    except Exception:  # any block may refuse plain rows in its own way
        return False
    if again.shape != probe.outputs.shape:
        return False
    return torch.allclose(again.double(), probe.outputs.double(), rtol=1e-3, atol=1e-4)
