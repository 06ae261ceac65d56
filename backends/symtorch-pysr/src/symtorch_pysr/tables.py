"""PySR's halls of fame on disk, and their equations as core expressions.

SymbolicRegression.jl writes the front of every output after each of its steps, twice in a row, so that a search that is
killed leaves one whole copy.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from symtorch_core import ExpressionError, Unrunnable
from symtorch_core.expressions import Definition, Expression, Variable, as_double, parse, substitute


@final
@dataclass(frozen=True)
class Row:
    """One equation of a hall of fame, as PySR writes and counts it."""

    complexity: int
    loss: float
    equation: str


def table_name(output: int, outputs: int) -> str:
    """The file of one output, of so many."""
    return "hall_of_fame.csv" if outputs == 1 else f"hall_of_fame_output{output + 1}.csv"


def read_table(path: Path) -> list[Row]:
    """The rows of a hall of fame, from the copy that is whole; none where there is no file.

    Lines that a crash cut short are left out.
    """
    copies = (_rows(copy) for copy in (path, path.with_name(path.name + ".bak")))
    return max(copies, key=len)


def _rows(path: Path) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines[1:]:
        fields = next(csv.reader([line]), [])
        if len(fields) != 3 or not line.rstrip().endswith('"'):
            continue
        try:
            rows.append(Row(int(float(fields[0])), float(as_double(fields[1])), fields[2]))
        except ValueError:
            continue
    return rows


def variable(column: int) -> str:
    """What an input is called in Julia, where a name of the user's could be a function."""
    return f"x{column}"


def translated(
    rows: Iterable[Row], names: Sequence[str], definitions: Sequence[Definition]
) -> tuple[list[Expression], list[Unrunnable]]:
    """Equations in the user's names, and those that the core cannot compute.

    >>> found, _ = translated([Row(5, 0.0, "sin(x0) * 2.0f0")], ["angle"], [])
    >>> print(found[0])
    sin(angle)*2.0
    """
    ours = {variable(column): Variable(name) for column, name in enumerate(names)}
    runnable, unrunnable = [], []
    for row in rows:
        try:
            runnable.append(substitute(parse(as_double(row.equation), ours, definitions), ours))
        except ExpressionError as error:
            text = in_names(row.equation, names)
            unrunnable.append(Unrunnable(text, row.complexity, row.loss, str(error)))
    return runnable, unrunnable


def in_names(equation: str, names: Sequence[str]) -> str:
    """An equation's text with the user's names for the variables."""

    def named(found: re.Match[str]) -> str:
        column = int(found.group(1))
        return names[column] if column < len(names) else found.group(0)

    return re.sub(r"\bx(\d+)\b", named, equation)
