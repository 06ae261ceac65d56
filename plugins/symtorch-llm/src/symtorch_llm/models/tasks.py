"""Tasks: what a transformer is for decides how it is judged, and what other modules in it are tuned towards."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, final

from torch import Tensor, nn
from torch.nn import functional

from symtorch_llm.models.transformer import get_device
from symtorch_llm.text import Batch

_LARGEST_EXPONENT = 700.0
_LIKELIEST: Final = 128
"""Tokens whose probabilities are kept one by one; the others are lumped together."""
_LEAST: Final = 1e-6


class Task(ABC):
    """A kind of output, a distance of two outputs, and a score of a model."""

    name: ClassVar[str]
    score_name: ClassVar[str]
    rise_name: ClassVar[str]
    """What the differences of :meth:`compute_level` are called."""
    distance_name: ClassVar[str]
    """What :meth:`compute_distance` is."""
    way: ClassVar[str]
    """What :meth:`compute_won_back` is a share of, in words."""

    @abstractmethod
    def compute_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the outputs by which a model is judged, one for each sequence or token of a batch."""

    @abstractmethod
    def keep(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return what :meth:`compute_distance` and :meth:`measure` need of the original model's outputs."""

    @abstractmethod
    def compute_distance(self, outputs: Tensor, batch: Batch, original: Mapping[str, Tensor]) -> Tensor:
        """Return the mean distance of outputs from the original model's, a tensor of one number."""

    @abstractmethod
    def measure(self, outputs: Tensor, batch: Batch, original: Mapping[str, Tensor]) -> tuple[float, int]:
        """Return the sum of losses of a batch's outputs, and their number."""

    @abstractmethod
    def compute_score(self, loss: float) -> float:
        """Return the score of a mean loss; lower is better."""

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
    rise_name: ClassVar[str] = "rise, nats"
    distance_name: ClassVar[str] = "divergence of its predictions from the original's, nats"
    way: ClassVar[str] = "of log(perplexity)"

    def compute_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits, shape (sequences, tokens, vocabulary)."""
        logits: Tensor = _run_model(model, batch, use_cache=False).logits
        return logits

    def keep(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the likeliest next tokens after every real token, shape (rows, k), and their log probabilities."""
        rows = _choose_real(outputs, batch)
        likeliest = rows.topk(min(_LIKELIEST, rows.shape[1]), sorted=False)
        logs = likeliest.values - rows.logsumexp(-1, keepdim=True)
        return {"tokens": likeliest.indices.int().cpu(), "logs": logs.cpu()}

    def compute_distance(self, outputs: Tensor, batch: Batch, original: Mapping[str, Tensor]) -> Tensor:
        """Return KL(original || outputs) in nats per token, with the original's unlikely tokens lumped together.

        Lumping makes it smaller, never larger.
        """
        rows = _choose_real(outputs, batch)
        wanted = original["logs"].to(rows)
        given = rows.gather(1, original["tokens"].to(rows.device).long()) - rows.logsumexp(-1, keepdim=True)
        apart = (wanted.exp() * (wanted - given)).sum(-1)
        if wanted.shape[1] < rows.shape[1]:
            left, found = (1 - logs.exp().sum(-1) for logs in (wanted, given))
            apart = apart + left.clamp_min(0) * (left.clamp_min(_LEAST).log() - found.clamp_min(_LEAST).log())
        return apart.mean()

    def measure(self, outputs: Tensor, batch: Batch, original: Mapping[str, Tensor]) -> tuple[float, int]:
        """Return the losses of the next tokens; every token but a sequence's first is predicted once."""
        ids, mask = (batch[key].to(outputs.device)[:, 1:] for key in ("input_ids", "attention_mask"))
        real = mask.bool()
        losses = functional.cross_entropy(outputs[:, :-1][real].float(), ids[real], reduction="none")
        return float(losses.double().sum()), int(real.sum())

    def compute_score(self, loss: float) -> float:
        """Return the perplexity: exp of the mean loss (SymTorch paper, equation 4); infinite where it overflows."""
        return math.exp(loss) if loss < _LARGEST_EXPONENT else math.inf

    def compute_level(self, score: float) -> float:
        """Return the logarithm of the perplexity, which is the mean loss."""
        return math.log(score)


@final
@dataclass(frozen=True)
class Embedding(Task):
    """Embeddings of texts, as means over tokens: their angle to those of the original model."""

    name: ClassVar[str] = "encoder"
    score_name: ClassVar[str] = "1 - cosine"
    rise_name: ClassVar[str] = "rise"
    distance_name: ClassVar[str] = "1 - cosine"
    way: ClassVar[str] = "of 1 - cosine"

    def compute_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return embeddings of unit length, shape (texts, d)."""
        hidden = _run_model(model, batch).last_hidden_state.float()
        mask = batch["attention_mask"].to(hidden)[..., None]
        return functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def keep(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the embeddings."""
        return {"embeddings": outputs.cpu()}

    def compute_distance(self, outputs: Tensor, batch: Batch, original: Mapping[str, Tensor]) -> Tensor:
        """Return 1 minus the mean cosine."""
        return 1 - (outputs * original["embeddings"].to(outputs)).sum(-1).mean()

    def measure(self, outputs: Tensor, batch: Batch, original: Mapping[str, Tensor]) -> tuple[float, int]:
        """Return 1 minus the cosine with the originals, summed over texts."""
        return float(self.compute_distance(outputs, batch, original)) * len(outputs), len(outputs)

    def compute_score(self, loss: float) -> float:
        """Return the mean loss."""
        return loss

    def compute_level(self, score: float) -> float:
        """Return the score itself."""
        return score


TASKS: Final[Mapping[str, Task]] = MappingProxyType(
    {task.name: task for task in (LanguageModelling(), Embedding())}
)


def _choose_real(logits: Tensor, batch: Batch) -> Tensor:
    """Return the rows of real tokens as float32, shape (rows, vocabulary)."""
    return logits[batch["attention_mask"].to(logits.device).bool()].float()


def _run_model(model: nn.Module, batch: Batch, **options: Any) -> Any:
    device = get_device(model)
    return model(**{key: value.to(device) for key, value in batch.items()}, **options)
