"""What this distribution offers to symtorch-core; read at every listing, so it imports nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_reducers() -> Iterator[Component]:
    """Offer the projections."""
    yield Component(
        name="projection",
        target="symtorch_projection.reducer:ProjectionReducer",
        summary="What the block uses and gives: reduced-rank regression, active subspace, trained",
        hint="pip install symtorch-projection",
    )
