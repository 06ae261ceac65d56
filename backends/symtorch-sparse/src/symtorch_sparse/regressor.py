"""The regressor ``sparse``: sums of a few terms of a library, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import ParetoFront, Regressor, SearchError, SearchSpace
from symtorch_core.events import Callback, OutputFinished, OutputImproved, OutputProgressed, Stopwatch, notify
from symtorch_core.expressions import Call, Constant, Expression
from symtorch_core.reduction import Moments
from symtorch_core.search import build_front, is_constant, weighted_median
from symtorch_sparse.library import Columns, build_library, select_usable_terms
from symtorch_sparse.path import Step, compute_path

_REFITTED = 8
"""The core searches equations of up to this number of terms for shorter forms."""
_CHEAPEST_TERM = 4
"""Complexity that one more term adds at least: a sum, a product, a number, a variable."""


@final
@dataclass(frozen=True)
class SparseRegressor(Regressor):
    """Finds y = b + c1 t1 + c2 t2 + ..., with terms chosen one by one from a library.

    This is in the spirit of SINDy (Brunton, Proctor and Kutz 2016). The library holds products of inputs up to a
    degree, every unary operator of the search of each input, and every other binary operator of each pair of inputs.
    Orthogonal matching pursuit adds the best next term at each step, so its path is a front by itself. Nothing is drawn
    at random: the seed and ``niterations`` have no effect. All outputs share one pass over the rows, and
    only its time grows with the number of rows.

    For losses other than squares, rows are reweighted by their influence on the loss at the last residual (iteratively
    reweighted least squares), on a sample of the rows.

    Attributes:
        degree: the highest degree of products.
        mixed: whether functions of an input are also multiplied by inputs.
        max_terms: the largest number of terms in an equation; None for as many as fit into the search's maxsize.
        most_terms: the largest number of terms in the library.
        reweighted_rows: rows used for losses other than squares.
        reweightings: number of reweightings for those losses.

    >>> SparseRegressor(degree=3).name
    'sparse'
    """

    name: ClassVar[str] = "sparse"
    # One product sums over the rows for all outputs, and its last digits depend on their number.
    independent_outputs: ClassVar[bool] = False

    degree: int = 2
    mixed: bool = False
    max_terms: int | None = None
    most_terms: int = 6000
    reweighted_rows: int = 5000
    reweightings: int = 8

    def __post_init__(self) -> None:
        self.at_least(1, "degree", "most_terms", "reweightings")
        self.at_least(2, "reweighted_rows")
        self.flags("mixed")
        self.at_least(1, "max_terms")

    def fit(
        self,
        X: Tensor,
        Y: Tensor,
        *,
        search: SearchSpace,
        variable_names: Sequence[str],
        weights: Tensor | None = None,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        folder: Path | None = None,
    ) -> list[ParetoFront]:
        _check_search(search)
        names = tuple(variable_names)
        every = build_library(search, names, self.degree, self.mixed, self.most_terms)
        probe = Step((0,), (2.0,), 1.0, 0.0)
        terms = select_usable_terms(
            [term for term in every if search.admits(_build_sum(probe, [term]))], X, names
        )
        steps = self.max_terms or search.maxsize // _CHEAPEST_TERM + 1
        watch = Stopwatch()
        limit = None if search.timeout_in_seconds is None else search.timeout_in_seconds * Y.shape[1]
        columns = Columns(terms, names) if terms else None
        shared = None
        if columns is not None and search.loss_function.name == "mse":
            shared = Moments.from_batches(_iterate_batches(columns, X, Y, weights, watch, limit, callbacks))
        fronts = []
        for output in range(Y.shape[1]):
            found: list[Step] = []
            if columns is not None and not _is_constant(Y[:, output], weights):
                if shared is not None:
                    found = compute_path(shared, output, steps)
                else:
                    found = self._compute_reweighted_paths(columns, X, Y[:, output], weights, search, steps)
            fronts.append(
                _build_front(found, terms, X, Y[:, output], search, names, weights, output, callbacks)
            )
            notify(callbacks, OutputProgressed(output, 1.0))
            notify(callbacks, OutputFinished(output, fronts[-1]))
        return fronts

    def _compute_reweighted_paths(
        self,
        columns: Columns,
        X: Tensor,
        y: Tensor,
        weights: Tensor | None,
        search: SearchSpace,
        steps: int,
    ) -> list[Step]:
        """Return the steps of the paths of all reweightings of one output."""
        rows = torch.linspace(0, len(X) - 1, min(len(X), self.reweighted_rows)).round().long().unique()
        values, target = columns(X[rows]), y[rows].double()
        share = torch.ones_like(target) if weights is None else weights[rows].double()
        residual = target - weighted_median(target, share)
        found: list[Step] = []
        for _ in range(self.reweightings):
            # Residuals below the median count as the median: else a few rows, met by chance, would outweigh all others.
            size = residual.abs().clamp_min(float(weighted_median(residual.abs(), share)))
            influence = share * search.loss_function.influence(size)
            if not bool((influence > 0).any()):
                break
            steps_now = compute_path(Moments.of(values, target[:, None], influence), 0, steps)
            if not steps_now:
                break
            found += steps_now
            best = steps_now[-1]
            factors = torch.tensor(best.coefficients, dtype=torch.float64)
            residual = target - best.offset - values[:, list(best.indices)] @ factors
        return found


def _is_constant(y: Tensor, weights: Tensor | None) -> bool:
    return is_constant(y.double().cpu().numpy(), None if weights is None else weights.double().cpu().numpy())


def _check_search(search: SearchSpace) -> None:
    search.refuse_definitions("sparse")
    missing = {"+", "*"} - set(search.binary_operators)
    if missing:
        raise SearchError(
            f"sparse builds sums of products, so it needs '+' and '*' among the binary operators; the search has "
            f"{', '.join(map(repr, search.operators)) or 'none'}"
        )
    if search.parsimony:
        raise SearchError(
            "sparse has no parsimony, since its front has every number of terms: leave parsimony at 0"
        )


def _iterate_batches(
    columns: Columns,
    X: Tensor,
    Y: Tensor,
    weights: Tensor | None,
    watch: Stopwatch,
    limit: float | None,
    callbacks: Sequence[Callback],
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield values of the terms, outputs and weights, some rows at a time; stop when the time limit is over."""
    size = columns.rows_at_once
    for start in range(0, len(X), size):
        part = slice(start, start + size)
        yield columns(X[part]), Y[part], None if weights is None else weights[part]
        for output in range(Y.shape[1]):
            notify(callbacks, OutputProgressed(output, 0.9 * min(1.0, (start + size) / len(X))))
        if limit is not None and watch.seconds() > limit:
            return


