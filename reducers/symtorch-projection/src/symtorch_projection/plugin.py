"""The components that this distribution offers to symtorch-core.

This module is read at every listing, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_reducers() -> Iterator[Component]:
    """Register the reducer ``projection``."""
    yield Component(
        name="projection",
        target="symtorch_projection.reducer:ProjectionReducer",
        summary="Directions that the block uses: reduced-rank regression, active subspace, trained",
        hint="pip install symtorch-projection",
    )
