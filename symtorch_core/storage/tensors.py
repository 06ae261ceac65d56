"""Tensors as text, for JSON files."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import safetensors
import safetensors.torch
from torch import Tensor

from symtorch_core.errors import FileFormatError
from symtorch_core.storage.documents import shorten


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
        raise FileFormatError(f"its tensors are damaged: {shorten(error)}") from None
