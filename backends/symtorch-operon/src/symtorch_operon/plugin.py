"""What this distribution offers to symtorch-core; read at every listing, so it imports nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_regressors() -> Iterator[Component]:
    """Offer Operon's genetic programming."""
    yield Component(
        name="operon",
        target="symtorch_operon.regressor:OperonRegressor",
        summary="Fast genetic programming in C++, from a wheel",
        hint="pip install symtorch-operon",
    )
