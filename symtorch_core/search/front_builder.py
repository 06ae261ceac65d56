"""From raw equations to a Pareto front: simplify, refit constants, measure on all rows.

All equations that backends find pass through :func:`build_front`, so fronts of different backends differ only in
the equations found.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.expressions import (
    Call,
    Constant,
    Expression,
    constants,
    evaluate,
    simplify,
    with_constants,
)
from symtorch_core.search.constants import CONVERGED, one_thread, refit_constants
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.precision import compute_resolution
from symtorch_core.search.space import SearchSpace
from symtorch_core.training.descend import allow_gradients

_KEPT_PER_COMPLEXITY = 3
_EXPLORED_ROWS = 1_000
"""Rows used to try shorter forms; the equations kept are refitted and measured on all rows."""
_PROMISING = 1.5
_RECOVERABLE = 100.0
"""A shorter equation may be worse by this factor at first: its remaining constants may make up for the lost one."""
_REWRITTEN = 4
"""Units of complexity that an equation may lose when it is refitted and simplified."""
_CONTENDS = 1.02
"""An equation may be worse than a simpler one by this factor on a sample of the rows, and still be better on all."""
_CONVERGED_WHILE_EXPLORING = 1e-2
_NEGLIGIBLE = 1e-6  # beside the largest constant of the equation
_SNAP_WITHIN = 1e-5
_LOSS_AGREES = 1e-6


@allow_gradients()
@one_thread()
def build_front(
    expressions: Iterable[Expression],
    X: np.ndarray,
    y: np.ndarray,
    search: SearchSpace,
    variable_names: Sequence[str],
    weights: np.ndarray | None = None,
) -> ParetoFront:
    """Build the Pareto front of the given equations on the given rows.

    Each equation is simplified; equations that break the search's maxsize or constraints, or are not finite on
    every row, are left out. For the best few at each complexity the constants are refitted (``search.refine``),
    superfluous terms are dropped, and constants are set to zero, to the round number or to the multiple of pi that they
    are very close to, if the loss stays the same. The best constant is always a candidate. No step depends on the units
    of the targets.

    Args:
        expressions: in the names of ``variable_names``.
        X: inputs, shape (n, d), float64.
        y: targets, shape (n,).
        search: defines loss, complexity rules, maxsize and constraints.
        variable_names: d names for the columns of X.
        weights: shape (n,) or None.

    Returns:
        The front. It holds the best constant alone if that fits to rounding.

    >>> from symtorch_core.expressions import parse
    >>> X = np.linspace(0, 1, 50)[:, None]
    >>> front = build_front([parse("x"), parse("1.0*x + 0.1")], X, 3 * X[:, 0] + 2, SearchSpace(), ["x"])
    >>> print(front.select("accuracy"))
    3*x + 2
    """
    rows = _Rows(
        {name: torch.from_numpy(X[:, i].copy()) for i, name in enumerate(variable_names)},
        torch.from_numpy(np.asarray(y, dtype=np.float64)),
        None if weights is None else torch.from_numpy(np.asarray(weights, dtype=np.float64)),
        search,
    )
    floor = rows.loss_of_rounding()
    baseline = rows.refit(Constant(float(np.average(y, weights=weights))))
    if baseline.loss <= floor:
        return ParetoFront([baseline])
    found = _select_best_by_complexity(map(rows.measure, _filter_admitted(expressions, search)))
    if search.refine:
        explored = _improve(found, rows.sample(_EXPLORED_ROWS), floor)
        found += [rows.refit(candidate.expression) for candidate in _select_contenders(explored, floor)]
    found = [candidate for candidate in found if search.admits(candidate.expression)]
    found = [_snap_constants(candidate, rows, floor) for candidate in ParetoFront([baseline, *found])]
    return ParetoFront(_take_until(found, floor))


@final
@dataclass(frozen=True)
class _Rows:
    """Rows of one search, on which equations are fitted and measured.

    ``tolerance`` is the relative gain in loss below which reweighting stops.
    """

    columns: Mapping[str, Tensor]
    target: Tensor
    weights: Tensor | None
    search: SearchSpace
    tolerance: float = CONVERGED

    def sample(self, most: int) -> _Rows:
        """Return a fixed random sample of at most ``most`` rows, for fits that need not be exact.

        With weights, rows are drawn in proportion to them, and weigh alike.
        """
        rough = replace(self, tolerance=_CONVERGED_WHILE_EXPLORING)
        if len(self.target) <= most:
            return rough
        share = None if self.weights is None else (self.weights / self.weights.sum()).numpy()
        chosen = np.random.default_rng(0).choice(len(self.target), most, replace=share is not None, p=share)
        index = torch.from_numpy(np.sort(chosen))
        return replace(
            rough,
            columns={name: column[index] for name, column in self.columns.items()},
            target=self.target[index],
            weights=None,
        )

    def measure(self, expression: Expression) -> Candidate:
        """Return the expression with its loss and complexity."""
        value = self.search.loss_function(evaluate(expression, self.columns), self.target, self.weights)
        return Candidate(expression, self.search.rules.count(expression), value)

    def loss_of_rounding(self) -> float:
        """Return the loss of an error in the last digit of every target: smaller differences are rounding."""
        step = compute_resolution(self.target.numpy())
        return self.search.loss_function(self.target + step, self.target, self.weights)

    def fit_line(self, expression: Expression) -> tuple[float, float]:
        """Return the least-squares a and b of a * expression + b; 1 and 0 if the values do not vary or overflow."""
        share = torch.ones_like(self.target) if self.weights is None else self.weights
        share = share / share.sum()
        values = evaluate(expression, self.columns).expand_as(self.target)
        unit = values.abs().max()
        values = values / unit
        middle, target_middle = (share * values).sum(), (share * self.target).sum()
        deviation = values - middle
        factor = (share * deviation * (self.target - target_middle)).sum() / (
            share * deviation.square()
        ).sum()
        a, b = float(factor / unit), float(target_middle - factor * middle)
        return (a, b) if a and math.isfinite(a) and math.isfinite(b) else (1.0, 0.0)

    def refit(self, expression: Expression) -> Candidate:
        """Return the expression with its best constants if ``search.refine`` is set, and else as it is."""
        if self.search.refine:
            loss = self.search.loss_function
            expression = refit_constants(
                expression, self.columns, self.target, self.weights, loss, self.tolerance
            )
        return self.measure(simplify(expression))


def _improve(found: Sequence[Candidate], rows: _Rows, floor: float) -> list[Candidate]:
    """Return the candidates with refitted constants, and the best shorter equations they contain.

    Simple ones come first, so that equations that a simpler one matches are skipped. Below ``floor``, where all
    losses are rounding, a shorter equation is always worth trying.
    """
    best: dict[int, Candidate] = {}
    seen: set[Expression] = set()
    order = itertools.count()
    waiting: list[tuple[int, int, Expression]] = []

    def add(expression: Expression) -> None:
        heapq.heappush(waiting, (rows.search.rules.count(expression), next(order), expression))

    for candidate in found:
        for form in _generate_forms(candidate.expression, rows):
            add(form)
    exact = math.inf
    while waiting:
        complexity, _, expression = heapq.heappop(waiting)
        if complexity > exact + _REWRITTEN:
            break
        candidate = rows.refit(expression)
        if candidate.loss <= floor:
            exact = min(exact, candidate.complexity)
        known = best.get(candidate.complexity)
        if known is not None and known.loss <= candidate.loss:
            continue
        best[candidate.complexity] = candidate
        if _is_dominated(candidate, best):
            continue
        negligible = _NEGLIGIBLE * max(map(abs, constants(candidate.expression)), default=0.0)
        for variant in map(simplify, _generate_shorter(candidate.expression, negligible)):
            if variant in seen:
                continue
            seen.add(variant)
            rough, limit = rows.measure(variant).loss, max(candidate.loss, floor)
            if rough <= _PROMISING * limit:
                add(variant)
            elif rough <= _RECOVERABLE * limit:
                refitted = rows.refit(variant)
                if not _is_dominated(refitted, best):
                    add(refitted.expression)
    return list(best.values())


def _is_dominated(candidate: Candidate, best: Mapping[int, Candidate]) -> bool:
    """Return whether a simpler equation among the best of each complexity does as well."""
    return any(other.loss <= candidate.loss for size, other in best.items() if size < candidate.complexity)


def _select_contenders(explored: Iterable[Candidate], floor: float) -> Iterator[Candidate]:
    """Yield the candidates that may be on the front of all rows: on a sample, no simpler one is clearly better."""
    best = math.inf
    for candidate in sorted(explored, key=lambda c: c.complexity):
        if best > floor and candidate.loss < _CONTENDS * best:
            yield candidate
        best = min(best, candidate.loss)


def _filter_admitted(expressions: Iterable[Expression], search: SearchSpace) -> Iterator[Expression]:
    seen: set[Expression] = set()
    for expression in expressions:
        short = simplify(expression)
        if short not in seen and search.admits(short):
            seen.add(short)
            yield short


def _select_best_by_complexity(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the few best at each complexity, dominated ones included: refitting may reorder them."""
    groups: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        if math.isfinite(candidate.loss):
            groups.setdefault(candidate.complexity, []).append(candidate)
    return [
        c for group in groups.values() for c in sorted(group, key=lambda c: c.loss)[:_KEPT_PER_COMPLEXITY]
    ]


