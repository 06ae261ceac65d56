"""Tensors as text, for files of JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import safetensors
import safetensors.torch
from torch import Tensor


def encode_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Named tensors as safetensors in base64; none as an empty text.

    >>> import torch
    >>> decode_tensors(encode_tensors({"a": torch.ones(2)}))
    {'a': tensor([1., 1.])}
    """
    return base64.b64encode(safetensors.torch.save({**tensors})).decode() if tensors else ""


def decode_tensors(text: str) -> dict[str, Tensor]:
    """What :func:`encode_tensors` wrote.

    Raises:
        ValueError: it is no such text.
    """
    try:
        return safetensors.torch.load(base64.b64decode(text)) if text else {}
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from None
