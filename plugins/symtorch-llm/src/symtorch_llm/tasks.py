"""What a transformer is for, which says how to judge it with other modules in it, and what to tune these towards."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from symtorch_llm.models import device_of
from symtorch_llm.text import Batch

_LARGEST_EXPONENT = 700.0


@final
@dataclass(frozen=True)
class HeldOut:
    """Text to judge on, and what a score compares with.

    Attributes:
        batches: of tokens.
        originals: outputs of the model as it was, one for each batch; none where a score needs none.
    """

    batches: tuple[Batch, ...]
    originals: tuple[Tensor, ...] = ()


class Task(ABC):
    """A kind of output, a distance of two outputs, and a score of a model."""

    name: ClassVar[str]
    score_name: ClassVar[str]
    way: ClassVar[str]
    """Of what :meth:`won_back` tells a share, in words."""

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What counts of a model's outputs, a row for each token or text, shape (rows, d)."""

    @abstractmethod
    def distance(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """Mean distance of rows from those that are wanted, a number."""

    @abstractmethod
    def held_out(self, model: nn.Module, batches: Sequence[Batch]) -> HeldOut:
        """Batches to judge on, with what the model as it is now gives on them, where :meth:`score` needs it."""

    @abstractmethod
    def score(self, model: nn.Module, data: HeldOut) -> float:
        """How well a model does; the lower the better."""

    @abstractmethod
    def level(self, score: float) -> float:
        """A score where differences can be compared with one another."""

    def won_back(self, score: float, zero: float, baseline: float) -> float:
        """The share of the way from the score of MLPs that give nothing to the baseline; NaN where there is none.

        >>> round(LanguageModelling().won_back(10.0, 100.0, 1.0), 3)
        0.5
        """
        way = self.level(zero) - self.level(baseline)
        if not (math.isfinite(score) and math.isfinite(way) and way > 0):
            return math.nan
        return (self.level(zero) - self.level(score)) / way


@final
@dataclass(frozen=True)
class LanguageModelling(Task):
    """Next tokens: perplexity, and the divergence of the predicted distributions."""

    name: ClassVar[str] = "causal"
    score_name: ClassVar[str] = "perplexity"
    way: ClassVar[str] = "of log(perplexity)"

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logarithms of the next token's probabilities after every real token, shape (tokens, vocabulary)."""
        logits = _called(model, batch, use_cache=False).logits
        rows: Tensor = logits[batch["attention_mask"].to(logits.device).bool()]
        return rows.float().log_softmax(-1)

    def distance(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """KL(wanted || outputs), nats a token."""
        return functional.kl_div(outputs, wanted, log_target=True, reduction="batchmean")

    def held_out(self, model: nn.Module, batches: Sequence[Batch]) -> HeldOut:
        """The batches: text itself says what comes next."""
        return HeldOut(tuple(batches))

    def score(self, model: nn.Module, data: HeldOut) -> float:
        """Perplexity: exp of the mean over all predicted tokens (SymTorch paper, equation 4).

        Every token but a sequence's first is predicted once. Infinite where it overflows.
        """
        total, count = 0.0, 0
        with torch.inference_mode():
            for batch in data.batches:
                logits = _called(model, batch, use_cache=False).logits[:, :-1].float()
                ids, mask = (batch[key].to(logits.device)[:, 1:] for key in ("input_ids", "attention_mask"))
                losses = functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
                total += float(losses[mask.flatten().bool()].double().sum())
                count += int(mask.sum())
        mean = total / count
        return math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf

    def level(self, score: float) -> float:
        """The logarithm of the perplexity, which is the mean loss."""
        return math.log(score)


@final
@dataclass(frozen=True)
class Embedding(Task):
    """Embeddings of texts by the mean over tokens: how far they turn from those of the model as it was."""

    name: ClassVar[str] = "encoder"
    score_name: ClassVar[str] = "1 - cosine"
    way: ClassVar[str] = "of 1 - cosine"

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Embeddings of unit length, shape (texts, d)."""
        hidden = _called(model, batch).last_hidden_state.float()
        mask = batch["attention_mask"].to(hidden)[..., None]
        return functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def distance(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """1 minus the mean cosine."""
        return 1 - (outputs * wanted).sum(-1).mean()

    def held_out(self, model: nn.Module, batches: Sequence[Batch]) -> HeldOut:
        """The batches and their embeddings."""
        with torch.no_grad():
            return HeldOut(tuple(batches), tuple(self.outputs(model, batch).cpu() for batch in batches))

    def score(self, model: nn.Module, data: HeldOut) -> float:
        """1 minus the mean cosine with the originals, over all texts."""
        total, count = 0.0, 0
        with torch.inference_mode():
            for batch, wanted in zip(data.batches, data.originals, strict=True):
                given = self.outputs(model, batch)
                total += float(self.distance(given, wanted.to(given))) * len(given)
                count += len(given)
        return total / count

    def level(self, score: float) -> float:
        """The score itself."""
        return score


TASKS: Final[Mapping[str, Task]] = MappingProxyType(
    {task.name: task for task in (LanguageModelling(), Embedding())}
)


def _called(model: nn.Module, batch: Batch, **options: Any) -> Any:
    device = device_of(model)
    return model(**{key: value.to(device) for key, value in batch.items()}, **options)
