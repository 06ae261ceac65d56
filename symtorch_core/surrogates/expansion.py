"""Expansion: a block's outputs in its own inputs, with transforms and linear maps written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from symtorch_core.errors import FileFormatError, SelectionError
from symtorch_core.expressions import Call, Constant, Expression, Variable, simplify, substitute
from symtorch_core.reduction.loadings import read_map
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.surrogates.transforms import Transforms

_CHAIN = 64
"""Sums of more terms are sums of sums, so that no tree is as deep as its sum is long."""


def expand_equations(
    expressions: Sequence[Expression], transforms: Transforms, reduction: Reduction
) -> tuple[Expression, ...]:
    """Return an expression in the block's inputs for each output that equations compute.

    Args:
        expressions: equations in ``reduction.variable_names``, one for each reduced output.
        transforms: map from the inputs to derived variables.
        reduction: maps from derived variables to those of the equations, and from equations to outputs.

    Raises:
        SelectionError: a map is not linear, or a transform is a Python function.
    """
    try:
        derived = dict(transforms.expressions())
    except FileFormatError as error:
        raise SelectionError(f"the equations cannot be written in the inputs: {error}") from None
    names = transforms.variable_names
    down = read_map(reduction.down, len(names), "the map from the inputs to the equations' variables")
    up = read_map(reduction.up, len(expressions), "the map from the equations to the outputs")
    columns: list[Expression] = [derived.get(name, Variable(name)) for name in names]
    z = {
        name: _sum(zip(weights, columns, strict=True), bias)
        for name, weights, bias in zip(
            reduction.variable_names, down.weight.tolist(), down.bias.tolist(), strict=True
        )
    }
    written = [substitute(expression, z) for expression in expressions]
    offsets = up.bias
    straight: list[list[float]] = [[] for _ in offsets]
    if reduction.linear is not None:
        linear = read_map(reduction.linear, len(z), "the linear part")
        straight = (linear.weight @ down.weight).tolist()
        offsets = offsets + linear.bias + linear.weight @ down.bias
    return tuple(
        simplify(
            _sum([*zip(weights, written, strict=True), *zip(direct, columns, strict=False)], float(offset))
        )
        for weights, direct, offset in zip(up.weight.tolist(), straight, offsets, strict=True)
    )


def _sum(terms: Iterable[tuple[float, Expression]], constant: float) -> Expression:
    """Return the sum of weight * part over the terms, plus a constant; weights of zero are left out."""
    parts = list(_signed(terms, constant))
    while len(parts) > 1:
        parts = [_chain(parts[start : start + _CHAIN]) for start in range(0, len(parts), _CHAIN)]
    sign, part = parts[0] if parts else (1, Constant(0.0))
    return part if sign > 0 else Call("neg", part)


def _signed(terms: Iterable[tuple[float, Expression]], constant: float) -> Iterator[tuple[int, Expression]]:
    for weight, part in terms:
        if weight:
            size = abs(weight)
            yield (1 if weight > 0 else -1), part if size == 1 else Call("*", Constant(size), part)
    if constant:
        yield (1 if constant > 0 else -1), Constant(abs(constant))


def _chain(parts: Sequence[tuple[int, Expression]]) -> tuple[int, Expression]:
    (sign, total), *others = parts
    total = total if sign > 0 else Call("neg", total)
    for sign, part in others:
        total = Call("+" if sign > 0 else "-", total, part)
    return 1, total
