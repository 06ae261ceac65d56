"""Checks of arguments: each message says what the value must be and what was given, before any work begins."""

from __future__ import annotations

import math
import numbers
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from symtorch_core.errors import SearchError, did_you_mean

_MOST_SHOWN: Final = 100
_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType)
_LARGEST_SEED: Final = 2**32 - 1
"""The largest seed that the generators of torch, numpy and scikit-learn all take."""

_MOST_LISTED: Final = 30
"""More outputs or equations than this are not all listed in a message."""


def check_whole(name: str, value: Any, least: int = 0, error: type[Exception] = SearchError) -> None:
    """Refuse any value but a whole number of at least ``least``.

    >>> check_whole("epochs", 3, 1)
    >>> check_whole("epochs", 2.5, 1)
    Traceback (most recent call last):
    ...
    symtorch_core.errors.SearchError: epochs must be a whole number, got 2.5
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise error(f"{name} must be a whole number, got {_show(value)}")
    if value < least:
        raise error(f"{name} must be at least {least}, got {_show(value)}")


def check_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    error: type[Exception] = SearchError,
) -> None:
    """Refuse any value but a finite number between two bounds, which are included unless they are open.

    >>> check_number("test_fraction", 1.0, 0, 1, open_high=True)
    Traceback (most recent call last):
    ...
    symtorch_core.errors.SearchError: test_fraction must be at least 0 and less than 1, got 1.0
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise error(f"{name} must be a finite number, got {_show(value)}")
    number = float(value)
    above = low < number if open_low else low <= number
    below = number < high if open_high else number <= high
    if above and below:
        return
    if low == 0 and open_low and high == math.inf:
        raise error(f"{name} must be positive, got {_show(value)}")
    bounds = []
    if low > -math.inf:
        bounds.append(f"{'more than' if open_low else 'at least'} {low:g}")
    if high < math.inf:
        bounds.append(f"{'less than' if open_high else 'at most'} {high:g}")
    raise error(f"{name} must be {' and '.join(bounds)}, got {_show(value)}")


def check_flag(name: str, value: Any, error: type[Exception] = SearchError) -> None:
    """Refuse any value but True and False."""
    if not isinstance(value, bool):
        raise error(f"{name} must be True or False, got {_show(value)}")


def check_choice(
    name: str, value: Any, choices: Collection[str], error: type[Exception] = SearchError
) -> None:
    """Refuse any value but one of these words; the message lists them and the closest match.

    >>> check_choice("method", "trianed", ["trained", "pls"])
    Traceback (most recent call last):
    ...
    symtorch_core.errors.SearchError: unknown method 'trianed'. Did you mean 'trained'? There are: trained, pls
    """
    if not isinstance(value, str) or value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        stop = "." if hint else ";"
        raise error(
            f"unknown {name} {value!r}{stop}{hint} {'There' if hint else 'there'} are: {', '.join(choices)}"
        )


def check_names(name: str, value: Any, error: type[Exception] = SearchError) -> tuple[str, ...]:
    """Return a list of strings, read once; refuse a single string in its place, and other or empty entries."""
    if isinstance(value, str):
        names = re.split(r"[,;]\s*", value)
        raise error(f"{name} takes a list of names, like {names}")
    if isinstance(value, (Mapping, Set)) or not isinstance(value, Iterable):  # a set has no order
        raise error(f"{name} takes a list of names, not a {type(value).__name__}")
    entries = tuple(value)
    for entry in entries:
        if not isinstance(entry, str):
            advice = f": give its name, {entry.__name__!r}" if isinstance(entry, _FUNCTIONS) else ""
            raise error(f"{name} takes a list of names; {_show(entry)} is a {type(entry).__name__}{advice}")
        if not entry.strip():
            raise error(f"{name} takes a list of names; {entry!r} is empty")
        check_encodable(name, entry, error)
    return entries


