"""SLIME: what a model computes near one point, as an equation (SymTorch paper, 3.2)."""

from symtorch_slime.capture import SlimeCapture
from symtorch_slime.explanation import Explanation, explain
from symtorch_slime.neighbourhood import Neighbourhood, neighbourhood
from symtorch_slime.stability import Run, Stability, stability

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
