"""Evaluation of many expressions together: equal operations become one operation on a block of rows.

Every distinct subexpression owns a row of a buffer (slots, rows). Subexpressions with the same operator whose
operands are ready lie next to each other, so that one call computes all of them: a few dozen calls instead of a few
hundred. Outputs that are long sums, as sparse regression finds them, are computed as weighted sums of rows. The
buffer is written in place, so this form is for inference only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType
from typing import final

import torch
from torch import Tensor, nn

from symtorch_core.expressions.operators import OPERATORS
from symtorch_core.expressions.tree import Call, Constant, Expression, Variable, is_exponent, whole_exponent

_CACHED_ELEMENTS = 2**21
_CUDA_ELEMENTS = 2**28
_LEAST_TERMS = 4

# Key of an operand or result: ("input", column), ("number", position), ("one",), (operator, *operands) or
# ("sum", position).
_Key = tuple[object, ...]
_ONE: _Key = ("one",)


@final
@dataclass(frozen=True)
class _Operand:
    """Location of the operands of a step: a run of the ordered numbers, or a run or an index of the buffer."""

    is_number: bool
    run: tuple[int, int] | None
    index: str = ""


@final
@dataclass(frozen=True)
class _Step:
    """One operator (or integer power) on several rows at once, with results in rows ``start`` to ``stop``."""

    operator: str
    exponent: int | None
    operands: tuple[_Operand, ...]
    start: int
    stop: int


@final
@dataclass(frozen=True)
class _Addend:
    """Part of a sum: sign * number * term, or sign * term without a number."""

    sign: int
    number: int | None
    term: _Key


_NOTHING = _Addend(0, None, _ONE)


@final
class _Sums(nn.Module):
    """Sums of numbers times rows of the buffer, one row for each sum.

    They are computed as one matrix product if that is exact and quick to check. Otherwise every sum gathers its
    terms, which takes three operations for any number of sums.
    """

    def __init__(self, sums: Sequence[Sequence[_Addend]], rows: dict[_Key, int]) -> None:
        super().__init__()
        self._count = len(sums)
        self._length = max(map(len, sums))
        self.entries = self._count * self._length
        filled = [(*addends, *[_NOTHING] * (self._length - len(addends))) for addends in sums]
        addends = [addend for row in filled for addend in row]
        terms = [rows[addend.term] for addend in addends]
        self._first, self._width = min(terms), max(terms) + 1 - min(terms)
        places = [i // self._length * self._width + term - self._first for i, term in enumerate(terms)]
        _add_index(self, "terms", terms)
        _add_index(self, "places", places)
        _add_index(self, "signs", [addend.sign for addend in addends])
        # Terms without a number use the 1 that forward() puts before the numbers.
        _add_index(self, "numbers", [0 if a.number is None else 1 + a.number for a in addends])

    def forward(self, buffer: Tensor, numbers: Tensor, target: Tensor) -> None:
        """Write the sums (k, n) to target, from the buffer (slots, n) and the constants."""
        indices: dict[str, Tensor] = self._buffers  # type: ignore[assignment]
        factors = torch.cat([numbers.new_ones(1), numbers]).index_select(0, indices["numbers"])
        factors = (factors * indices["signs"]).to(buffer.dtype)
        if _multiplies_exactly(buffer):
            weights = factors.new_zeros(self._count * self._width)
            weights.index_add_(0, indices["places"], factors)
            terms = buffer[self._first : self._first + self._width]
            torch.mm(weights.view(self._count, self._width), terms, out=target)
            # A non-finite term spoils all sums of its row, also those without it: 0 * inf is NaN.
            if math.isfinite(target.sum().item()):
                return
        gathered = buffer.index_select(0, indices["terms"]).mul_(factors[:, None])
        target.copy_(gathered.view(self._count, self._length, buffer.shape[1]).sum(1))


def _multiplies_exactly(buffer: Tensor) -> bool:
    """Return whether matrix products keep all digits, and reading a result does not wait for a device."""
    if buffer.device.type != "cpu" or buffer.dtype not in (torch.float32, torch.float64):
        return False
    try:
        return buffer.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # precision set by torch's newer settings, which this function cannot read
        return False


def _add_index(module: nn.Module, name: str, values: Sequence[int]) -> None:
    # Buffers, so that they move with the module; derived, so that they are not saved.
    module.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)


@final
class Batched(nn.Module):
    """Evaluation of expressions on rows (n, d) without gradients, for :class:`Program`."""

    def __init__(self, expressions: Sequence[Expression], variables: Sequence[str]) -> None:
        super().__init__()
        keys, roots, sums = _group_subexpressions(expressions, variables)
        rows: dict[_Key, int] = {("input", i): i for i in range(len(variables))}
        rows[_ONE] = len(rows)
        self._number_order: list[int] = []
        self._steps = tuple(self._step(group, rows) for group in keys)
        self._sums = _Sums(list(sums.values()), rows) if sums else None
        self._sum_start = len(rows)
        for key in sums:
            rows[key] = len(rows)
        self._slots = len(rows)
        self._roots = [(i, rows[key]) for i, key in enumerate(roots) if key[0] != "number"]
        self._numbers = [(i, _position(key)) for i, key in enumerate(roots) if key[0] == "number"]
        _add_index(self, "root_rows", [row for _, row in self._roots])
        _add_index(self, "number_order", self._number_order)

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
        _add_index(self, name, values)
        return _Operand(False, None, name)

    def most_rows(self, device: torch.device) -> int:
        """Return the number of rows up to which this form is the faster one.

        On a CPU the buffer must stay in cache; for more rows, one operation per node is as fast. On a GPU, time
        depends on the number of operations, and only memory sets a limit.
        """
        if device.type == "cuda":
            return _CUDA_ELEMENTS // (self._slots + (self._sums.entries if self._sums else 0))
        return _CACHED_ELEMENTS // self._slots

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Return the values (n, k) for rows (n, d) and the constants of all expressions."""
        result = x.new_empty(len(x), len(self._roots) + len(self._numbers))
        buffer = x.new_empty(self._slots, len(x))
        indices: dict[str, Tensor] = self._buffers  # type: ignore[assignment]  # named_buffers() walks all modules
        ordered = numbers.index_select(0, indices["number_order"])[:, None]
        buffer[: x.shape[1]].copy_(x.T)
        for step in self._steps:
            _run(step, buffer, indices, ordered)
        if self._sums is not None:
            buffer[x.shape[1]].fill_(1)
            self._sums(buffer, numbers, buffer[self._sum_start :])
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
    """Return the position of a number among the constants, from its key."""
    assert isinstance(number, tuple)
    return int(number[1])


