"""The components of this distribution; read at every listing of plugins, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_studies() -> Iterator[Component]:
    """Offer the study of arithmetic."""
    yield Component(
        name="arithmetic",
        target="symtorch_arithmetic.study:ArithmeticStudy",
        summary="What arithmetic a language model has learned, as equations",
        hint="pip install symtorch-arithmetic",
    )
