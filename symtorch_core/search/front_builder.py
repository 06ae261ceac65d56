"""From raw equations to a Pareto front: simplify, refit constants, measure on all rows.

All equations that backends find pass through :func:`build_front`, so fronts of different backends differ only in
the equations found.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from symtorch_core.expressions import (
    Call,
    Constant,
    Expression,
    constants,
    simplify,
    with_constants,
)
from symtorch_core.search.constants import one_thread
from symtorch_core.search.deadline import NEVER, Deadline
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.rows import Rows
from symtorch_core.search.space import SearchSpace
from symtorch_core.search.thresholds import has_thresholds
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
    deadline: Deadline = NEVER,
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
        deadline: when to stop refitting: from then on, equations stay as they are, and are only measured.

    Returns:
        The front. It holds the best constant alone if that fits to rounding.

    >>> from symtorch_core.expressions import parse
    >>> X = np.linspace(0, 1, 50)[:, None]
    >>> front = build_front([parse("x"), parse("1.0*x + 0.1")], X, 3 * X[:, 0] + 2, SearchSpace(), ["x"])
    >>> print(front.select("accuracy"))
    3*x + 2
    """
    rows = Rows(
        {name: torch.from_numpy(X[:, i].copy()) for i, name in enumerate(variable_names)},
        torch.from_numpy(np.asarray(y, dtype=np.float64)),
        None if weights is None else torch.from_numpy(np.asarray(weights, dtype=np.float64)),
        search,
        deadline,
    )
    floor = rows.loss_of_rounding()
    # However late it is, the best constant has to be there.
    baseline = replace(rows, deadline=NEVER).refit(Constant(float(np.average(y, weights=weights))))
    if baseline.loss <= floor:
        return ParetoFront([rows.with_errors(baseline)])
    sample = rows.sample(_EXPLORED_ROWS)
    found = _measure(_filter_admitted(expressions, search), rows, sample)
    if search.refine and not deadline.is_over():
        explored = _improve(found, sample, floor)
        found += [rows.refit(candidate.expression) for candidate in _select_contenders(explored, floor)]
    found = [candidate for candidate in found if search.admits(candidate.expression)]
    found = [
        candidate if deadline.is_over() else _snap_constants(candidate, rows, floor)
        for candidate in ParetoFront([baseline, *found])
    ]
    return ParetoFront(map(rows.with_errors, _take_until(found, floor)))


def _measure(expressions: Iterator[Expression], rows: Rows, sample: Rows) -> list[Candidate]:
    """Return the best few expressions of each complexity, measured on all rows.

    Those that the deadline overtakes are first compared on a sample of the rows.
    """
    in_time = []
    while not rows.deadline.is_over() and (expression := next(expressions, None)) is not None:
        in_time.append(rows.measure(expression))
    late = _select_best_by_complexity(map(sample.measure, expressions), most=1)
    return _select_best_by_complexity([*in_time, *(rows.measure(entry.expression) for entry in late)])


def _improve(found: Sequence[Candidate], rows: Rows, floor: float) -> list[Candidate]:
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
        if rows.deadline.is_over():
            break
        for form in _generate_forms(candidate.expression, rows):
            add(form)
    exact = math.inf
    while waiting and not rows.deadline.is_over():
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


def _select_best_by_complexity(
    candidates: Iterable[Candidate], most: int = _KEPT_PER_COMPLEXITY
) -> list[Candidate]:
    """Return the few best at each complexity, dominated ones included: refitting may reorder them."""
    groups: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        if math.isfinite(candidate.loss):
            groups.setdefault(candidate.complexity, []).append(candidate)
    return [c for group in groups.values() for c in sorted(group, key=lambda c: c.loss)[:most]]


def _take_until(candidates: Iterable[Candidate], floor: float) -> Iterator[Candidate]:
    """Yield candidates up to the first that fits to rounding: more complex ones could only fit the rounding."""
    for candidate in candidates:
        yield candidate
        if candidate.loss <= floor:
            return


def _generate_forms(expression: Expression, rows: Rows) -> Iterator[Expression]:
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
    """Yield each expression with one summand dropped, one factor set to one, or a negligible one set to zero.

    Beside what switches, whole factors are dropped too: those that a search put there only to imitate a step.
    """
    if not isinstance(expression, Call):
        return
    if expression.operator == "cond" and not isinstance(expression.args[1], Constant):
        yield Call("cond", expression.args[0], Constant(1.0))
    if expression.operator == "*" and has_thresholds(expression):
        yield from expression.args
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


def _snap_constants(candidate: Candidate, rows: Rows, floor: float) -> Candidate:
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
