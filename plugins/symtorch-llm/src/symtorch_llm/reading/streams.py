"""What lies around blocks in a model: the norms before and after them, the final norm, and the head."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core import SymbolicModel
from symtorch_llm.models.transformer import place_modules
from symtorch_llm.reading.contexts import show_token
from symtorch_llm.reading.lens import Lens, Passage, is_readable
from symtorch_llm.reading.passes import find_read_tokens, get_head, list_types, run_model
from symtorch_llm.text import Batch

_SEQUENCES, _TOKENS = 4, 64
_HEAD = ""  # no module that is watched has this path


@final
@dataclass(frozen=True, eq=False)
class Site:
    """What lies between a block and the residual stream: norms before and after it, where there are any."""

    before: Passage = field(default_factory=Passage)
    after: Passage = field(default_factory=Passage)


@final
@dataclass(frozen=True, eq=False)
class Streams:
    """What lies around blocks in a model.

    Attributes:
        lens: None where directions cannot be turned into words.
        why: there is none; empty if there is one.
        sites: of the blocks, by path.
    """

    lens: Lens | None
    why: str
    sites: Mapping[str, Site]


def find_streams(
    model: nn.Module, tokenizer: Any, blocks: Mapping[str, SymbolicModel], batches: Sequence[Batch]
) -> Streams:
    """Find norms and head by what goes through them when a few sequences run; nothing is found by its name.

    Args:
        model: with its own MLPs in place.
        tokenizer: of transformers.
        blocks: by path.
        batches: of tokens; the one with the longest sequences is used.
    """
    longest = max(batches, key=lambda batch: batch["input_ids"].shape[1])
    part = {key: value[:_SEQUENCES, :_TOKENS] for key, value in longest.items()}
    read = find_read_tokens(part)
    ends = [
        f"{path}.{len(stack) - 1}"
        for path, stack in model.named_modules()
        if isinstance(stack, nn.ModuleList) and len(stack)
    ]
    with place_modules(model, blocks):
        leaves = {path: module for path, module in model.named_modules() if _may_be_norm(module)}
        head = get_head(model)
        seen = _watch(model, part, [*leaves, *blocks, *ends], head)

        def build(path: str | None) -> Passage:
            if path is None:
                return Passage()
            module = copy.deepcopy(leaves[path]).float().cpu()
            return Passage(module, seen[path].inputs.flatten(0, -2)[read.flatten()].float())

        def find(*, inputs: Tensor | None = None, outputs: Tensor | None = None) -> str | None:
            return next(
                (
                    path
                    for path in leaves
                    if path in seen
                    and not _are_same(seen[path].inputs, seen[path].outputs)
                    and (inputs is None or _are_same(seen[path].inputs, inputs))
                    and (outputs is None or _are_same(seen[path].outputs, outputs))
                ),
                None,
            )

        sites = {
            path: Site(build(find(outputs=seen[path].inputs)), build(find(inputs=seen[path].outputs)))
            for path in blocks
        }
        if not isinstance(head, nn.Linear):
            kind = "no head" if head is None else f"a {type(head).__name__} as its head"
            return Streams(None, f"the model has {kind}, and no linear map to words", sites)
        norm = find(outputs=seen[_HEAD].inputs)
        last = seen[_HEAD].inputs if norm is None else seen[norm].inputs
        if not any(_are_same(seen[path].outputs, last) for path in ends if path in seen):
            return Streams(None, "more than a norm lies between the last layer and the head", sites)
        embedding, ids = _find_words(model, tokenizer, head)
        named = _find_named(tokenizer, ids, batches)
        lens = Lens(build(norm), head.weight.detach(), embedding, ids, named, tokenizer)
    return Streams(lens, "", sites)


@final
@dataclass(frozen=True, eq=False)
class _Record:
    """First tensors that went into a module and came out of it."""

    inputs: Tensor
    outputs: Tensor


def _watch(
    model: nn.Module, batch: Batch, paths: Sequence[str], head: nn.Module | None
) -> dict[str, _Record]:
    """Run a batch; return what went through these modules, as far as they were called with tensors, and the head."""
    seen: dict[str, _Record] = {}

    def watch(path: str) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], options: Mapping[str, Any], result: Any) -> None:
            given = next((one for one in (*args, *options.values()) if isinstance(one, Tensor)), None)
            first = result[0] if isinstance(result, tuple) else result
            if given is not None and isinstance(first, Tensor):
                seen[path] = _Record(given.detach().cpu(), first.detach().cpu())

        return keep

    with ExitStack() as hooks:
        for path in dict.fromkeys(paths):
            handle = model.get_submodule(path).register_forward_hook(watch(path), with_kwargs=True)
            hooks.callback(handle.remove)
        if head is not None:
            hooks.callback(head.register_forward_hook(watch(_HEAD), with_kwargs=True).remove)
        run_model(model, batch, torch.ones_like(batch["input_ids"], dtype=torch.bool))
    return seen


def _may_be_norm(module: nn.Module) -> bool:
    """Return whether a module has no parts and is no map that mixes features by a matrix."""
    wide = any(parameter.ndim > 1 for parameter in module.parameters())
    return next(module.children(), None) is None and not wide and not isinstance(module, nn.Identity)


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same rows of features."""
    return (one.numel() == other.numel() and one.shape[-1:] == other.shape[-1:]) and torch.equal(
        one.flatten(), other.flatten()
    )


def _find_words(model: nn.Module, tokenizer: Any, head: nn.Linear) -> tuple[Tensor | None, Tensor]:
    """Return the embedding, if it is as wide as the head, and the words that count."""
    anything: Any = model
    embedding: Tensor = anything.get_input_embeddings().weight.detach()
    known = torch.ones(min(len(tokenizer), head.out_features), dtype=torch.bool)
    known[[token for token in tokenizer.all_special_ids if token < len(known)]] = False
    fits = embedding.shape == head.weight.shape
    return (embedding if fits else None), known.nonzero().flatten()


def _find_named(tokenizer: Any, ids: Tensor, batches: Sequence[Batch]) -> Tensor:
    """Return the places in ``ids`` of the words of a text that can be shown."""
    seen = torch.isin(ids, list_types(batches)).nonzero().flatten()
    shown = [is_readable(show_token(tokenizer, token)) for token in ids[seen].tolist()]
    return seen[torch.tensor(shown, dtype=torch.bool)]


def list_directions(module: nn.Module | None, width: int) -> Tensor | None:
    """Return the direction that each input of a linear map moves its outputs in, shape (k, d); None for other modules.

    Args:
        module: of a :class:`symtorch_core.Reduction`.
        width: of its outputs.
    """
    if isinstance(module, nn.Linear):
        return module.weight.detach().float().cpu().T
    return torch.eye(width) if isinstance(module, nn.Identity) else None
