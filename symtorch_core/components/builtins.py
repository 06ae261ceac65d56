"""The core's own components, offered through the hooks that every plugin uses."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core.components.hookspecs import Component, hookimpl


@hookimpl
def symtorch_captures() -> Iterator[Component]:
    """Offer the capture of a block through PyTorch's forward hooks."""
    yield Component(
        name="hooks",
        target="symtorch_core.activations.hooks:HookCapture",
        summary="Forward hooks on a running model",
    )


@hookimpl
def symtorch_reducers() -> Iterator[Component]:
    """Offer the reducer that leaves inputs and outputs unchanged."""
    yield Component(
        name="identity",
        target="symtorch_core.reduction.linear:IdentityReducer",
        summary="Keeps every input and output unchanged",
    )


@hookimpl
def symtorch_surrogates() -> Iterator[Component]:
    """Offer the surrogate that evaluates all equations in one torch function."""
    yield Component(
        name="torch",
        target="symtorch_core.surrogates.surrogate:TorchSurrogate",
        summary="All equations fused into one torch module",
    )
