"""Paths to the tensors of a call: nested arguments and results by flat names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from symtorch_core.activations.frames import is_table
from symtorch_core.activations.rows import as_real_tensor
from symtorch_core.components.checks import check_options
from symtorch_core.errors import CaptureError
from symtorch_core.storage.documents import summarize

Selector = int | str | Sequence[int | str] | None
"""A position, keyword or dotted path of a tensor; a sequence of them; or None for the default."""


@final
class FunctionBlock(nn.Module):
    """Function as a module: it is given what the function would be given, tensors or arrays."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def holds_arrays(value: Any) -> bool:
    """Whether numpy's arrays or numbers, or data frames, are nested in tuples, lists and mappings, and no tensors.

    >>> holds_arrays((np.ones(2), {"h": 3.0})), holds_arrays((np.ones(2), torch.ones(2)))
    (True, False)
    """
    leaves = list(_iterate_leaves(value))
    return any(isinstance(leaf, (np.ndarray, np.generic)) or is_table(leaf) for leaf in leaves) and not any(
        isinstance(leaf, Tensor) for leaf in leaves
    )


def _iterate_leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if not isinstance(value, (tuple, list)):
        yield value
        return
    for item in value:
        yield from _iterate_leaves(item)


def flatten_tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    """Return the tensors (and arrays and data frames) nested in tuples, lists and mappings, by dotted path.

    A bare tensor has the path "".

    >>> list(flatten_tensors((torch.ones(1), {"h": torch.ones(2)})))
    ['0', '1.h']
    """
    if isinstance(value, Tensor):
        return {path: value}
    if isinstance(value, (np.ndarray, np.generic)) or is_table(value):
        return {path: as_real_tensor(value, path or "the result")}
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (tuple, list)):
        items = [(str(key), item) for key, item in enumerate(value)]
    else:
        return {}
    prefix = f"{path}." if path else ""
    return {p: tensor for key, item in items for p, tensor in flatten_tensors(item, prefix + key).items()}


