"""The whole model on equations: its own output, with equations in place of one of its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import to_arguments
from symtorch_core.activations.hooks import avoid_fused_attention
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.activations.tensor_paths import flatten_tensors, get_argument_aliases
from symtorch_core.activations.watching import watch_calls
from symtorch_core.search.fidelity import Fidelity, measure_fidelity
from symtorch_core.surrogates.running import Replacement, compute_columns, find_inputs, mix_columns

BATCH_ROWS: Final = 256
"""Rows of a tensor or array that the whole model is run on."""
_MOST_NUMBERS = 1_000_000  # of an output; logits over a vocabulary may have a thousand times as many


def run_model(model: Callable[..., Any], batch: Any) -> Tensor | None:
    """Return the model's output on a batch as a vector of at most a million numbers.

    Args:
        model: a module or function; it runs in evaluation mode without gradients, and is left as it was.
        batch: a batch, prepared for the model.

    Returns:
        Shape (n,), on the CPU: numbers of the largest floating-point tensor in the output; None if it has none.
    """
    args, kwargs = to_arguments(model, batch)
    with preserve_state(model), avoid_fused_attention(model):
        tensors = flatten_tensors(model(*args, **kwargs)).values()
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not floating:
        return None
    numbers = max(floating, key=torch.numel).reshape(-1)
    return numbers[:: max(1, -(-len(numbers) // _MOST_NUMBERS))].detach().cpu()


@contextmanager
def substitute(block: nn.Module, replacement: Replacement) -> Iterator[None]:
    """Replace outputs of every call of a module, which still runs, by those of equations inside the context."""
    source, aliases = replacement.source, get_argument_aliases(block)
    entered: list[Tensor] = []  # a stack: a block may call itself

    def before(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A copy, because the block may change it in place.
        entered.append(find_inputs(args, kwargs, source, aliases, source.block).clone())

    def after(result: Any) -> Any:
        columns = replacement.outputs
        y = compute_columns(replacement.surrogate, entered.pop(), columns, columns)
        return mix_columns(result, y, columns, source, None, source.block, replacement.block_outputs)

    with watch_calls(block, before, after):
        yield


def measure_model(
    model: Callable[..., Any], block: nn.Module, replacement: Replacement, batch: Any
) -> Fidelity | None:
    """Return the agreement of a model's own output, with equations in place of a block, with its output without.

    Args:
        model: the model that calls the block.
        block: the block.
        replacement: the equations in its place.
        batch: a batch, prepared for the model.
    """
    neural = run_model(model, batch)
    with substitute(block, replacement):
        changed = run_model(model, batch)
    if neural is None or changed is None:
        return None
    return measure_fidelity(changed[:, None], neural[:, None])[0]
