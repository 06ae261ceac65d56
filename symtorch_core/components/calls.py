"""Calls that do not fit a function's arguments, explained before the function runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from typing import Any, ParamSpec, TypeVar

from symtorch_core.components.words import get_meanings, suggest
from symtorch_core.errors import ArgumentError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_C = TypeVar("_C", bound=type)


def explain_calls(
    also: Iterable[str] | None = None, *, extra: str = ""
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator: a call with wrong arguments raises an error that names the right ones.

    Signature and documentation stay those of the function.

    Args:
        also: the names that a function with ``**options`` takes besides; None if it checks them itself.
        extra: what to say about too many arguments by position.

    >>> @explain_calls()
    ... def sample(max_rows: int) -> int:
    ...     return max_rows
    >>> sample(max_row=3)
    Traceback (most recent call last):
    ...
    symtorch_core.errors.ArgumentError: sample has no argument 'max_row'. Did you mean 'max_rows'? It takes: max_rows
    """
    others = None if also is None else tuple(also)

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            check_call(function, _name(function, args), args, kwargs, others, extra)
            return function(*args, **kwargs)

        return call

    return decorate


def explain_construction(kind: _C) -> _C:
    """Return a class, whose construction with wrong arguments raises an error that names the right ones."""
    kind.__init__ = explain_calls()(kind.__init__)  # type: ignore[misc]  # of this class
    return kind


def check_call(
    function: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    also: Sequence[str] | None = None,
    extra: str = "",
) -> None:
    """Refuse arguments that a function does not take.

    Args:
        function: what is called, with ``self`` among ``args`` for a method.
        name: its name in messages.
        args, kwargs: of the call.
        also, extra: as for :func:`explain_calls`.

    Raises:
        ArgumentError: an argument is unknown, missing or given twice, or there are too many.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters
    takes_any = any(entry.kind is Parameter.VAR_KEYWORD for entry in parameters.values())
    known = [entry.name for entry in parameters.values() if _is_named(entry)] + list(also or ())
    if not takes_any or also is not None:
        for given in kwargs:
            if given not in known:
                hint = suggest(given, known)
                raise ArgumentError(
                    f"{name} has no argument {given!r}.{hint} It takes: {', '.join(known) or 'none'}"
                )
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ArgumentError(_explain(name, str(error), known, parameters, kwargs, extra)) from None


def _name(function: Callable[..., Any], args: Sequence[Any]) -> str:
    """Return the name of a function, or of a method with the class that the user knows."""
    if "." not in function.__qualname__ or "<locals>" in function.__qualname__ or not args:
        return function.__name__
    owner = args[0] if isinstance(args[0], type) else type(args[0])
    return owner.__name__ if function.__name__ == "__init__" else f"{owner.__name__}.{function.__name__}"


def _is_named(entry: Parameter) -> bool:
    return entry.name not in ("self", "cls") and entry.kind in (
        Parameter.POSITIONAL_OR_KEYWORD,
        Parameter.KEYWORD_ONLY,
    )


def _explain(
    name: str,
    problem: str,
    known: Sequence[str],
    parameters: Mapping[str, Parameter],
    kwargs: Mapping[str, Any],
    extra: str,
) -> str:
    by_position = [
        entry.name
        for entry in parameters.values()
        if _is_named(entry) and entry.kind is not Parameter.KEYWORD_ONLY
    ]
    if problem.startswith("too many positional"):
        rest = [argument for argument in known if argument not in by_position]
        count = f"{len(by_position)} argument{'s' * (len(by_position) != 1)}"
        message = f"{name} takes {count} by position: {', '.join(by_position)}."
        message += f" Give others by name: {', '.join(rest)}." if rest else ""
        return f"{message} {extra}".strip()
    if problem.startswith("missing"):
        needed = [entry for entry in by_position if parameters[entry].default is Parameter.empty]
        needed += [
            entry.name
            for entry in parameters.values()
            if entry.kind is Parameter.KEYWORD_ONLY and entry.default is Parameter.empty
        ]
        hints = "".join(
            f" You gave {given!r}.{suggest(given, needed if set(get_meanings(given)) & set(needed) else known)}"
            for given in kwargs
            if given not in parameters
        )
        return f"{name}: {problem}. It needs: {', '.join(needed)}.{hints}"
    return f"{name}: {problem}"
