"""The errors that the framework raises.

Each class derives from :class:`SymTorchError`, so ``except st.SymTorchError`` catches them all, and from the
built-in exception that a Python user would expect (``LookupError`` for an unknown name, ``ValueError`` for bad data).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SymTorchError(Exception):
    """Base class of the framework's errors."""


class UnknownComponentError(SymTorchError, LookupError):
    """No plugin offers a component with this name."""


class DuplicateComponentError(SymTorchError, LookupError):
    """Two distributions offer a component of the same kind and name."""


class MissingDependencyError(SymTorchError, ImportError):
    """A component is known, but something it needs cannot be imported."""


class CaptureError(SymTorchError, ValueError):
    """The data, the block or its calls do not give usable activations."""


class ExpressionError(SymTorchError, ValueError):
    """A text or a sympy object is not an expression that the framework can represent."""


class SearchError(SymTorchError, ValueError):
    """An option of a search is invalid, or its data or its backend cannot honour it."""


class ArgumentError(SearchError, TypeError):
    """A function or component is given an argument that it does not have, or lacks one that it needs."""


class BackendError(SymTorchError, RuntimeError):
    """A backend stopped before the end: it crashed, was killed, or exceeded its time limit."""


class SelectionError(SymTorchError, LookupError):
    """A selection rule or a complexity does not choose any equation of the front."""


class SwitchError(SymTorchError, RuntimeError):
    """A block cannot be switched to or from its equations; the model is unchanged."""


class FileFormatError(SymTorchError, ValueError):
    """A file or a state_dict does not match its schema."""


def find_close(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are close to an unknown one, the closest first.

    Args:
        name: what was given.
        known: what there is.
        most: how many to return at most.
        cutoff: similarity from 0 to 1 that a name must have.
    """
    small = {entry.lower(): entry for entry in reversed(list(known))}
    return [small[entry] for entry in difflib.get_close_matches(name.lower(), small, n=most, cutoff=cutoff)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the closest known name, or nothing.

    >>> did_you_mean("neighbors", ["neighbours", "samples"])
    " Did you mean 'neighbours'?"
    """
    close = find_close(name, known)
    return f" Did you mean {close[0]!r}?" if close else ""
