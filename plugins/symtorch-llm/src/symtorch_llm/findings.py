"""All that the study measured, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from symtorch_core import SymbolicModel
from symtorch_llm.layers import Choice, Sensitivity
from symtorch_llm.measure import Speed
from symtorch_llm.solving import Variant
from symtorch_llm.tasks import Task


@final
@dataclass(frozen=True)
class Sample:
    """Text that a variant wrote; without a name, what it was to go on with."""

    name: str
    text: str


@final
@dataclass(frozen=True, eq=False)
class Findings:
    """All that was measured."""

    title: str
    task: Task
    k_in: int
    k_out: int
    variants: Sequence[Variant]
    choice: Choice | None
    sensitivity: Sequence[Sensitivity]
    speeds: Mapping[str, Speed]
    bytes_before: int
    bytes_after: int
    blocks: Mapping[str, SymbolicModel]
    samples: Sequence[Sample]
    setup: str

    def named(self, name: str) -> list[Variant]:
        """A variant, with every seed."""
        return [variant for variant in self.variants if variant.name == name]

    @property
    def names(self) -> list[str]:
        """Of the variants, in order."""
        return list(dict.fromkeys(variant.name for variant in self.variants))

    @property
    def score_name(self) -> str:
        """What the score is."""
        return self.task.score_name

    @property
    def baseline(self) -> float:
        """The score of the model as it was."""
        return self.named("baseline")[0].raw

    @property
    def zero(self) -> float:
        """The score with MLPs that give nothing."""
        return self.named("MLP zero")[0].raw

    def won_back(self, score: float) -> float:
        """The share of the way from zero to the baseline."""
        return self.task.won_back(score, self.zero, self.baseline)
