"""Checks of arguments: each message says what the value must be and what was given, before any work begins."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

from symtorch_core.errors import SearchError, did_you_mean


def check_whole(name: str, value: Any, least: int = 0, error: type[Exception] = SearchError) -> None:
    """Refuse any value but a whole number of at least ``least``.

    >>> check_whole("epochs", 3, 1)
    >>> check_whole("epochs", 2.5, 1)
    Traceback (most recent call last):
    ...
    symtorch_core.errors.SearchError: epochs must be a whole number, got 2.5
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise error(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise error(f"{name} must be at least {least}, got {value!r}")


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
        raise error(f"{name} must be a finite number, got {value!r}")
    number = float(value)
    above = low < number if open_low else low <= number
    below = number < high if open_high else number <= high
    if above and below:
        return
    if low == 0 and open_low and high == math.inf:
        raise error(f"{name} must be positive, got {value!r}")
    bounds = []
    if low > -math.inf:
        bounds.append(f"{'more than' if open_low else 'at least'} {low:g}")
    if high < math.inf:
        bounds.append(f"{'less than' if open_high else 'at most'} {high:g}")
    raise error(f"{name} must be {' and '.join(bounds)}, got {value!r}")


def check_flag(name: str, value: Any, error: type[Exception] = SearchError) -> None:
    """Refuse any value but True and False."""
    if not isinstance(value, bool):
        raise error(f"{name} must be True or False, got {value!r}")


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
    """Return a list of strings, read once; refuse a single string in its place, and other entries."""
    if isinstance(value, str):
        raise error(f"{name} takes a list of names, like [{value!r}]")
    try:
        entries = tuple(value)
    except TypeError:
        raise error(f"{name} takes a list of names, not a {type(value).__name__}") from None
    for entry in entries:
        if not isinstance(entry, str):
            raise error(f"{name} takes a list of names; {entry!r} is a {type(entry).__name__}")
    return entries
