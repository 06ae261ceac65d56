"""The components of this distribution; read at every listing of plugins, so it imports nothing heavy."""

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
