"""Thresholds: constants that decide where a function switches, which no derivative can move."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from symtorch_core.expressions import OPERATORS, Call, Expression, constants, evaluate, walk, with_constants
from symtorch_core.search.deadline import NEVER, Deadline
from symtorch_core.search.losses import Loss

SWITCHING: Final = frozenset(name for name, operator in OPERATORS.items() if operator.switches)
"""Operators that switch where an argument, or the difference of two, changes its sign."""
_TRIED: Final = 64
"""Thresholds that are tried at once."""
_MOVES: Final = 3
"""Moves of each constant, at most, on average."""
_GAIN: Final = 1e-9
_STRAIGHT: Final = 1e-9


@final
@dataclass(frozen=True)
class _Switch:
    """A quantity whose sign decides, and the positions of its constants among those of the whole expression."""

    quantity: Expression
    positions: tuple[int, ...]


def has_thresholds(expression: Expression) -> bool:
    """Return whether an expression has a function that switches."""
    return any(isinstance(node, Call) and node.operator in SWITCHING for node in walk(expression))


def refit_thresholds(
    expression: Expression,
    columns: Mapping[str, Tensor],
    target: Tensor,
    weights: Tensor | None,
    loss: Loss,
    deadline: Deadline = NEVER,
    *,
    scaled: bool = False,
) -> Expression:
    """Return the same structure with better thresholds: at each step, the one that helps most is moved.

    The loss is constant between two rows at which a function switches, so the places between are all that there is to
    try: some spread over all of them, and then all around the best. Constants that do not shift a switch by a
    straight line stay as they are.

    Args:
        expression: finite on every row.
        columns: a float64 tensor of shape (n,) for each variable.
        target: float64, shape (n,).
        weights: float64, shape (n,), or None.
        loss: the loss to minimise.
        deadline: when to stop.
        scaled: judge each form f by the best a + b f under squares, since its factors are refitted afterwards.
    """
    values = torch.tensor(constants(expression), dtype=torch.float64)
    places = [(switch, position) for switch in _list_switches(expression) for position in switch.positions]

    def rate(position: int, tried: Tensor) -> Tensor:
        numbers = [tried[:, None] if i == position else value for i, value in enumerate(values)]
        predicted = evaluate(expression, columns, numbers).expand(len(tried), len(target))
        return _compute_losses(predicted, target, weights, loss, scaled)

    lowest = float(rate(-1, values[:1])[0]) if places else 0.0
    for _ in range(_MOVES * len(places)):
        moves = []
        for switch, position in places:
            if deadline.is_over():
                return with_constants(expression, values.tolist())
            levels = _find_places(switch, position, columns, values)
            moves.append((*_choose(levels, functools.partial(rate, position)), position))
        reached, value, position = min(moves)
        if not reached < lowest * (1 - _GAIN):
            break
        lowest, values[position] = reached, value
    return with_constants(expression, values.tolist())


def _list_switches(expression: Expression) -> Iterator[_Switch]:
    """Yield the switches of an expression that have constants."""

    def visit(node: Expression, first: int) -> Iterator[_Switch]:
        if not isinstance(node, Call):
            return
        ranges = []
        for child in node.args:
            yield from visit(child, first)
            ranges.append(range(first, first := first + len(constants(child))))
        for places in OPERATORS[node.operator].switches:
            parts = [node.args[place] for place in places]
            positions = tuple(position for place in places for position in ranges[place])
            if positions:
                yield _Switch(parts[0] if len(parts) == 1 else Call("-", *parts), positions)

    yield from visit(expression, 0)


def _find_places(switch: _Switch, position: int, columns: Mapping[str, Tensor], values: Tensor) -> Tensor:
    """Return values of a constant between those at which some row switches, shape (m,), in ascending order."""
    own = values[list(switch.positions)]
    here = switch.positions.index(position)
    step = float(own[here].abs()) or 1.0

    def shift(steps: int) -> Tensor:
        moved = own.clone()
        moved[here] += steps * step
        return evaluate(switch.quantity, columns, moved)

    first, second, third = shift(0), shift(1), shift(2)
    slope = (second - first) / step
    straight = (third - 2 * second + first).abs() <= _STRAIGHT * (first.abs() + third.abs())
    switching = own[here] - first / slope
    rows = (straight & torch.isfinite(switching)).expand(switching.shape)
    levels: Tensor = switching[rows].unique()
    if len(levels) < 2:
        return levels.new_zeros(0)
    between: Tensor = (levels[1:] + levels[:-1]) / 2
    return between


def _choose(places: Tensor, rate: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Return the lowest loss that a constant reaches at these places, shape (m,), and its value there."""
    best = (math.inf, math.nan)
    low, high = 0, len(places)
    while high > low:
        index = torch.linspace(low, high - 1, min(_TRIED, high - low)).round().long().unique()
        losses = rate(places[index])
        at = int(losses.argmin())
        best = min(best, (float(losses[at]), float(places[index[at]])))
        if len(index) == high - low:
            break
        low, high = int(index[max(0, at - 1)]), int(index[min(len(index) - 1, at + 1)]) + 1
    return best


def _compute_losses(
    predicted: Tensor, target: Tensor, weights: Tensor | None, loss: Loss, scaled: bool
) -> Tensor:
    """Return the loss of predictions, shape (m, n), for each row of them; if scaled, of the best a + b f."""
    share = torch.ones_like(target) if weights is None else weights
    share = share / share.sum()
    if scaled:
        centred = predicted - (predicted @ share)[:, None]
        rest = target - share @ target
        spread = centred.square() @ share
        slope = torch.where(spread > 0, (centred * rest) @ share / spread, 0.0)
        predicted = slope[:, None] * centred + share @ target
    losses = loss.of_residual(predicted - target) @ share
    return torch.where(torch.isfinite(losses), losses, torch.inf)
