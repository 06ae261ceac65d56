"""Putting a wrapper in a block's place inside a model."""

from __future__ import annotations

from torch import nn

from symtorch_core.capture import submodule
from symtorch_core.errors import SwitchError
from symtorch_core.model import SymbolicModel


def wrap(model: nn.Module, path: str, name: str | None = None) -> SymbolicModel:
    """Replace a submodule by a :class:`SymbolicModel` around it, in place, and return that.

    A module that sits in several places of the model is replaced in all of them.

    Args:
        model: the model that holds the block.
        path: dotted path of the block, as in ``model.named_modules()``.
        name: what to call it; the path by default.

    Raises:
        CaptureError: the model has no such submodule; the message lists close ones.
        SwitchError: it is wrapped already.
    """
    block = submodule(model, path)
    if path == "":
        raise SwitchError(
            "the model itself cannot be replaced in place: use SymbolicModel(model) and call that"
        )
    if isinstance(block, SymbolicModel):
        raise SwitchError(f"{path!r} is wrapped already")
    if any(isinstance(module, SymbolicModel) and module.block is block for module in model.modules()):
        raise SwitchError(f"{path!r} is wrapped already: leave out the last part of the path for its wrapper")
    places = [(parent, key) for parent in model.modules() for key, m in parent._modules.items() if m is block]
    wrapper = SymbolicModel(block, name or path)
    for parent, key in places:
        setattr(parent, key, wrapper)
    return wrapper
