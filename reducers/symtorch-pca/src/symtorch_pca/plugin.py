"""What this distribution offers to symtorch-core; read at every listing, so it imports nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_reducers() -> Iterator[Component]:
    """Offer principal component analysis."""
    yield Component(
        name="pca",
        target="symtorch_pca.reducer:PCAReducer",
        summary="Principal components of inputs and outputs",
        hint="pip install symtorch-pca",
    )
