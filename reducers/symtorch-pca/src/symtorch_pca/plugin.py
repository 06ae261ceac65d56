"""The components that this distribution offers to symtorch-core.

This module is read at every listing, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_reducers() -> Iterator[Component]:
    """Register the reducer ``pca``."""
    yield Component(
        name="pca",
        target="symtorch_pca.reducer:PCAReducer",
        summary="Principal components of inputs and outputs",
        hint="pip install symtorch-pca",
    )
