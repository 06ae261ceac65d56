"""What this distribution offers to symtorch-core; read at every listing, so it imports nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_studies() -> Iterator[Component]:
    """Offer the study of graph networks."""
    yield Component(
        name="gnn",
        target="symtorch_gnn.study:GnnStudy",
        summary="Force laws out of the messages of graph networks",
        hint="pip install symtorch-gnn",
    )
