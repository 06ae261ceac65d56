"""The components of this distribution; read at every listing of plugins, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_studies() -> Iterator[Component]:
    """Offer the study of differential equations."""
    yield Component(
        name="pinn",
        target="symtorch_pinn.study:PinnStudy",
        summary="Solutions of differential equations out of physics-informed networks",
        hint="pip install symtorch-pinn",
    )