def collect_call_tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors among the arguments of a call: positional ones as "0", "1", ..., keyword ones by name."""
    return {**flatten_tensors(args), **flatten_tensors(dict(kwargs))}


def to_paths(selector: Selector) -> tuple[str, ...] | None:
    """Return a selector as paths; None for the default."""
    if selector is None:
        return None
    if isinstance(selector, (int, str)):
        return (str(selector),)
    return tuple(str(entry) for entry in selector)


def list_choices(name: str, value: Any) -> list[Any]:
    """Return the values of an option that may be a dictionary from blocks to their own choices.

    Raises:
        CaptureError: it is a dictionary of something else.
    """
    if not isinstance(value, Mapping):
        return [value]
    if not value:
        raise CaptureError(f"{name} is empty: leave it out")
    return list(check_options(name, value, "block", CaptureError).values())


def check_selector(name: str, selector: Any, *, of_call: bool) -> None:
    """Refuse what names no tensor of a call or of its result, whatever the call.

    Args:
        name: name of the option, for messages.
        selector: value of the option.
        of_call: for the arguments, which may be several; otherwise for the result, where "" is the result itself.

    Raises:
        CaptureError: it is neither a position, a name nor a path.
    """
    for choice in list_choices(name, selector):
        listed = of_call and isinstance(choice, Sequence) and not isinstance(choice, str)
        if listed and not choice:
            raise CaptureError(f"{name} is empty: leave it out, or name a tensor")
        for entry in choice if listed else [choice]:
            if entry is None and not listed:
                continue
            position = isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0
            if not position and not (isinstance(entry, str) and (entry or not of_call)):
                raise CaptureError(f"{name} takes a position, a name or a path like '1.0', not {entry!r}")


def pick_inputs(
    tensors: Mapping[str, Tensor],
    paths: tuple[str, ...] | None,
    block: str,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Tensor, tuple[str, ...]]:
    """Return the input tensor of a call and the paths it came from.

    Several inputs are concatenated along the last dimension.

    Args:
        tensors: tensors of the call, by path.
        paths: the inputs; None for the only floating-point tensor.
        block: name of the block, for messages.
        aliases: position of each argument by its name, and back: a call may pass an argument either way.

    Raises:
        CaptureError: a path does not exist, or no path was given and there are several candidates; the message
            lists the tensors of the call.
    """
    if paths is None:
        paths = (_find_only_input(tensors, block),)
    if any(path not in tensors for path in paths):
        tensors = _add_aliases(tensors, aliases)
    chosen = [pick_tensor(tensors, path, f"the call of {block}")[1] for path in paths]
    if len(chosen) == 1:
        return chosen[0], paths
    leading = torch.broadcast_shapes(*(tensor.shape[:-1] for tensor in chosen))
    return torch.cat([tensor.expand(*leading, tensor.shape[-1]) for tensor in chosen], dim=-1), paths


def _add_aliases(tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    named = dict(tensors)
    for path, tensor in tensors.items():
        head, dot, rest = path.partition(".")
        named.setdefault(aliases.get(head, head) + dot + rest, tensor)
    return named


def _find_only_input(tensors: Mapping[str, Tensor], block: str) -> str:
    floating = {path: tensor for path, tensor in tensors.items() if tensor.is_floating_point()}
    distinct = {id(tensor): path for path, tensor in reversed(floating.items())}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not floating and len(tensors) == 1:  # whole numbers are data too
        return next(iter(tensors))
    raise CaptureError(
        f"{block} is called with {len(distinct)} floating-point tensors, so select_input= must say which are "
        f"the inputs (a position, a keyword, or a list of them to concatenate). Seen: {describe_tensors(tensors)}"
    )


def pick_tensor(tensors: Mapping[str, Tensor], selector: Selector, where: str) -> tuple[str, Tensor]:
    """Return one tensor and its path: the selected one, or the first floating-point one.

    Raises:
        CaptureError: the tensor does not exist; the message lists the tensors that do.
    """
    if selector is not None:
        path = str(selector)
        if path in tensors:
            return path, tensors[path]
        raise CaptureError(f"{where} has no tensor {summarize(path)!r}. Seen: {describe_tensors(tensors)}")
    for path, tensor in tensors.items():
        if tensor.is_floating_point():
            return path, tensor
    for path, tensor in tensors.items():
        return path, tensor
    raise CaptureError(f"{where} holds no tensor")


def describe_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Describe tensors, for messages: path, shape and type of each."""
    if not tensors:
        return "no tensor"
    return ", ".join(
        f"{path or 'itself'}: {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        for path, tensor in tensors.items()
    )


def replace_tensor(value: Any, path: str, tensor: Tensor | np.ndarray) -> Any:
    """Return a copy of a nested result with the tensor at ``path`` replaced; containers keep their types."""
    if path == "":
        return tensor

    def inside(key: object, item: Any) -> Any:
        head = str(key)  # a key may hold dots itself
        return (
            replace_tensor(item, path[len(head) + 1 :], tensor)
            if path in flatten_tensors(item, head)
            else item
        )

    if isinstance(value, Mapping):
        items = {key: inside(key, item) for key, item in value.items()}
        return items if type(value) is dict else type(value)(**items)  # a Hugging Face output, say
    items_list = [inside(position, item) for position, item in enumerate(value)]
    make = getattr(type(value), "_make", type(value))  # how a namedtuple is made from a sequence
    return make(items_list)


def nest_tensor(tensor: Tensor | np.ndarray, path: str) -> Any:
    """Return a tensor at its place in a tuple or dict with all other entries None; "" is the tensor itself.

    >>> nest_tensor(torch.ones(1), "1")
    (None, tensor([1.]))
    """
    if path == "":
        return tensor
    head, _, rest = path.partition(".")
    inner = nest_tensor(tensor, rest)
    return (*[None] * int(head), inner) if head.isdigit() else {head: inner}


def get_parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters of a function or of a module's ``forward``; None if they are unknown (a builtin)."""
    try:
        if isinstance(function, FunctionBlock):
            function = function.function
        called = function.forward if isinstance(function, nn.Module) else function
        return list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        return None


def get_argument_aliases(block: Callable[..., Any]) -> dict[str, str]:
    """Return, for each argument that can go by position or keyword, its position by name and its name by position."""
    parameters = get_parameters(block) or []
    both = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    aliases = {name: str(position) for position, name in enumerate(both)}
    return aliases | {position: name for name, position in aliases.items()}
