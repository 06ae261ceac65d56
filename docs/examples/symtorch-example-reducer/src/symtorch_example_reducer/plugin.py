"""What this package offers; read whenever components are listed, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_reducers() -> Iterator[Component]:
    """Offer the reducer; its module is imported when somebody asks for "variance"."""
    yield Component(
        name="variance",
        target="symtorch_example_reducer.reducer:VarianceReducer",
        summary="Keeps the k columns of largest variance",
        hint="pip install symtorch-example-reducer",
    )
