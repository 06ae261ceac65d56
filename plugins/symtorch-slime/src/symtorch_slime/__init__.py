"""SLIME: what a model computes near one point, as an equation (SymTorch paper, 3.2)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from symtorch_slime.capture import SlimeCapture
    from symtorch_slime.explanation import Explanation, explain
    from symtorch_slime.neighbours import Neighbourhood, neighbourhood
    from symtorch_slime.repetition import Run, Stability, stability

__all__ = [
    "Explanation",
    "Neighbourhood",
    "Run",
    "SlimeCapture",
    "Stability",
    "explain",
    "neighbourhood",
    "stability",
]

# Listing plugins imports this package, so scikit-learn is loaded only when it is used.
_MODULES: Final = {
    "Explanation": "explanation",
    "Neighbourhood": "neighbours",
    "Run": "repetition",
    "SlimeCapture": "capture",
    "Stability": "repetition",
    "explain": "explanation",
    "neighbourhood": "neighbours",
    "stability": "repetition",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
