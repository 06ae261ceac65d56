"""Tensors as text, for JSON files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from symtorch_core.errors import FileFormatError
from symtorch_core.storage.documents import summarize


def encode_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return named tensors as safetensors in base64; no tensors give an empty string.

    >>> import torch
    >>> decode_tensors(encode_tensors({"a": torch.ones(2)}))
    {'a': tensor([1., 1.])}
    """
    return base64.b64encode(safetensors.torch.save({**tensors})).decode() if tensors else ""


def decode_tensors(text: str) -> dict[str, Tensor]:
    """Return the tensors of a text from :func:`encode_tensors`.

    Raises:
        FileFormatError: the text is invalid.
    """
    try:
        return safetensors.torch.load(base64.b64decode(text, validate=True)) if text else {}
    except (ValueError, KeyError, safetensors.SafetensorError) as error:
        raise FileFormatError(f"its tensors are damaged: {summarize(error)}") from None


def list_problems(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return why a checkpoint's values cannot be those expected, name by name; these may be on the meta device."""
    found = {name: _find_problem(tensors.get(name), own) for name, own in expected.items()}
    return [f"{name} {problem}" for name, problem in found.items() if problem is not None]


def _find_problem(value: Any, own: Any) -> str | None:
    if value is None:
        return "is missing"
    if not isinstance(own, Tensor):
        return None
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}, not a tensor"
    if value.shape != own.shape:
        return f"has shape {tuple(value.shape)}, not {tuple(own.shape)}"
    if value.is_floating_point() != own.is_floating_point() or value.is_complex():
        return f"is of type {value.dtype}"
    if value.is_meta or not bool(torch.isfinite(value).all()):
        return "holds no finite numbers"
    return None
