"""A guard that leaves a model's state as it was, and lets one thread at a time change it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, final

import numpy as np
import torch
from torch import nn

_TURN: Final = threading.RLock()
# One for the process, because the random generators that are restored are the process's, and because models overlap:
# one thread may run a block, another the model around it. With a single lock, no two threads wait for each other.


@contextmanager
def take_turns() -> Iterator[None]:
    """Wait until no other thread is inside such a context, or inside :func:`preserve_state`; a thread may nest them.

    It must surround what runs a model, and never a search.
    """
    with _TURN:
        yield


@contextmanager
def preserve_state(*parts: Callable[..., Any], gradients: bool = False) -> Iterator[None]:
    """Run the block in evaluation mode and restore everything afterwards, also when an exception is raised.

    Restored are training flags, buffers, and the random state of torch (CPU and the modules' CUDA devices), numpy
    and Python. Flags and random states belong to all threads, so one thread at a time is inside: others wait.

    Args:
        *parts: modules to protect; plain functions are ignored.
        gradients: whether operations inside are recorded for differentiation.
    """
    with _TURN:
        modules = list(
            dict.fromkeys(m for part in parts if isinstance(part, nn.Module) for m in part.modules())
        )
        flags = [(module, module.training) for module in modules]
        buffers = [TensorBackup(module._buffers) for module in modules]
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
            for backup in buffers:
                backup.restore()


@final
class TensorBackup:
    """Copy of the tensors in a dictionary of a module: its parameters, or its buffers."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self._tensors, self._held = tensors, dict(tensors)
        self._values = {name: t.detach().clone() for name, t in tensors.items() if t is not None}

    def restore(self) -> None:
        """Undo both kinds of changes: another tensor under a name, or other numbers in the tensor."""
        now = self._tensors
        if len(now) != len(self._held) or any(now.get(name) is not t for name, t in self._held.items()):
            now.clear()
            now.update(self._held)
        with torch.no_grad():
            for name, value in self._values.items():
                tensor = self._held[name]
                if not tensor.is_meta and not torch.equal(tensor, value):
                    tensor.copy_(value)
