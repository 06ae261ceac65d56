"""What this distribution offers to symtorch-core; read at every listing, so it imports nothing else."""

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
