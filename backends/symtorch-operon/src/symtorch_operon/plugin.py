"""The components that this distribution offers to symtorch-core.

This module is read at every listing, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_regressors() -> Iterator[Component]:
    """Register the regressor ``operon``."""
    yield Component(
        name="operon",
        target="symtorch_operon.regressor:OperonRegressor",
        summary="Fast genetic programming in C++, from a wheel",
        hint="pip install symtorch-operon",
    )
