"""The whole model on equations: its own output, with equations in place of one of its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import to_arguments
from symtorch_core.activations.hooks import disable_fused_attention
from symtorch_core.activations.rows import Source
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.activations.tensor_paths import flatten_tensors, get_argument_aliases
from symtorch_core.activations.watching import watch_calls
from symtorch_core.surrogates.running import compute_columns, find_inputs, mix_columns
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.verification.fidelity import Fidelity, measure_fidelity

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
    with preserve_state(model), disable_fused_attention():
        tensors = flatten_tensors(model(*args, **kwargs)).values()
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not floating:
        return None
    numbers = max(floating, key=torch.numel).reshape(-1)
    return numbers[:: max(1, -(-len(numbers) // _MOST_NUMBERS))].detach().cpu()


@contextmanager
def substitute(
    block: nn.Module, surrogate: Surrogate, source: Source, outputs: Sequence[int]
) -> Iterator[None]:
    """Replace output columns of every call of a module by equations inside the context.

    Args:
        block: the module; it still runs.
        surrogate: the equations.
        source: origin of the activations: the tensors that the equations were fitted to.
        outputs: columns that the surrogate computes.
    """
    aliases = get_argument_aliases(block)
    entered: list[Tensor] = []  # a stack: a block may call itself

    def before(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A copy, because the block may change it in place.
        entered.append(find_inputs(args, kwargs, source, aliases, source.block).clone())

    def after(result: Any) -> Any:
        y = compute_columns(surrogate, entered.pop(), outputs, outputs)
        return mix_columns(result, y, outputs, source, None, source.block)

    with watch_calls(block, before, after):
        yield


def measure_model(
    model: Callable[..., Any],
    block: nn.Module,
    surrogate: Surrogate,
    source: Source,
    outputs: Sequence[int],
    batch: Any,
) -> Fidelity | None:
    """Return the agreement of a model's own output, with equations in place of a block, with its output without.

    Args:
        model: the model that calls the block.
        block, surrogate, source, outputs: as for :func:`substitute`.
        batch: a batch, prepared for the model.
    """
    neural = run_model(model, batch)
    with substitute(block, surrogate, source, outputs):
        changed = run_model(model, batch)
    if neural is None or changed is None:
        return None
    return measure_fidelity(changed[:, None], neural[:, None])[0]
