"""Passes of a model over text, with equations in the place of its MLPs: their variables, and the words it predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from symtorch_core import SymbolicModel
from symtorch_llm.models.transformer import get_device
from symtorch_llm.text import Batch

NOTHING = -1
"""Stands for a token beyond the ends of a sequence."""


@contextmanager
def watch_blocks(blocks: Mapping[str, SymbolicModel]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Give a dictionary that each pass of the model fills: path -> variables z and equations f(z), (..., k).

    Args:
        blocks: in their places, on equations.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    variables: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for path, block in blocks.items():
            assert block.surrogate is not None
            maps = block.surrogate.maps()

            def keep_inputs(_: nn.Module, args: Any, z: Tensor, path: str = path) -> None:
                variables[path] = z.detach()

            def keep_outputs(_: nn.Module, args: tuple[Tensor, ...], path: str = path) -> None:
                seen[path] = variables.pop(path), args[0].detach()

            hooks.callback(maps.down.register_forward_hook(keep_inputs).remove)
            hooks.callback(maps.up.register_forward_pre_hook(keep_outputs).remove)
        yield seen


def run_model(model: nn.Module, batch: Batch, wanted: Tensor | None = None) -> Tensor | None:
    """Run a model on a batch; return the log probabilities of what follows the wanted tokens, or None.

    Logits of other tokens are not computed: for a large vocabulary they take more time and memory than the rest.

    Args:
        model: with or without a language head.
        batch: of tokens.
        wanted: True for these tokens, shape (sequences, tokens); None for none.

    Returns:
        Shape (tokens, vocabulary), float32; None without a head or wanted tokens.
    """
    device = get_device(model)
    head = get_head(model)
    inputs = {key: value.to(device) for key, value in batch.items()}
    with torch.no_grad():
        if head is None:
            model(**inputs)
            return None
        rows = torch.zeros_like(batch["input_ids"], dtype=torch.bool) if wanted is None else wanted

        def keep_rows(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return args[0].flatten(0, -2)[rows.flatten().to(device)][None], *args[1:]

        handle = head.register_forward_pre_hook(keep_rows)
        try:
            logits = model(**inputs, use_cache=False).logits
        finally:
            handle.remove()
        return None if wanted is None else logits[0].float().log_softmax(-1)


def get_head(model: nn.Module) -> nn.Module | None:
    """Return the map from hidden states to words; None if the model has none."""
    anything: Any = model
    head: nn.Module | None = anything.get_output_embeddings()
    return head


def find_read_tokens(batch: Batch) -> Tensor:
    """Return True for tokens that are read, shape (sequences, tokens): neither padding nor the first of a sequence."""
    mask = batch["attention_mask"].bool().cpu()
    return mask & (mask.cumsum(1) > 1)


def cut_windows(batch: Batch, before: int, after: int) -> Tensor:
    """Return each read token with those around it, shape (tokens, before + 1 + after); -1 beyond a sequence's ends.

    >>> cut_windows({"input_ids": torch.tensor([[7, 8, 9]]), "attention_mask": torch.tensor([[1, 1, 0]])}, 2, 1)
    tensor([[-1,  7,  8, -1]])
    """
    ids = batch["input_ids"].cpu().masked_fill(~batch["attention_mask"].cpu().bool(), NOTHING)
    padded = nn.functional.pad(ids, (before, after), value=NOTHING)
    return padded.unfold(1, before + 1 + after, 1)[find_read_tokens(batch)]


def list_types(batches: Sequence[Batch]) -> Tensor:
    """Return the different tokens of a text, ascending."""
    return torch.cat([batch["input_ids"].unique() for batch in batches]).unique().cpu()
