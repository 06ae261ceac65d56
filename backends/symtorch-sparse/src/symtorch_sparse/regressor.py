"""The regressor ``sparse``: sums of a few terms of a library, in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from symtorch_core import ParetoFront, Regressor, SearchError, SearchSpace
from symtorch_core.events import Callback, OutputProgressed, notify
from symtorch_core.expressions import Call, Constant, Expression, Variable
from symtorch_core.reduction import Moments
from symtorch_core.search import (
    Deadline,
    Problem,
    is_constant,
    make_problems,
    reserve_for_front,
    weighted_median,
)
from symtorch_sparse.library import Columns, build_library, select_usable_terms
from symtorch_sparse.path import Step, compute_path

_REFITTED = 8
"""The core searches equations of up to this number of terms for shorter forms."""
_CHEAPEST_TERM = 4
"""Complexity that one more term adds at least: a sum, a product, a number, a variable."""


@final
@dataclass(frozen=True)
class SparseRegressor(Regressor):
    """Finds y = b + c1 t1 + c2 t2 + ..., with terms chosen from a library.

    This is in the spirit of SINDy (Brunton, Proctor and Kutz 2016). The library holds products of inputs up to a
    degree, every unary operator of the search of each input, and every other binary operator of each pair of inputs.
    The best sums of one term, of two terms, and so on are looked for by adding, exchanging and leaving out terms
    (:mod:`symtorch_sparse.path`); they are a front by themselves. Nothing is drawn at random: the seed
    and ``niterations`` have no effect. All outputs share one pass over the rows, and only its time grows with the
    number of rows.

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
        names, limit = tuple(variable_names), search.timeout_in_seconds
        every = build_library(search, names, self.degree, self.mixed, self.most_terms)
        problems = make_problems(X, Y, search, names, weights, seed, callbacks)
        varying = [entry.output for entry in problems if not is_constant(entry.y, entry.weights)]
        deadline = Deadline.after(None if limit is None else limit * len(varying))
        probe = Step((0,), (2.0,), 1.0, 0.0)
        terms = select_usable_terms(
            [term for term in every if search.admits(_build_sum(probe, [term]))], X, names
        )
        steps = self.max_terms or search.maxsize // _CHEAPEST_TERM + 1
        columns = Columns(terms, names) if terms else None
        inputs = [place for place, term in enumerate(terms) if isinstance(term, Variable)]
        moments: list[Moments] = []
        if columns is not None and search.loss_function.name == "mse":
            searching = deadline.earlier(reserve_for_front(limit) * len(varying))
            try:
                for rows_read, so_far in _accumulate_moments(columns, X, Y, weights):
                    moments[:] = [so_far]
                    for output in range(len(problems)):
                        notify(callbacks, OutputProgressed(output, 0.9 * rows_read / len(X)))
                    if searching.is_over():
                        break
            except KeyboardInterrupt:
                for so_far, output in itertools.product(moments, varying):
                    so_good = compute_path(so_far, output, steps, inputs)
                    problems[output].report_stop([_build_sum(step, terms) for step in so_good])
                raise
        fronts = []
        for problem in problems:
            left = max(1, sum(output >= problem.output for output in varying))
            problem = replace(problem, deadline=deadline.share(left))
            path: Iterable[Step] = ()
            if columns is not None and problem.output in varying:
                y = Y[:, problem.output]
                path = (
                    _generate_path(moments[0], problem.output, steps, inputs)
                    if moments
                    else self._generate_reweighted_paths(columns, X, y, weights, problem, steps, inputs)
                )
            fronts.append(_solve(problem, path, terms))
        return fronts

    def _generate_reweighted_paths(
        self,
        columns: Columns,
        X: Tensor,
        y: Tensor,
        weights: Tensor | None,
        problem: Problem,
        steps: int,
        inputs: Sequence[int],
    ) -> Iterator[Step]:
        """Yield the steps of the paths of all reweightings of one output."""
        rows = torch.linspace(0, len(X) - 1, min(len(X), self.reweighted_rows)).round().long().unique()
        values, target = columns(X[rows]), y[rows].double()
        share = torch.ones_like(target) if weights is None else weights[rows].double()
        residual = target - weighted_median(target, share)
        for _ in range(self.reweightings):
            # Residuals below the median count as the median: else a few rows, met by chance, would outweigh all others.
            size = residual.abs().clamp_min(float(weighted_median(residual.abs(), share)))
            influence = share * problem.search.loss_function.influence(size)
            if not bool((influence > 0).any()):
                break
            steps_now = compute_path(Moments.of(values, target[:, None], influence), 0, steps, inputs)
            if not steps_now:
                break
            yield from steps_now
            if problem.is_late():
                break
            best = steps_now[-1]
            factors = torch.tensor(best.coefficients, dtype=torch.float64)
            residual = target - best.offset - values[:, list(best.indices)] @ factors


def _check_search(search: SearchSpace) -> None:
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


def _accumulate_moments(
    columns: Columns, X: Tensor, Y: Tensor, weights: Tensor | None
) -> Iterator[tuple[int, Moments]]:
    """Yield the number of rows read, and the moments of terms and outputs on them, some rows further each time."""
    total: Moments | None = None
    for start in range(0, len(X), columns.rows_at_once):
        part = slice(start, start + columns.rows_at_once)
        share = None if weights is None else weights[part]
        if share is None or bool((share > 0).any()):
            more = Moments.of(columns(X[part]), Y[part], share)
            total = more if total is None else total.merge(more)
            yield min(part.stop, len(X)), total


def _generate_path(moments: Moments, output: int, steps: int, inputs: Sequence[int]) -> Iterator[Step]:
    """Yield the path of an output; it is computed when the first step is asked for."""
    yield from compute_path(moments, output, steps, inputs)


def _solve(problem: Problem, path: Iterable[Step], terms: Sequence[Expression]) -> ParetoFront:
    """Return the front of the steps of a path."""
    found: list[Expression] = []
    with problem.keep_if_stopped(found):
        for step in path:
            equation = _build_sum(step, terms)
            found.append(equation)
            problem.report_improvement(equation, step.loss, problem.search.rules.count(equation))
        front = _build_front(found, problem)
        problem.report_progress(1.0)
        problem.report_end(front)
    return front


def _build_front(equations: Sequence[Expression], problem: Problem) -> ParetoFront:
    # Under squares, coefficients are already the best. A refit only finds shorter forms, which matters for short
    # equations and takes most of the time for long ones.
    long = equations[_REFITTED:] if problem.search.loss_function.name == "mse" else []
    short = equations[: len(equations) - len(long)]
    as_they_are = replace(problem, search=replace(problem.search, refine=False))
    return ParetoFront([*problem.build_front(short), *as_they_are.build_front(long)])


def _build_sum(step: Step, terms: Sequence[Expression]) -> Expression:
    """Return a step as an expression."""
    parts = [
        Call("*", Constant(factor), terms[index])
        for index, factor in zip(step.indices, step.coefficients, strict=True)
    ]
    return Call("+", reduce(lambda left, right: Call("+", left, right), parts), Constant(step.offset))