def check_encodable(name: str, value: str, error: type[Exception] = SearchError) -> None:
    """Refuse a text that no file can hold: it has half of a character, as of a badly read file name."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise error(f"{name}: {value!r} holds half of a character (a surrogate): give another name") from None


def check_distinct(what: str, names: Collection[str], error: type[Exception] = SearchError) -> None:
    """Refuse names that occur twice; ``what`` they are."""
    if len(set(names)) != len(names):
        raise error(f"{what} must differ from each other: {', '.join(names)}")


def check_options(
    name: str, options: Any, example: str, error: type[Exception] = SearchError
) -> dict[str, Any]:
    """Return options by name; none for None. ``example`` is one of the names."""
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise error(f"{name} takes a dictionary of options by name, like {{{example!r}: ...}}")
    return dict(options)


def find_position(
    what: str, value: Any, numbers: Sequence[int], names: Sequence[str], error: type[Exception] = SearchError
) -> int:
    """Return the position of what has this number or name, among those that there are.

    Args:
        what: ``"output"`` or ``"equation"``, for messages.
        value: a number or a name.
        numbers, names: of each that there is.

    >>> find_position("output", "beta", [2, 5], ["alpha", "beta"]), find_position("output", 5, [2, 5], ["a", "b"])
    (1, 1)
    >>> find_position("output", "bta", [2, 5], ["alpha", "beta"])
    Traceback (most recent call last):
    ...
    symtorch_core.errors.SearchError: there is no output 'bta'. Did you mean 'beta'? There are: 2 (alpha), 5 (beta)
    """
    if not isinstance(value, str):
        check_whole(f"{what}: a number", value, 0, error)
        if value in numbers:
            return list(numbers).index(value)
    elif value in names:
        return list(names).index(value)
    hint = did_you_mean(value, names) if isinstance(value, str) else ""
    shown = [f"{number} ({name})" for number, name in zip(numbers, names, strict=True)]
    listed = ", ".join(
        shown if len(shown) <= _MOST_LISTED else [*shown[: _MOST_LISTED - 1], "...", shown[-1]]
    )
    raise error(
        f"there is no {what} {value!r}{'.' if hint else ';'}{hint} {'T' if hint else 't'}here are: {listed}"
    )


def find_columns(
    name: str, value: Any, numbers: Sequence[int], names: Sequence[str], error: type[Exception] = SearchError
) -> tuple[int, ...]:
    """Return the numbers of output columns, from a list of their numbers or names.

    Args:
        name: name of the argument, for messages.
        value: the list.
        numbers, names: of each column that there is.

    >>> find_columns("outputs", ["beta", 2], [2, 5], ["alpha", "beta"])
    (5, 2)
    """
    entries = read_columns(name, value, error)
    try:
        return tuple(numbers[find_position("output", entry, numbers, names, error)] for entry in entries)
    except error as problem:
        raise error(f"{name}: {problem}") from None


def read_columns(name: str, value: Any, error: type[Exception] = SearchError) -> tuple[int | str, ...]:
    """Return numbers and names of columns, read once; refuse a mask in their place. Perhaps there are none such.

    >>> read_columns("outputs", np.array([2, 0]))
    (2, 0)
    >>> read_columns("outputs", [False, True])
    Traceback (most recent call last):
    ...
    symtorch_core.errors.SearchError: outputs takes the numbers of columns, like [0, 2], not a mask of True and False
    """
    if isinstance(value, str):
        raise error(f"{name} takes a list of output columns or their names, like [{value!r}]")
    if isinstance(value, (Mapping, Set)) or not isinstance(value, (Iterable, Tensor)):
        raise error(f"{name} takes a list of output columns, like [0, 2], not {_show(value)}")
    listed = value.tolist() if isinstance(value, (Tensor, np.ndarray)) else value
    columns = tuple(listed) if isinstance(listed, Iterable) else (listed,)
    for column in columns:
        if isinstance(column, (bool, np.bool_)):
            raise error(f"{name} takes the numbers of columns, like [0, 2], not a mask of True and False")
        if not isinstance(column, str):
            check_whole(f"each of {name}", column, 0, error)
    return tuple(column if isinstance(column, str) else int(column) for column in columns)


def check_seed(value: Any, error: type[Exception] = SearchError) -> None:
    """Refuse any seed but a whole number that every random generator takes."""
    check_whole("seed", value, 0, error)
    if value > _LARGEST_SEED:
        raise error(f"seed must be at most {_LARGEST_SEED}, got {_show(value)}")


def check_function(
    name: str, value: Any, what: str, error: type[Exception] = SearchError, *, optional: bool = False
) -> None:
    """Refuse a value that cannot be called; ``what`` says what the function takes and gives."""
    if not (callable(value) or (optional and value is None)):
        raise error(f"{name} must be {what}, not {_show(value)}")


def _show(value: Any) -> str:
    """Return a value as messages show it: as code if that is short, and by its type otherwise."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN and "\n" not in text else f"a {type(value).__name__}"


def check_path(name: str, value: Any, error: type[Exception] = SearchError, what: str = "file") -> Path:
    """Return the path of a file, or of ``what`` it is; refuse what is no path."""
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise error(f"{name} must be the path of a {what}, got {_show(value)}")
    return Path(value)


def check_callbacks(callbacks: Any, error: type[Exception] = SearchError) -> tuple[Callable[..., Any], ...]:
    """Return a list of functions of one event, read once; refuse any other value."""
    if callable(callbacks) or isinstance(callbacks, (str, Mapping)) or not isinstance(callbacks, Iterable):
        raise error(f"callbacks takes a list of functions, like [print], not {_show(callbacks)}")
    functions = tuple(callbacks)
    for function in functions:
        if not callable(function):
            raise error(f"callbacks takes a list of functions; {function!r} is not callable")
    return functions
