"""The components that this distribution offers to symtorch-core.

This module is read at every listing, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_regressors() -> Iterator[Component]:
    """Register the regressor ``gplearn``."""
    yield Component(
        name="gplearn",
        target="symtorch_gplearn.regressor:GplearnRegressor",
        summary="Genetic programming in pure Python",
        hint="pip install symtorch-gplearn",
    )
