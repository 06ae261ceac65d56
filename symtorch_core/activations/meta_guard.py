"""A guard against computing with tensors that hold no numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from symtorch_core.errors import CaptureError


def refuse_meta(model: Callable[..., Any]) -> AbstractContextManager[object]:
    """Return a context in which a model cannot compute with weights on the meta device.

    Torch itself mixes such weights with numbers in places, and returns whatever lies in memory. Weights that a library
    keeps elsewhere, and puts in place while a module runs, are in order.

    Raises:
        CaptureError: an operation inside takes numbers and a tensor without.
    """
    lacking = isinstance(model, nn.Module) and any(parameter.is_meta for parameter in model.parameters())
    return _MetaGuard() if lacking else nullcontext()  # type: ignore[no-untyped-call]


@final
class _MetaGuard(TorchDispatchMode):
    """Looks at the tensors of every operation."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if len({tensor.is_meta for tensor in tensors}) > 1:
            raise CaptureError(
                "the model has weights on the meta device, where tensors hold no numbers: load them, or let the "
                "library that keeps them elsewhere run the model"
            )
        return func(*args, **(kwargs or {}))