def _take_until(candidates: Iterable[Candidate], floor: float) -> Iterator[Candidate]:
    """Yield candidates up to the first that fits to rounding: more complex ones could only fit the rounding."""
    for candidate in candidates:
        yield candidate
        if candidate.loss <= floor:
            return


def _generate_forms(expression: Expression, rows: _Rows) -> Iterator[Expression]:
    """Yield the expression, and a * expression + b if that has more constants to refit, or a far better start."""
    yield expression
    a, b = rows.fit_line(expression)
    line = Call("+", Call("*", Constant(a), expression), Constant(b))
    before, after = rows.measure(expression).loss, rows.measure(line).loss
    shaped = simplify(Call("+", Call("*", Constant(1.5), expression), Constant(0.5)))
    if len(constants(shaped)) > len(constants(expression)):
        # Squares of outliers may lead a robust loss astray.
        yield line if after < before else Call("+", Call("*", Constant(1.0), expression), Constant(0.0))
    elif _PROMISING * after < before:
        yield simplify(line)


def _generate_shorter(expression: Expression, negligible: float) -> Iterator[Expression]:
    """Yield each expression with one summand dropped, one factor set to one, or a negligible one set to zero."""
    if not isinstance(expression, Call):
        return
    if expression.operator in {"+", "-"}:
        yield expression.args[0]
        yield expression.args[1] if expression.operator == "+" else Call("neg", expression.args[1])
    if expression.operator in {"*", "/"}:
        for position, child in enumerate(expression.args):
            if isinstance(child, Constant):
                yield Call(expression.operator, *_replace_at(expression.args, position, Constant(1.0)))
                if abs(child.value) < negligible:
                    yield Constant(0.0)
    for position, child in enumerate(expression.args):
        for variant in _generate_shorter(child, negligible):
            yield Call(expression.operator, *_replace_at(expression.args, position, variant))


