"""What was read of the equations of a layer, as plain data, and how much is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from symtorch_core import SearchError
from symtorch_llm.reading.contexts import Excitation
from symtorch_llm.reading.lens import Words
from symtorch_llm.reading.steering import Effect
from symtorch_llm.reading.terms import Term


@final
@dataclass(frozen=True)
class Detail:
    """How much is read.

    Attributes:
        examples: contexts of each variable, equation and term, on each side.
        before, after: tokens of a context around the one that is read.
        words: words of each direction, on each side.
        terms: largest terms of each equation.
        steered: terms of each layer that are changed to check them, those that write most.
        change: a steered term is scaled by 1 + change.
        rows: tokens at which a steered term is looked at.
        tokens: most tokens of the text on which terms are steered.
        seed: of the random directions.
    """

    examples: int = 6
    before: int = 6
    after: int = 2
    words: int = 8
    terms: int = 4
    steered: int = 4
    change: float = 1.0
    rows: int = 32
    tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("examples", "words", "terms", "rows", "tokens"):
            if getattr(self, name) < 1:
                raise SearchError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("before", "after", "steered"):
            if getattr(self, name) < 0:
                raise SearchError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not math.isfinite(self.change) or self.change == 0:
            raise SearchError(f"change must be a finite number but 0, got {self.change}")


@final
@dataclass(frozen=True)
class VariableReading:
    """One variable z: what excites it, the words that its direction reads, and those that the linear part writes."""

    excitation: Excitation
    reads: Words
    writes: Words


@final
@dataclass(frozen=True)
class TermReading:
    """One term, its share in the variance of its equation, and what excites it."""

    term: Term
    share: float
    excitation: Excitation


@final
@dataclass(frozen=True)
class EquationReading:
    """One equation: what excites it, the words that it writes, and its largest terms.

    Attributes:
        excitation, writes: of the equation.
        terms: the largest ones by their share; constants have none.
        count: number of all its terms.
        size: how much it moves what the block adds to the model: its spread times the length of its direction; NaN
            where it has no direction.
    """

    excitation: Excitation
    writes: Words
    terms: tuple[TermReading, ...]
    count: int
    size: float


@final
@dataclass(frozen=True)
class SteeringReading:
    """One term that was changed, the words that its equation names, and what the model's words did."""

    equation: str
    term: Term
    named: Words
    effect: Effect


@final
@dataclass(frozen=True)
class LayerReading:
    """What the equations of one layer are about.

    Attributes:
        path: of the block.
        layer: its number.
        variables, equations, steering: readings.
        tokens: how many were read.
        left_out: how many were left out, since the equations were not finite there.
        why_no_words: why there are no words; empty if there are.
    """

    path: str
    layer: int
    variables: tuple[VariableReading, ...]
    equations: tuple[EquationReading, ...]
    steering: tuple[SteeringReading, ...]
    tokens: int
    left_out: int
    why_no_words: str
