"""Many expressions evaluated together: operations of a kind become one operation on a block of rows.

Every distinct subexpression owns a row of a buffer (slots, rows). Subexpressions whose operands are ready,
with the same operator, lie next to each other, so that one call computes all of them: a few dozen calls
instead of a few hundred. It writes in place, so it is for inference only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType
from typing import final

import torch
from torch import Tensor, nn

from symtorch_core.expression.operators import OPERATORS
from symtorch_core.expression.tree import Call, Constant, Expression, Variable, is_exponent, whole_exponent

_BUFFER_ELEMENTS = 2**21

# What an operand or a result is: ("input", column), ("number", position) or (operator, *operands).
_Key = tuple[object, ...]


@final
@dataclass(frozen=True)
class _Operand:
    """Where the operands of a step are: a run of the ordered numbers, or a run or an index of the buffer."""

    is_number: bool
    run: tuple[int, int] | None
    index: str = ""


@final
@dataclass(frozen=True)
class _Step:
    """One operator on several rows at once, results into rows ``start`` to ``stop``; or a whole power."""

    operator: str
    exponent: int | None
    operands: tuple[_Operand, ...]
    start: int
    stop: int


@final
class Batched(nn.Module):
    """Evaluates expressions for rows (n, d) without gradients, for :class:`Program`."""

    def __init__(self, expressions: Sequence[Expression], variables: Sequence[str]) -> None:
        super().__init__()
        keys, roots = _flattened(expressions, variables)
        rows: dict[_Key, int] = {("input", i): i for i in range(len(variables))}
        self._number_order: list[int] = []
        self._steps = tuple(self._step(group, rows) for group in keys)
        self._slots = len(rows)
        self._roots = [(i, rows[key]) for i, key in enumerate(roots) if key[0] != "number"]
        self._numbers = [(i, _position(key)) for i, key in enumerate(roots) if key[0] == "number"]
        self._add_index("root_rows", [row for _, row in self._roots])
        self._add_index("number_order", self._number_order)

    def _step(self, group: Sequence[_Key], rows: dict[_Key, int]) -> _Step:
        first = group[0]
        exponent = first[2] if first[0] == "power" else None
        assert exponent is None or isinstance(exponent, int)
        columns = [[key[1]] for key in group] if exponent is not None else [list(key[1:]) for key in group]
        operands = tuple(self._operand(operand, rows) for operand in zip(*columns, strict=True))
        start = len(rows)
        for key in group:
            rows[key] = len(rows)
        return _Step(str(first[0]), exponent, operands, start, len(rows))

    def _operand(self, keys: Sequence[object], rows: dict[_Key, int]) -> _Operand:
        if isinstance(keys[0], tuple) and keys[0][0] == "number":
            start = len(self._number_order)
            self._number_order += map(_position, keys)
            return _Operand(True, (start, len(self._number_order)))
        values = [rows[key] for key in keys]  # type: ignore[index]
        run = (values[0], values[-1] + 1)
        if values == list(range(*run)):
            return _Operand(False, run)
        name = f"index{len(self._buffers)}"
        self._add_index(name, values)
        return _Operand(False, None, name)

    def _add_index(self, name: str, values: Sequence[int]) -> None:
        # Buffers, so that they move with the module; derived, so that they are not saved.
        self.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)

    @property
    def most_rows(self) -> int:
        """Rows up to which the buffer stays in cache; beyond, one operation per node is as fast."""
        return _BUFFER_ELEMENTS // max(self._slots, 1)

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Values (n, k) for rows (n, d) and the constants of all expressions."""
        result = x.new_empty(len(x), len(self._roots) + len(self._numbers))
        buffer = x.new_empty(self._slots, len(x))
        indices: dict[str, Tensor] = self._buffers  # type: ignore[assignment]  # named_buffers() walks all modules
        ordered = numbers.index_select(0, indices["number_order"])[:, None]
        buffer[: x.shape[1]].copy_(x.T)
        for step in self._steps:
            _run(step, buffer, indices, ordered)
        values = buffer.index_select(0, indices["root_rows"]).T
        if self._numbers:
            result[:, [column for column, _ in self._roots]] = values
        else:
            result.copy_(values)
        for column, position in self._numbers:
            result[:, column] = numbers[position]
        return result


def _run(step: _Step, buffer: Tensor, indices: dict[str, Tensor], numbers: Tensor) -> None:
    args = []
    for operand in step.operands:
        if operand.run is not None:
            source = numbers if operand.is_number else buffer
            args.append(source[operand.run[0] : operand.run[1]])
        else:
            args.append(buffer.index_select(0, indices[operand.index]))
    target = buffer[step.start : step.stop]
    whole = step.exponent is not None
    function = torch.pow if whole else OPERATORS[step.operator].torch
    operands = (args[0], step.exponent) if whole else args
    # A composition of torch functions takes no out=, and one result for all rows would resize it.
    if isinstance(function, BuiltinFunctionType) and not all(operand.is_number for operand in step.operands):
        function(*operands, out=target)
    else:
        target.copy_(function(*operands))


def _position(number: object) -> int:
    """The position of a number among the constants, from its key."""
    assert isinstance(number, tuple)
    return int(number[1])


def _flattened(
    expressions: Sequence[Expression], variables: Sequence[str]
) -> tuple[list[list[_Key]], list[_Key]]:
    """Groups of subexpressions that can be computed together, in order, and the key of each expression."""
    levels: dict[_Key, int] = {}
    position = 0

    def visit(node: Expression) -> _Key:
        nonlocal position
        if isinstance(node, Variable):
            return ("input", variables.index(node.name))
        if isinstance(node, Constant):
            position += 1
            return ("number", position - 1)
        assert isinstance(node, Call)
        if is_exponent(node, 1):
            operands: tuple[_Key, ...] = (visit(node.args[0]),)
            key: _Key = ("power", operands[0], whole_exponent(node))
        else:
            operands = tuple(visit(child) for child in node.args)
            key = (node.operator, *operands)
        levels.setdefault(key, 1 + max(levels.get(operand, 0) for operand in operands))
        return key

    roots = [visit(expression) for expression in expressions]
    groups: dict[tuple[object, ...], list[_Key]] = {}
    for key, level in levels.items():
        exponent_or_none = key[2] if key[0] == "power" else None
        kinds = tuple(isinstance(operand, tuple) and operand[0] == "number" for operand in key[1:])
        groups.setdefault((level, str(key[0]), str(exponent_or_none), kinds), []).append(key)
    return [groups[group] for group in sorted(groups, key=lambda g: (g[0], *map(str, g[1:])))], roots
