"""A guard that leaves a model's state as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def preserve_state(*parts: Callable[..., Any], gradients: bool = False) -> Iterator[None]:
    """Run the block in evaluation mode and restore everything afterwards, also when an exception is raised.

    Restored are training flags, buffers, and the random state of torch (CPU and the modules' CUDA devices), numpy
    and Python.

    Args:
        *parts: modules to protect; plain functions are ignored.
        gradients: whether operations inside are recorded for differentiation.
    """
    modules = list(dict.fromkeys(m for part in parts if isinstance(part, nn.Module) for m in part.modules()))
    flags = [(module, module.training) for module in modules]
    buffers = [(module, dict(module._buffers), _copy_buffers(module)) for module in modules]
    devices = {p.device for m in modules for p in m.parameters(recurse=False) if p.device.type == "cuda"}
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=list(devices)), torch.set_grad_enabled(gradients):
            for module in modules:
                module.training = False
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for module, flag in flags:
            module.training = flag
        for module, held, values in buffers:
            _restore_buffers(module, held, values)


def _copy_buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.detach().clone() for name, buffer in module.named_buffers(recurse=False)}


def _restore_buffers(module: nn.Module, held: dict[str, Tensor | None], values: dict[str, Tensor]) -> None:
    """Undo both ways a module changes a buffer: another tensor under the name, or other numbers in the tensor."""
    if any(module._buffers.get(name) is not buffer for name, buffer in held.items()) or len(held) != len(
        module._buffers
    ):
        module._buffers.clear()
        module._buffers.update(held)
    with torch.no_grad():
        for name, value in values.items():
            buffer = held[name]
            if buffer is not None and not buffer.is_meta and not torch.equal(buffer, value):
                buffer.copy_(value)
