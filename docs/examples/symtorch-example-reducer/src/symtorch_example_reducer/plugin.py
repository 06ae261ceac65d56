"""The components that this package offers.

This module is read whenever components are listed, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_reducers() -> Iterator[Component]:
    """Register the reducer; its module is imported only when "variance" is used."""
    yield Component(
        name="variance",
        target="symtorch_example_reducer.reducer:VarianceReducer",
        summary="The k columns of largest variance",
        hint="pip install symtorch-example-reducer",
    )