def _build_front(
    found: Sequence[Step],
    terms: Sequence[Expression],
    X: Tensor,
    y: Tensor,
    search: SearchSpace,
    names: tuple[str, ...],
    weights: Tensor | None,
    output: int,
    callbacks: Sequence[Callback],
) -> ParetoFront:
    equations = [_build_sum(step, terms) for step in found]
    for step, equation in zip(found, equations, strict=True):
        notify(callbacks, OutputImproved(output, str(equation), step.loss, search.rules.count(equation)))
    rows = X.double().cpu().numpy(), np.ascontiguousarray(y.double().cpu().numpy())
    row_weights = None if weights is None else weights.double().cpu().numpy()

    def build(some: Sequence[Expression], search: SearchSpace) -> ParetoFront:
        return build_front(some, *rows, search, names, row_weights)

    # Under squares, coefficients are already the best. A refit only finds shorter forms, which matters for short
    # equations and takes most of the time for long ones.
    long = equations[_REFITTED:] if search.loss_function.name == "mse" else []
    short = equations[: len(equations) - len(long)]
    return ParetoFront([*build(short, search), *build(long, replace(search, refine=False))])


def _build_sum(step: Step, terms: Sequence[Expression]) -> Expression:
    """Return a step as an expression."""
    parts = [
        Call("*", Constant(factor), terms[index])
        for index, factor in zip(step.indices, step.coefficients, strict=True)
    ]
    return Call("+", reduce(lambda left, right: Call("+", left, right), parts), Constant(step.offset))
