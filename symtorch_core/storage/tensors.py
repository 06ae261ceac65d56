"""Tensors as text, for files of JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from symtorch_core.activations.rows import Activations

_SAMPLE_ROWS = 300
_SAMPLE_NUMBERS = 200_000


def encode_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Named tensors as safetensors in base64; none as an empty text.

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


def sample_rows(rows: Activations) -> dict[str, Tensor]:
    """Some rows as tensors for a file: all columns, and not more than a few megabytes."""
    width = rows.inputs.shape[1] + rows.outputs.shape[1]
    few = rows.rows(torch.arange(min(len(rows), _SAMPLE_ROWS, max(1, _SAMPLE_NUMBERS // width))))
    tensors = {"inputs": few.inputs, "outputs": few.outputs}
    return tensors if few.weights is None else {**tensors, "weights": few.weights}
