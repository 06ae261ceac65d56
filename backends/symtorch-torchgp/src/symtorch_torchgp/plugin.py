"""The components that this distribution offers to symtorch-core.

This module is read at every listing, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_regressors() -> Iterator[Component]:
    """Offer the search engine on tensors."""
    yield Component(
        name="torchgp",
        target="symtorch_torchgp.regressor:TorchGPRegressor",
        summary="Genetic programming in torch: all outputs in one search, CPU or GPU",
        hint="pip install symtorch-torchgp",
    )
