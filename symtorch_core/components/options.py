"""Declared options, common to all components that a user chooses by name."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

from symtorch_core.components.calls import check_call
from symtorch_core.components.checks import check_choice, check_flag, check_number, check_whole
from symtorch_core.components.words import suggest
from symtorch_core.errors import ArgumentError, SearchError


@final
@dataclass(frozen=True)
class Finding:
    """One line of a check-up: whether an item is in order, and a description."""

    ok: bool
    text: str


class Configurable(ABC):
    """Component whose options are declared fields.

    A concrete subclass is a frozen dataclass: its fields are its options, with their defaults.
    """

    name: ClassVar[str]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        check_call(cls.__init__, cls.__name__, (None, *args), options)
        return super().__new__(cls)

    @classmethod
    def checkup(cls) -> tuple[Finding, ...]:
        """Return the lines of ``symtorch doctor NAME`` for this component; quick, and installs nothing.

        A component that needs more than Python packages reports here whether they are installed.
        """
        return ()

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(entry.name for entry in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else ()

    @classmethod
    def passed_options(cls) -> tuple[str, ...]:
        """Return the names of options that are passed on to a library, beside the component's own."""
        return ()

    @classmethod
    def with_options(cls, options: Mapping[str, Any]) -> Self:
        """Build an instance with these options.

        Raises:
            ArgumentError: an option is unknown; the message lists the known options and what is meant.
            SearchError: an option is invalid.
        """
        known = cls.option_names()
        for option in options:
            if option not in known:
                hint = suggest(option, known)
                raise ArgumentError(
                    f"{cls.name!r} has no option {option!r}.{hint} It has: {', '.join(known) or 'none'}"
                )
        return cls(**options)

    def at_least(self, least: float, *options: str) -> None:
        """Refuse, with a :class:`SearchError`, options that are not numbers of at least ``least``.

        An option declared as ``int`` must be a whole number; one whose default is None may be None.
        """
        for option in options:
            value, name = getattr(self, option), f"{self.name}'s {option}"
            default, annotation = self._declare(option)
            if value is None and default is None:
                continue
            if {"int", "float"} & set(re.findall(r"\w+", annotation)) == {"int"}:
                check_whole(name, value, int(least))
            else:
                check_number(name, value, least)

    def jobs(self, *options: str) -> None:
        """Refuse, with a :class:`SearchError`, options that are not numbers of jobs as joblib counts them."""
        for option in options:
            value = getattr(self, option)
            if type(value) is not int or value == 0:
                raise SearchError(
                    f"{self.name}'s {option} must be a number of jobs, or -1 for one per core, got {value!r}"
                )

    def more_than(self, low: float, *options: str) -> None:
        """Refuse, with a :class:`SearchError`, options that are not numbers of more than ``low``."""
        for option in options:
            check_number(f"{self.name}'s {option}", getattr(self, option), low, open_low=True)

    def between(self, low: float, high: float, *options: str) -> None:
        """Refuse, with a :class:`SearchError`, options that are not numbers from ``low`` to ``high``."""
        for option in options:
            check_number(f"{self.name}'s {option}", getattr(self, option), low, high)

    def flags(self, *options: str) -> None:
        """Refuse, with a :class:`SearchError`, options that are not True or False."""
        for option in options:
            check_flag(f"{self.name}'s {option}", getattr(self, option))

    def one_of(self, choices: Collection[str], *options: str) -> None:
        """Refuse, with a :class:`SearchError`, options that are not one of these words."""
        for option in options:
            check_choice(f"{option} of {self.name}", getattr(self, option), choices)

    @classmethod
    def _declare(cls, option: str) -> tuple[Any, str]:
        """Return the default of an option and its annotation as text."""
        declared = next(entry for entry in dataclasses.fields(cls) if entry.name == option)  # type: ignore[arg-type]
        kind = declared.type
        return declared.default, kind if isinstance(kind, str) else str(getattr(kind, "__name__", kind))
