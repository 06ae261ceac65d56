"""Findings of the study, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from symtorch_core import SymbolicModel
from symtorch_llm.experiment import JUDGED, Variant
from symtorch_llm.judging.layers import LayerChoice, Replaced, Sensitivity
from symtorch_llm.judging.speed import Speed
from symtorch_llm.models.passages import Measured
from symtorch_llm.models.tasks import Task
from symtorch_llm.reading.readings import LayerReading


@final
@dataclass(frozen=True)
class Sample:
    """Text that a variant wrote; without a name, the prompt."""

    name: str
    text: str


@final
@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that was measured."""

    title: str
    task: Task
    k_in: int
    k_out: int
    variants: Sequence[Variant]
    choice: LayerChoice | None
    frontier: Sequence[Replaced]
    sensitivity: Sequence[Sensitivity]
    speeds: Mapping[str, Speed]
    bytes_before: int
    bytes_after: int
    blocks: Mapping[str, SymbolicModel]
    readings: Mapping[str, LayerReading]
    samples: Sequence[Sample]
    setup: str

    def find(self, name: str) -> list[Variant]:
        """Return the variants of a name, one for each seed."""
        return [variant for variant in self.variants if variant.name == name]

    @property
    def names(self) -> list[str]:
        """Names of the variants, in order."""
        return list(dict.fromkeys(variant.name for variant in self.variants))

    @property
    def score_name(self) -> str:
        """Name of the score."""
        return self.task.score_name

    @property
    def baseline(self) -> float:
        """Score of the original model."""
        return self.find("baseline")[0].raw

    @property
    def texts(self) -> list[str]:
        """Names of the texts that were judged on."""
        return list(self.find("baseline")[0].fitted)

    def compute_rise(self, scores: Mapping[str, Measured], text: str = JUDGED) -> float:
        """Return how much worse scores are than the original model's on a text; in nats, for perplexities."""
        level = self.task.compute_level
        return level(scores[text].score) - level(self.find("baseline")[0].fitted[text].score)

    @property
    def zero(self) -> float:
        """Score with MLPs that return zeros."""
        return self.find("MLP zero")[0].raw

    def compute_won_back(self, score: float) -> float:
        """Return the share of the way from zero to the baseline."""
        return self.task.compute_won_back(score, self.zero, self.baseline)
