"""The components of this distribution; read at every listing of plugins, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_captures() -> Iterator[Component]:
    """Offer the weighted neighbourhood of a point."""
    yield Component(
        name="slime",
        target="symtorch_slime.capture:SlimeCapture",
        summary="Local explanations: a weighted neighbourhood of one point (SLIME)",
        hint="pip install symtorch-slime",
    )
