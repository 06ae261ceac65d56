"""The components that this distribution offers to symtorch-core.

This module is read at every listing, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator

from symtorch_core import Component, hookimpl


@hookimpl
def symtorch_regressors() -> Iterator[Component]:
    """Register the regressor ``sparse``."""
    yield Component(
        name="sparse",
        target="symtorch_sparse.regressor:SparseRegressor",
        summary="Sums of a few terms of a library (SINDy-like), for wide inputs, in seconds",
        hint="pip install symtorch-sparse",
    )
