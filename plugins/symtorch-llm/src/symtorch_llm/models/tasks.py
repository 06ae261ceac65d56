"""Tasks: what a transformer is for decides how it is judged, and what other modules in it are tuned towards."""

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

from symtorch_llm.models.transformer import get_device
from symtorch_llm.text import Batch

_LARGEST_EXPONENT = 700.0


@final
@dataclass(frozen=True)
class HeldOut:
    """Text to judge on, and the outputs that a score compares with.

    Attributes:
        batches: of tokens.
        originals: outputs of the original model, one for each batch; empty where a score needs none.
    """

    batches: tuple[Batch, ...]
    originals: tuple[Tensor, ...] = ()


class Task(ABC):
    """A kind of output, a distance of two outputs, and a score of a model."""

    name: ClassVar[str]
    score_name: ClassVar[str]
    way: ClassVar[str]
    """What :meth:`compute_won_back` is a share of, in words."""

    @abstractmethod
    def compute_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the outputs by which a model is judged, a row for each token or text, shape (rows, d)."""

    @abstractmethod
    def compute_distance(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean distance of rows from those that are wanted, a tensor of one number."""

    @abstractmethod
    def prepare_held_out(self, model: nn.Module, batches: Sequence[Batch]) -> HeldOut:
        """Return batches to judge on, with the outputs of the model as it is now, where :meth:`score` needs them."""

    @abstractmethod
    def score(self, model: nn.Module, data: HeldOut) -> float:
        """Score a model; lower is better."""

    @abstractmethod
    def compute_level(self, score: float) -> float:
        """Return a score on a scale on which differences can be compared."""

    def compute_won_back(self, score: float, zero: float, baseline: float) -> float:
        """Return the share of the way from the score of zeroed MLPs to the baseline; NaN where there is none.

        >>> round(LanguageModelling().compute_won_back(10.0, 100.0, 1.0), 3)
        0.5
        """
        way = self.compute_level(zero) - self.compute_level(baseline)
        if not (math.isfinite(score) and math.isfinite(way) and way > 0):
            return math.nan
        return (self.compute_level(zero) - self.compute_level(score)) / way


@final
@dataclass(frozen=True)
class LanguageModelling(Task):
    """Next tokens: perplexity, and the divergence of the predicted distributions."""

    name: ClassVar[str] = "causal"
    score_name: ClassVar[str] = "perplexity"
    way: ClassVar[str] = "of log(perplexity)"

    def compute_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the log probabilities of the next token after every real token, shape (tokens, vocabulary)."""
        logits = _run_model(model, batch, use_cache=False).logits
        rows: Tensor = logits[batch["attention_mask"].to(logits.device).bool()]
        return rows.float().log_softmax(-1)

    def compute_distance(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """Return KL(wanted || outputs), in nats per token."""
        return functional.kl_div(outputs, wanted, log_target=True, reduction="batchmean")

    def prepare_held_out(self, model: nn.Module, batches: Sequence[Batch]) -> HeldOut:
        """Return the batches: the text itself says what comes next."""
        return HeldOut(tuple(batches))

    def score(self, model: nn.Module, data: HeldOut) -> float:
        """Return the perplexity: exp of the mean loss over all predicted tokens (SymTorch paper, equation 4).

        Every token but a sequence's first is predicted once. Infinite where it overflows.
        """
        total, count = 0.0, 0
        with torch.inference_mode():
            for batch in data.batches:
                logits = _run_model(model, batch, use_cache=False).logits[:, :-1].float()
                ids, mask = (batch[key].to(logits.device)[:, 1:] for key in ("input_ids", "attention_mask"))
                losses = functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
                total += float(losses[mask.flatten().bool()].double().sum())
                count += int(mask.sum())
        mean = total / count
        return math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf

    def compute_level(self, score: float) -> float:
        """Return the logarithm of the perplexity, which is the mean loss."""
        return math.log(score)


@final
@dataclass(frozen=True)
class Embedding(Task):
    """Embeddings of texts, as means over tokens: their angle to those of the original model."""

    name: ClassVar[str] = "encoder"
    score_name: ClassVar[str] = "1 - cosine"
    way: ClassVar[str] = "of 1 - cosine"

    def compute_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return embeddings of unit length, shape (texts, d)."""
        hidden = _run_model(model, batch).last_hidden_state.float()
        mask = batch["attention_mask"].to(hidden)[..., None]
        return functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def compute_distance(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """Return 1 minus the mean cosine."""
        return 1 - (outputs * wanted).sum(-1).mean()

    def prepare_held_out(self, model: nn.Module, batches: Sequence[Batch]) -> HeldOut:
        """Return the batches and their embeddings."""
        with torch.no_grad():
            return HeldOut(
                tuple(batches), tuple(self.compute_outputs(model, batch).cpu() for batch in batches)
            )

    def score(self, model: nn.Module, data: HeldOut) -> float:
        """Return 1 minus the mean cosine with the originals, over all texts."""
        total, count = 0.0, 0
        with torch.inference_mode():
            for batch, wanted in zip(data.batches, data.originals, strict=True):
                given = self.compute_outputs(model, batch)
                total += float(self.compute_distance(given, wanted.to(given))) * len(given)
                count += len(given)
        return total / count

    def compute_level(self, score: float) -> float:
        """Return the score itself."""
        return score


TASKS: Final[Mapping[str, Task]] = MappingProxyType(
    {task.name: task for task in (LanguageModelling(), Embedding())}
)


def _run_model(model: nn.Module, batch: Batch, **options: Any) -> Any:
    device = get_device(model)
    return model(**{key: value.to(device) for key, value in batch.items()}, **options)
