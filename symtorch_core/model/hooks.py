"""Hooks of a block, run around the equations that stand in its place.

Equations are fitted to a block together with its hooks: to the arguments before any hook, and to the result after all
of them. These hooks still run, for what they do besides; what they return is in the equations already. What a hook
returns that was registered later is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from symtorch_core.errors import SwitchError


def list_hooks(block: nn.Module) -> frozenset[int]:
    """Return the handles of the forward hooks that a block has now."""
    return frozenset((*block._forward_pre_hooks, *block._forward_hooks))


def has_backward_hooks(block: nn.Module) -> bool:
    """Whether a block has hooks on gradients, which equations cannot run."""
    return bool(block._backward_hooks or block._backward_pre_hooks)


def run_pre_hooks(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], included: frozenset[int], name: str
) -> None:
    """Run the hooks before a call.

    Args:
        block: whose hooks run.
        args, kwargs: of the call.
        included: handles of those hooks whose effect is in the equations.
        name: of the block, for messages.

    Raises:
        SwitchError: a hook that came after the equations changes the arguments.
    """
    for handle, hook in tuple(block._forward_pre_hooks.items()):  # other threads may add some
        with_kwargs = handle in block._forward_pre_hooks_with_kwargs
        changed = hook(block, args, dict(kwargs)) if with_kwargs else hook(block, args)
        if changed is not None and handle not in included:
            raise SwitchError(
                f"a hook that was registered on {name} after its equations were found changes the arguments, so the "
                "equations do not hold: distill again, or remove the hook"
            )


def run_post_hooks(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any, included: frozenset[int]
) -> Any:
    """Run the hooks after a call, and return its result; hooks that came after the equations may change it."""
    for handle, hook in tuple(block._forward_hooks.items()):
        with_kwargs = handle in block._forward_hooks_with_kwargs
        changed = hook(block, args, dict(kwargs), result) if with_kwargs else hook(block, args, result)
        if changed is not None and handle not in included:
            result = changed
    return result
