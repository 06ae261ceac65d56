"""Bars: what the progress of a run is drawn with."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from symtorch_core.components.escaping import shorten, show_hidden

_SHOWN = 70
_NUMBER = re.compile(r"(?<![\w.])\d+\.\d+([eE][+-]?\d+)?(?![\w.])")


class Bars(ABC):
    """Bars, each under a label of its own; the labels of outputs are their numbers."""

    @abstractmethod
    def add(self, label: str | int, total: int | None) -> None:
        """Add a bar of this many steps, None if their number is unknown."""

    @abstractmethod
    def advance(self, label: str | int, steps: int) -> None:
        """Count more steps of a bar."""

    @abstractmethod
    def complete(self, label: str | int, steps: int) -> None:
        """Set the steps that are done."""

    @abstractmethod
    def tell(self, label: str | int, note: str) -> None:
        """Show a note behind a bar."""

    @abstractmethod
    def end(self, label: str | int) -> None:
        """End a bar."""


def to_line(text: str) -> str:
    """Return text for a line of its own: short, and with its hidden characters written out."""
    return show_hidden(shorten(text, _SHOWN))


def round_numbers(text: str) -> str:
    """Return an equation with four digits of each number.

    >>> round_numbers("2.0000001*x1 + 1.23456e-07")
    '2*x1 + 1.235e-07'
    """
    return _NUMBER.sub(lambda found: f"{float(found.group()):.4g}", text)


def to_label(label: str | int) -> str:
    """Return what is written before a bar."""
    return f"  output {label}" if isinstance(label, int) else to_line(label)
