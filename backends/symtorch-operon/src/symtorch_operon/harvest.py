"""Collection of the best trees of every length over all generations, as expressions of the core."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, final

from symtorch_core import ExpressionError
from symtorch_core.expressions import Expression
from symtorch_operon.symbols import to_expression

_KEPT_PER_LENGTH = 5

Structure = tuple[tuple[int, int], ...]


@final
class Harvest:
    """Collects the best few trees of every length over all generations, each structure once.

    Operon's length is not the core's complexity, since weights of variables and the final scaling do not count in it.
    So several trees of each length are kept, and the core ranks them.

    Args:
        inputs: name and scale of each variable, by Operon's hash of it.
        admits: decides whether an equation may be kept.
    """

    def __init__(self, inputs: Mapping[int, tuple[str, float]], admits: Callable[[Expression], bool]) -> None:
        self._inputs = inputs
        self._admits = admits
        self._kept: dict[int, dict[Structure, tuple[float, Expression]]] = {}
        self._refused: set[Structure] = set()

    def gather(self, individuals: Iterable[Any]) -> list[tuple[float, Expression]]:
        """Keep the best trees of a generation, and return the error and the equation of each that is new."""
        newcomers = []
        for individual in individuals:
            error, length = individual[0], int(individual[1])
            if not math.isfinite(error) or length < 1:
                continue
            kept = self._kept.setdefault(length, {})
            if len(kept) < _KEPT_PER_LENGTH or error < max(worst for worst, _ in kept.values()):
                expression = self._offer(kept, error, individual.Genotype.Nodes)
                if expression is not None:
                    newcomers.append((error, expression))
        return newcomers

    def _offer(
        self, kept: dict[Structure, tuple[float, Expression]], error: float, nodes: list[Any]
    ) -> Expression | None:
        structure = tuple((node.HashValue, node.Arity) for node in nodes)
        known = kept.get(structure)
        if structure in self._refused or (known is not None and known[0] <= error):
            return None
        try:
            expression = to_expression(nodes, self._inputs)
        except ExpressionError:  # a coefficient overflowed
            return None
        if known is None and not self._admits(expression):
            self._refused.add(structure)
            return None
        kept[structure] = (error, expression)
        if len(kept) > _KEPT_PER_LENGTH:
            del kept[max(kept, key=lambda key: kept[key][0])]
        return expression

    def __iter__(self) -> Iterator[Expression]:
        for length in sorted(self._kept):
            for _, expression in sorted(self._kept[length].values(), key=lambda entry: entry[0]):
                yield expression
