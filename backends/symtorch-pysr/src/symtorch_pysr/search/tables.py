"""PySR's halls of fame on disk, and their equations as expressions of the core.

SymbolicRegression.jl writes the front of every output after each of its steps, to one file and then to another, so that
a killed search leaves one whole copy.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from symtorch_core import ExpressionError
from symtorch_core.expressions import Definition, Expression, Variable, as_double, parse, substitute
from symtorch_core.search import Unrunnable
from symtorch_pysr.arguments.expressions import name_variable


@final
@dataclass(frozen=True)
class Row:
    """One equation of a hall of fame, with PySR's complexity and loss."""

    complexity: int
    loss: float
    equation: str


def name_table(output: int, outputs: int) -> str:
    """Return the name of the table of one of several outputs."""
    return "hall_of_fame.csv" if outputs == 1 else f"hall_of_fame_output{output + 1}.csv"


def read_table(path: Path) -> list[Row]:
    """Return the rows of a hall of fame, from the longer of its two copies; no rows if there is no file.

    Lines that a crash has cut short, or whose figures cannot be, are left out.
    """
    copies = (_read_copy(copy) for copy in (path, path.with_name(path.name + ".bak")))
    return max(copies, key=len)


def _read_copy(path: Path) -> list[Row]:
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
            complexity, loss = float(fields[0]), float(as_double(fields[1]))
        except ValueError:
            continue
        if math.isfinite(loss) and 1 <= complexity < math.inf:
            rows.append(Row(int(complexity), loss, fields[2]))
    return rows


def translate_rows(
    rows: Iterable[Row], names: Sequence[str], definitions: Sequence[Definition]
) -> tuple[list[Expression], list[Unrunnable]]:
    """Return the equations in the user's names, and those that the core cannot compute.

    Args:
        rows: rows of a table.
        names: the user's names of the inputs.
        definitions: definitions of functions that the core does not have.

    >>> found, _ = translate_rows([Row(5, 0.0, "sin(x0) * 2.0f0")], ["angle"], [])
    >>> print(found[0])
    sin(angle)*2.0
    """
    ours = {name_variable(column): Variable(name) for column, name in enumerate(names)}
    runnable, unrunnable = [], []
    for row in rows:
        try:
            runnable.append(substitute(parse(as_double(row.equation), ours, definitions), ours))
        except ExpressionError as error:
            text = rename_variables(row.equation, names)
            unrunnable.append(Unrunnable(text, row.complexity, row.loss, str(error)))
    return runnable, unrunnable


def rename_variables(equation: str, names: Sequence[str]) -> str:
    """Return the text of an equation with the user's names of the inputs."""

    def rename(found: re.Match[str]) -> str:
        column = int(found.group(1))
        return names[column] if column < len(names) else found.group(0)

    return re.sub(r"\bx(\d+)\b", rename, equation)
