"""The components that this distribution offers to symtorch-core.

This module is read at every listing, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_regressors() -> Iterator[Component]:
    """Register the regressor ``pysr``."""
    yield Component(
        name="pysr",
        target="symtorch_pysr.regressor:PySRRegressor",
        summary="PySR: evolution in Julia, in a separate process",
        hint="pip install symtorch-pysr",
    )