def _replace_at(args: tuple[Expression, ...], position: int, new: Expression) -> tuple[Expression, ...]:
    return (*args[:position], new, *args[position + 1 :])


def _snap_constants(candidate: Candidate, rows: _Rows, floor: float) -> Candidate:
    """Return the candidate with constants set to the round numbers they nearly equal, if the loss agrees."""
    best, close = candidate, _LOSS_AGREES * candidate.loss
    values = list(constants(candidate.expression))
    for position, value in enumerate(values):
        for rounded in _find_round_numbers(value):
            trial = [*values[:position], rounded, *values[position + 1 :]]
            attempt = rows.measure(with_constants(candidate.expression, trial))
            gain = candidate.loss - attempt.loss
            # Zero is far from the constant: if it gains, the constants are not the best, as without a refit.
            if attempt.loss <= floor or -close <= gain <= (math.inf if rounded else close):
                best, values = attempt, trial
                break
    shorter = rows.measure(simplify(best.expression))  # zeros may have made a part superfluous
    return shorter if shorter.complexity < best.complexity else best


def _find_round_numbers(value: float) -> Iterator[float]:
    """Yield zero, and the nearest half or half multiple of pi if it is very close to the value; none equals it."""
    if value == 0:
        return
    yield 0.0
    for unit in (0.5, math.pi / 2):
        nearest = round(value / unit) * unit
        if nearest and nearest != value and abs(value - nearest) <= _SNAP_WITHIN * abs(nearest):
            yield nearest
            return
