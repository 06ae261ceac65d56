"""What a block does besides returning a value: changes of its arguments, and attributes that it sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def copy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors, because a block may change its input in place; a tensor passed twice is copied once."""
    copies: dict[int, Tensor] = {}
    return {path: copies.setdefault(id(tensor), tensor.clone()) for path, tensor in tensors.items()}


def list_changed(tensors: Mapping[str, Tensor], copies: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the paths of tensors that differ from copies made earlier.

    >>> x = torch.ones(2)
    >>> copies = copy_tensors({"0": x})
    >>> _ = x.mul_(2)
    >>> list_changed({"0": x}, copies)
    ('0',)
    """
    return tuple(path for path, tensor in tensors.items() if not _agree(tensor, copies[path]))


def share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers in memory."""
    if one is other:
        return True
    if (
        one.layout is not torch.strided
        or other.layout is not torch.strided
        or one.is_nested
        or other.is_nested
    ):
        return False
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def snapshot_attributes(block: Callable[..., Any]) -> dict[str, Any]:
    """Return the Python attributes of a module and its submodules, by dotted name; of a function, none."""
    return dict(_iterate_attributes(block)) if isinstance(block, nn.Module) else {}


def list_set_attributes(block: Callable[..., Any], before: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted names of attributes that were set since a snapshot."""
    now = snapshot_attributes(block)
    return tuple(name for name, value in now.items() if name not in before or before[name] is not value)


def _agree(tensor: Tensor, copy: Tensor) -> bool:
    if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_meta:
        return True  # such tensors cannot be compared
    if tensor.shape != copy.shape or tensor.dtype != copy.dtype:
        return False
    return torch.equal(tensor, copy) or (
        tensor.is_floating_point() and torch.allclose(tensor, copy, rtol=0, atol=0, equal_nan=True)
    )


def _iterate_attributes(block: nn.Module) -> Iterator[tuple[str, Any]]:
    fresh = vars(nn.Module())  # what torch itself keeps in every module
    for path, module in block.named_modules():
        for name, value in vars(module).items():
            if name not in fresh:
                yield (f"{path}.{name}" if path else name), value
