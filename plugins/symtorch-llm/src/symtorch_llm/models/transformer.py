"""Transformers and their MLPs: loading, finding MLPs by structure, and putting other modules in their place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from symtorch_core import SearchError, find_block

_ATTENTION = ("attn", "attention")
_FUSED = 2  # some MLPs compute gate and values in one map, twice as wide as what follows


def load_causal(path: str, *, dtype: str = "auto", device: str = "cpu") -> tuple[nn.Module, Any]:
    """Load a causal language model in evaluation mode, and its tokenizer, from a folder or the hub.

    Args:
        path: as for transformers' ``from_pretrained``.
        dtype: ``"auto"`` for the checkpoint's own, or the name of a torch dtype.
        device: of the model.

    Raises:
        SearchError: there is no such model, or it cannot be loaded; the message says why.
    """
    return _load(AutoModelForCausalLM, path, dtype, device)


def load_encoder(path: str, *, dtype: str = "auto", device: str = "cpu") -> tuple[nn.Module, Any]:
    """Load an encoder, as :func:`load_causal`; MLPs spread over two modules are folded (:func:`fold_mlps`)."""
    model, tokenizer = _load(AutoModel, path, dtype, device)
    return fold_mlps(model), tokenizer


def _load(kind: Any, path: str, dtype: str, device: str) -> tuple[nn.Module, Any]:
    try:
        model = kind.from_pretrained(path, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        here = (
            ""
            if Path(path).exists()
            else f" There is no folder {path!r} here, so it was looked for on the hub."
        )
        raise SearchError(f"cannot load a model from {path!r}.{here} {error}") from error
    return model.to(device).eval().requires_grad_(False), tokenizer


def find_mlps(model: nn.Module, pattern: str | None = None) -> list[str]:
    """Find a transformer's MLPs; return one path for each layer.

    An MLP is the smallest module of its layer that maps the model's width to another and back, attention excepted. It
    must treat tokens one by one; experts that are chosen by a router are not found.

    Args:
        model: with a transformers config.
        pattern: overrides the search: a path with ``{}`` for the layer's number, ``"model.layers.{}.mlp"``.

    Raises:
        SearchError: no MLPs were found; the message says how to name them.
        CaptureError: the pattern names no module.
    """
    config: Any = model.config
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    if pattern is not None:
        if "{}" not in pattern:
            raise SearchError(
                f"mlp={pattern!r} has no {{}} where a layer's number belongs: 'model.layers.{{}}.mlp'"
            )
        paths = [pattern.format(number) for number in range(layers)]
        for path in paths:
            find_block(model, path)
        return paths
    for path, stack in model.named_modules():
        if isinstance(stack, nn.ModuleList) and len(stack) == layers:
            found = [_find_mlp(layer, width) for layer in stack]
            if all(place is not None for place in found):
                return [f"{path}.{number}.{place}" for number, place in enumerate(found)]
    raise SearchError(
        f"no MLPs were found in a {type(model).__name__}: name them, like mlp='model.layers.{{}}.mlp' "
        "(for encoders of BERT's kind, fold the model first: symtorch_llm.models.transformer.fold_mlps)"
    )


def _find_mlp(layer: nn.Module, width: int) -> str | None:
    """Find the smallest module with a map from the width to another and one back; return its path, or None."""
    fitting = [
        path
        for path, module in layer.named_modules()
        if path and not any(word in path.lower() for word in _ATTENTION) and _widens(module, width)
    ]
    return max(fitting, key=lambda path: path.count("."), default=None)


def _widens(module: nn.Module, width: int) -> bool:
    shapes = [shape for part in module.modules() if (shape := _find_shape(part)) is not None]
    there = {out for into, out in shapes if into == width}
    back = {into for into, out in shapes if out == width}
    return bool(back & (there | {out // _FUSED for out in there}))


def _find_shape(module: nn.Module) -> tuple[int, int] | None:
    """Return the numbers of inputs and outputs of a linear map; None for anything else."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    return None


def fold_mlps(model: nn.Module) -> nn.Module:
    """Fold the MLPs of an encoder of BERT's kind into modules of their own; other models stay as they are.

    Such a layer keeps the first map in ``intermediate`` and the second in ``output.dense``; afterwards both are in
    ``output.dense``, and ``intermediate`` is the identity. The outputs of the model stay the same. It is changed in
    place.
    """
    for layer in model.modules():
        parts = dict(layer.named_children())
        if {"attention", "intermediate", "output"} <= set(parts):
            output: Any = parts["output"]
            if isinstance(output.dense, nn.Linear):
                output.dense = nn.Sequential(parts["intermediate"], output.dense)
                layer.intermediate = nn.Identity()
    return model


@contextmanager
def place_modules(model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put other modules at these paths of a model, inside; afterwards the original ones are back."""
    before = {path: find_block(model, path) for path in modules}
    try:
        _put(model, modules)
        yield
    finally:
        _put(model, before)


def _put(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        find_block(model, parent).register_module(name, module)


def count_bytes(modules: Sequence[nn.Module]) -> int:
    """Return the memory of all their parameters and buffers in bytes; shared ones count once."""
    tensors: dict[int, Tensor] = {}
    for module in modules:
        tensors |= {id(tensor): tensor for tensor in itertools.chain(module.parameters(), module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def get_device(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter."""
    return next(model.parameters()).device
