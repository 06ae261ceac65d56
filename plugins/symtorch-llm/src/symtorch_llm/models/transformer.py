"""Transformers and their MLPs: found by structure, and other modules put in their place."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from symtorch_core import SearchError, find_block

_ATTENTION = ("attn", "attention")
_EXPERTS = "experts"
_SPREAD = (  # first map, activation, second map
    ("fc1", "activation_fn", "fc2"),
    ("dense_h_to_4h", "gelu_impl", "dense_4h_to_h"),
    ("up_proj", "act", "down_proj"),
)
_FUSED = 2  # some MLPs compute gate and values in one map, twice as wide as what follows


def find_mlps(model: nn.Module, pattern: str | None = None) -> list[str]:
    """Find a transformer's MLPs; return one path for each layer.

    An MLP is the smallest module of its layer that maps the model's width to another and back, attention excepted. It
    must treat tokens one by one, and take nothing else. Of a model of text and images, they are those of the text.

    Args:
        model: with a transformers config.
        pattern: overrides the search: a path with ``{}`` for the layer's number, ``"model.layers.{}.mlp"``.

    Raises:
        SearchError: no MLPs were found, or a router chooses among several; the message says what to do.
        CaptureError: the pattern names no module.
    """
    config = get_text_config(model)
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
    decoder: nn.Module = model.get_decoder()  # type: ignore[operator]
    if any(_EXPERTS in type(module).__name__.lower() for module in decoder.modules()):
        raise SearchError(
            f"a router of a {type(model).__name__} sends each token to some of its experts: its layers have no one MLP "
            "to replace. Take a model without experts, or name a part that every token passes, like "
            "mlp='model.layers.{}.mlp.shared_expert', where there is one"
        )
    prefix = next(path for path, module in model.named_modules() if module is decoder)
    for path, stack in decoder.named_modules(prefix=prefix):
        if isinstance(stack, nn.ModuleList) and len(stack) == layers:
            found = [_find_mlp(layer, width) for layer in stack]
            if all(place is not None for place in found):
                return [f"{path}.{number}.{place}" for number, place in enumerate(found)]
    raise SearchError(
        f"no MLPs were found in a {type(model).__name__}: name them, like mlp='model.layers.{{}}.mlp' "
        "(if the parts of its MLPs are not in one module, fold the model first: "
        "symtorch_llm.models.transformer.fold_mlps)"
    )


def get_text_config(model: nn.Module) -> Any:
    """Return the configuration of a model, or of its text model where it has several."""
    config: Any = model.config
    return config.get_text_config()


def _find_mlp(layer: nn.Module, width: int) -> str | None:
    """Find the smallest module with a map from the width to another and one back; return its path, or None."""
    fitting = [
        path
        for path, module in layer.named_modules()
        if path
        and not any(word in path.lower() for word in _ATTENTION)
        and _widens(module, width)
        and _takes_tokens(module)
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


def _takes_tokens(module: nn.Module) -> bool:
    """Whether a module can be called with tokens alone, and does not mix them by a convolution along the text."""
    required = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return len(required) <= 1 and not any(isinstance(part, nn.Conv1d) for part in module.modules())


def fold_mlps(model: nn.Module) -> nn.Module:
    """Fold MLPs whose parts lie in several modules, or beside others, into one module; other models stay as they are.

    A layer of BERT's kind keeps the first map in ``intermediate`` and the second in ``output.dense``, one of OPT's
    has both beside its attention, and the MLPs of Bloom and MPT add to the residual stream themselves. Afterwards
    everything is in the place of the second map, and identities are in the other places. The outputs of the model stay
    the same. It is changed in place.
    """
    for layer in model.modules():
        parts = dict(layer.named_children())
        if {"attention", "intermediate", "output"} <= set(parts):
            output: Any = parts["output"]
            if isinstance(output.dense, nn.Linear):
                output.dense = nn.Sequential(parts["intermediate"], output.dense)
                layer.intermediate = nn.Identity()
        for names in _SPREAD:
            if all(name in parts for name in names) and _holds_more(layer):
                *first, last = names
                if isinstance(parts[last], nn.Linear):
                    layer.register_module(last, nn.Sequential(*(parts[name] for name in names)))
                    for name in first:
                        layer.register_module(name, nn.Identity())
    return model


def _holds_more(module: nn.Module) -> bool:
    """Whether a module that holds the parts of an MLP does more than they do."""
    return not _takes_tokens(module) or any(
        word in name.lower() for name, _ in module.named_children() for word in _ATTENTION
    )


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


def count_parameters(model: nn.Module) -> int:
    """Return the number of a model's parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def get_device(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter."""
    return next(model.parameters()).device
