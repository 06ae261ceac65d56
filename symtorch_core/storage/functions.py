"""Python functions in saved data: a file holds their names only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, final

import msgspec

from symtorch_core.errors import FileFormatError
from symtorch_core.storage.documents import Label


@final
class FunctionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file holds of a function: its name."""

    function: Label


@final
@dataclass(frozen=True)
class LostFunction:
    """Placeholder for a Python function that was not saved with the rest: it can be shown, not called.

    Attributes:
        role: what the function was, for messages: ``"transform 'r'"``.
        name: its name in the program that saved it.
    """

    role: str
    name: str

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise a :class:`FileFormatError` that says what is missing."""
        raise FileFormatError(
            f"{self.role} was the Python function {self.name!r}, which no file holds: give it to "
            "Distillation.load, load the state into a model that has it, or distill again"
        )


def name_function(function: Callable[..., Any]) -> str:
    """Return the name of a function, or the type of another callable."""
    return str(getattr(function, "__name__", type(function).__name__))


def encode_function(function: Callable[..., Any]) -> dict[str, str]:
    """Return what JSON can hold of a function: its name."""
    return {"function": name_function(function)}


def decode_function(record: str | FunctionRecord, role: str) -> str | LostFunction:
    """Return the placeholder of a function; a text as it is."""
    return record if isinstance(record, str) else LostFunction(role, record.function)
