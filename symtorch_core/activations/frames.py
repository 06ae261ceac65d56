"""Data frames of pandas: their columns as numbers and as names, and frames built again from rows.

pandas is optional and slow to import. Whoever has a frame has imported it, so it is looked up and never imported first.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from symtorch_core.components.checks import check_encodable
from symtorch_core.components.escaping import make_variable_names
from symtorch_core.errors import CaptureError, MissingDependencyError
from symtorch_core.expressions import ALIASES, OPERATORS

_READ_AS_OTHERS = frozenset({*OPERATORS, *ALIASES, "pi"})
"""Names that people read as a function or a number."""


@final
@dataclass(frozen=True)
class Column:
    """A column of a data frame.

    Attributes:
        label: its name there.
        dtype: its type, as pandas writes it.
    """

    label: str | int
    dtype: str


def import_pandas() -> Any:
    """Return pandas, for tables that are made here.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError(
            f"tables need pandas ({error}). Try: pip install pandas", name="pandas"
        ) from error
    return pandas


def is_frame(value: Any) -> bool:
    """Whether a value is a data frame of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def is_table(value: Any) -> bool:
    """Whether a value is a data frame of pandas, or a column of one."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series))


def as_frame(table: Any) -> Any:
    """Return a data frame as it is, and a column as a data frame; one without a name has the number 0."""
    return table if is_frame(table) else table.to_frame(0 if table.name is None else table.name)


def read_columns(frame: Any) -> tuple[Column, ...]:
    """Return the columns of a data frame of numbers.

    Raises:
        CaptureError: columns do not hold numbers, or have no name; the message lists them.
    """
    columns = []
    for label in frame.columns.tolist():
        if not isinstance(label, (str, int)) or isinstance(label, bool):
            raise CaptureError(
                f"the column {label!r} has no plain name: give text or whole numbers, like frame.columns = "
                "['_'.join(map(str, c)) for c in frame.columns] for columns in several levels"
            )
        check_encodable("the name of a column", str(label), CaptureError)
        columns.append(label)
    found = tuple(Column(*pair) for pair in zip(columns, map(str, frame.dtypes), strict=True))
    _check_numeric(frame, found)
    return found


def _check_numeric(frame: Any, columns: Sequence[Column]) -> None:
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    wrong = [
        f"{column.label!r} ({column.dtype})"
        for column, dtype in zip(columns, frame.dtypes, strict=True)
        if is_complex_dtype(dtype) or not (is_numeric_dtype(dtype) or is_bool_dtype(dtype))
    ]
    if wrong:
        raise CaptureError(
            f"these columns are not numbers: {', '.join(wrong)}. Leave them out, or write them as numbers: "
            "pandas.to_numeric for numbers kept as text, pandas.get_dummies for categories, "
            "(column - start).dt.total_seconds() for times. If a pipeline does so in its first step, distill what "
            "follows: distill(pipe[1:].predict, pipe[:1].transform(frame))"
        )


def to_numbers(table: Any) -> np.ndarray:
    """Return a data frame of numbers (or a column of one) as an array, with NaN where a value is missing.

    Raises:
        CaptureError: columns do not hold numbers, or have no name; the message lists them.
    """
    if not is_frame(table):
        return to_numbers(as_frame(table))[:, 0]
    read_columns(table)
    columns = [_to_array(table.iloc[:, number]) for number in range(table.shape[1])]
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0))


def _to_array(column: Any) -> np.ndarray:
    if isinstance(column.dtype, np.dtype):
        plain: np.ndarray = column.to_numpy()
        return plain
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def check_complete(table: Any, advice: str) -> None:
    """Refuse a data frame (or a column) with missing or infinite values; the message counts them by column.

    Raises:
        CaptureError: there are some, or columns do not hold numbers. ``advice`` says what to do.
    """
    frame = as_frame(table)
    numbers = to_numbers(frame)
    missing = ~np.isfinite(numbers)
    if missing.any():
        counts = zip(frame.columns, missing.sum(axis=0).tolist(), strict=True)
        listed = ", ".join(f"{count} in {label!r}" for label, count in counts if count)
        raise CaptureError(
            f"{int(missing.any(axis=1).sum())} of {len(numbers)} rows hold NaN or infinite values ({listed}): {advice}"
        )


def slice_rows(data: Any, rows: slice) -> Any:
    """Return some rows of an array, a tensor or a data frame."""
    return data.iloc[rows] if is_frame(data) else data[rows]


def build_frame(rows: np.ndarray, columns: Sequence[Column]) -> Any:
    """Return a data frame with these columns, from rows (n, d).

    Numbers have the type of their column, unless a value is not one of that type: a half is no whole number.
    """
    import pandas  # which the frame came from

    frame = pandas.DataFrame(
        {
            number: _restore_type(pandas.Series(rows[:, number]), column.dtype)
            for number, column in enumerate(columns)
        }
    )
    frame.columns = [column.label for column in columns]
    return frame


def _restore_type(values: Any, dtype: str) -> Any:
    if np.dtype(values.dtype).kind == "f" and dtype.lower().startswith(("float", "double")):
        return values.astype(dtype)
    whole = values.isin([0, 1]) if dtype.startswith("bool") else values == values.round()
    return values.astype(dtype) if whole.all() else values


def align_columns(table: Any, columns: Sequence[Column]) -> Any:
    """Return the columns of a data frame in the order of others, by their names; all of them if there are no others.

    Raises:
        CaptureError: a column is missing, or there are several of its name.
    """
    labels = [column.label for column in columns]
    given = table.columns.tolist()
    if not labels or given == labels:
        return table
    counts = Counter(given)
    for label in labels:
        if counts[label] != 1:
            found = "has no column" if not counts[label] else "has several columns"
            raise CaptureError(f"the data frame {found} {label!r}; it has: {', '.join(map(repr, given))}")
    return table[labels]


def name_variables(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return a name of a variable for each column, as close to its own as can be.

    >>> name_variables([Column("mass (kg)", "float64"), Column("exp", "float64"), Column(0, "float64")])
    ('mass_kg', 'exp_', 'x0')
    """
    return make_variable_names([str(column.label) for column in columns], _READ_AS_OTHERS)


def list_renamed(variables: Sequence[str], columns: Sequence[Column]) -> dict[str, str]:
    """Return the name of the column that each variable stands for, where it is another one.

    >>> list_renamed(["mass_kg", "v", "x2"], [Column("mass (kg)", "float64"), Column("v", "int64"), Column(2, "bool")])
    {'mass_kg': 'mass (kg)'}
    """
    pairs = dict(zip(variables, columns, strict=True)) if columns else {}
    return {
        name: column.label
        for name, column in pairs.items()
        if isinstance(column.label, str) and column.label != name
    }


def name_outputs(table: Any) -> tuple[str, ...]:
    """Return the names of the columns of a data frame, or of a column; none if one has no name of its own."""
    names = table.columns.tolist() if is_frame(table) else [table.name]
    if not all(isinstance(name, str) and name.strip() for name in names):
        return ()
    return tuple(names)
