"""Collection of the best programs of every length over all generations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

from gplearn.functions import _Function

from symtorch_core.expressions import Expression

_KEPT_PER_LENGTH = 5

Structure = tuple[str | int | None, ...]


@final
class Harvest:
    """Collects the best few programs of every length over all generations, each structure once.

    Args:
        translate: converts a program to an expression.
    """

    def __init__(self, translate: Callable[[Sequence[Any]], Expression]) -> None:
        self._translate = translate
        self._kept: dict[int, dict[Structure, tuple[float, Expression]]] = {}

    def offer(self, program: Sequence[Any], error: float) -> None:
        """Keep a program if it is among the best of its length.

        Args:
            program: functions, column numbers and constants, in prefix order.
            error: its loss.
        """
        kept = self._kept.setdefault(len(program), {})
        if len(kept) >= _KEPT_PER_LENGTH and error >= max(known for known, _ in kept.values()):
            return
        form = get_structure(program)
        if form in kept and kept[form][0] <= error:
            return
        kept[form] = (error, self._translate(program))
        if len(kept) > _KEPT_PER_LENGTH:
            del kept[max(kept, key=lambda key: kept[key][0])]

    def __iter__(self) -> Iterator[Expression]:
        for length in sorted(self._kept):
            for _, expression in sorted(self._kept[length].values(), key=lambda entry: entry[0]):
                yield expression


def get_structure(program: Sequence[Any]) -> Structure:
    """Return a program without its constants: names of functions, numbers of columns, and None for each constant."""
    return tuple(
        node.name if isinstance(node, _Function) else node if isinstance(node, int) else None
        for node in program
    )
