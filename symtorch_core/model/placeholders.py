"""Placeholders for a block or its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core.errors import SwitchError


@final
class ReleasedBlock(nn.Module):
    """Placeholder for a block whose weights were freed."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise SwitchError(
            "the block was released when it was switched to equations: build the model again and load its "
            "weights to run the block again"
        )


@final
class WithheldWeight(Tensor):
    """Weight of a block that runs on equations: type and shape can be read, the numbers cannot be used.

    Some modules compute with a child's weights without calling the child (PyTorch's attention does), which would
    bypass the equations. Torch asks a subclass of Tensor before it computes with one, and this one refuses. PyTorch's
    fused encoder layers notice such a subclass and call their children instead, as required.

    >>> WithheldWeight.of(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """

    @classmethod
    def of(cls, tensor: Tensor) -> WithheldWeight:
        """Return a view that withholds the numbers."""
        return tensor.detach().as_subclass(cls)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in _HARMLESS:
            raise SwitchError(
                f"{getattr(func, '__name__', func)} asks for a weight of a block that runs on equations; "
                "computing with it would go round them. Wrap the module that computes with the weight "
                "instead, or switch_to_block(); to read the weight, use the wrapper's .block"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


_SEEN = (
    "dtype",
    "device",
    "layout",
    "shape",
    "ndim",
    "requires_grad",
    "is_cuda",
    "is_cpu",
    "is_meta",
    "is_nested",
)
_HARMLESS = frozenset(
    {
        *(getattr(Tensor, name).__get__ for name in _SEEN),
        Tensor.size,
        Tensor.dim,
        Tensor.numel,
        Tensor.__len__,
        Tensor.is_floating_point,
        Tensor.is_complex,
    }
)
