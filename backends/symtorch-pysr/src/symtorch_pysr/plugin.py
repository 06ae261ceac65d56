"""What this distribution offers to symtorch-core; read at every listing, so it imports nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_regressors() -> Iterator[Component]:
    """Offer PySR."""
    yield Component(
        name="pysr",
        target="symtorch_pysr.regressor:PySRRegressor",
        summary="PySR: evolution in Julia, in a process of its own",
        hint="pip install symtorch-pysr",
    )