def _iterate_addends(node: Expression, sign: int = 1) -> Iterator[tuple[int, Expression]]:
    """Yield the terms of a tree of sums, differences and negations, left to right, with signs."""
    if isinstance(node, Call) and node.operator in ("+", "-", "neg"):
        last = sign if node.operator == "+" else -sign
        for child in node.args[:-1]:
            yield from _iterate_addends(child, sign)
        yield from _iterate_addends(node.args[-1], last)
    else:
        yield sign, node


def _group_subexpressions(
    expressions: Sequence[Expression], variables: Sequence[str]
) -> tuple[list[list[_Key]], list[_Key], dict[_Key, list[_Addend]]]:
    """Return groups of subexpressions to compute together, in order, the key of each expression, and the sums."""
    levels: dict[_Key, int] = {}
    sums: dict[_Key, list[_Addend]] = {}
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

    def addend(sign: int, node: Expression) -> _Addend:
        if isinstance(node, Constant):
            return _Addend(sign, _position(visit(node)), _ONE)
        if isinstance(node, Call) and node.operator == "*":
            numbers = [isinstance(child, Constant) for child in node.args]
            if sum(numbers) == 1:
                keys = [visit(child) for child in node.args]
                return _Addend(sign, _position(keys[numbers.index(True)]), keys[numbers.index(False)])
        return _Addend(sign, None, visit(node))

    def visit_root(root: Expression) -> _Key:
        parts = list(_iterate_addends(root))
        if sum(not isinstance(part, Constant) for _, part in parts) < _LEAST_TERMS:
            return visit(root)
        key = ("sum", len(sums))
        sums[key] = [addend(*part) for part in parts]
        return key

    roots = [visit_root(expression) for expression in expressions]
    groups: dict[tuple[object, ...], list[_Key]] = {}
    for key, level in levels.items():
        exponent_or_none = key[2] if key[0] == "power" else None
        kinds = tuple(isinstance(operand, tuple) and operand[0] == "number" for operand in key[1:])
        groups.setdefault((level, str(key[0]), str(exponent_or_none), kinds), []).append(key)
    ordered = sorted(groups, key=lambda g: (g[0], *map(str, g[1:])))
    return [groups[group] for group in ordered], roots, sums
