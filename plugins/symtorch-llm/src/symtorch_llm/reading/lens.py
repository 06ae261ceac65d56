"""The words that directions stand for, through a model's own norms, head and embedding (the logit lens).

A block reads the residual stream through the norm before it, and what it writes reaches the logits through the norm
after it, if there is one, and the final norm. All of these are differentiated on states of a text and averaged, so no
kind of norm needs to be known by name. What later layers make of a direction is not seen: a lens shows direct effects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_llm.reading.contexts import show_token

_WORDS_AT_ONCE = 16_384


@final
@dataclass(frozen=True)
class Words:
    """Words that a direction raises most, and those that it lowers most; the most first."""

    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Passage:
    """A norm, or another module, that a direction goes through, and states of a text before it; with none, nothing.

    Attributes:
        module: of rows, in float32 on the CPU.
        states: shape (n, d).
    """

    module: nn.Module | None = None
    states: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def push(self, directions: Tensor) -> Tensor:
        """Return what becomes of small steps before the module, on average over the states, shape (k, d)."""
        module = self.module
        if module is None:
            return directions
        steps = [
            torch.func.jvp(module, (self.states,), (one.expand_as(self.states),))[1].mean(0)
            for one in directions
        ]
        return torch.stack(steps) if steps else directions

    def pull(self, directions: Tensor) -> Tensor:
        """Return the directions before the module that these directions behind it read, on average, shape (k, d)."""
        if self.module is None:
            return directions
        back = torch.func.vjp(self.module, self.states)[1]
        steps = [back(one.expand_as(self.states))[0].mean(0) for one in directions]
        return torch.stack(steps) if steps else directions


@final
@dataclass(frozen=True, eq=False)
class Lens:
    """Ways from the residual stream to words, and from words into it.

    Attributes:
        norm: the final norm.
        head: shape (vocabulary, d).
        embedding: shape (vocabulary, d); None where it has another width.
        ids: the words that count, ascending: without special tokens, and without those that no text has.
        named: places in ``ids`` of the words that a direction may be named by, those of the text that is read: at the
            ends of a whole vocabulary stand words that hardly any text has.
        tokenizer: of transformers.
    """

    norm: Passage
    head: Tensor
    embedding: Tensor | None
    ids: Tensor
    named: Tensor
    tokenizer: Any

    def find_named(self, row: Tensor, count: int) -> Tensor:
        """Return the places in ``ids`` of the largest entries among the words that a direction may be named by.

        Args:
            row: a number for each of ``ids``.
            count: how many, at most.
        """
        return self.named[row[self.named].topk(min(count, len(self.named))).indices]

    def compute_effects(self, directions: Tensor) -> Tensor:
        """Return how steps in the residual stream change each word's logit, less the mean change, shape (k, len(ids)).

        Args:
            directions: shape (k, d).
        """
        effects = _multiply(self.norm.push(directions), self.head)[:, self.ids]
        return effects - effects.mean(1, keepdim=True)

    def find_written(self, directions: Tensor, count: int) -> list[Words]:
        """Return the words whose logits each direction raises and lowers most."""
        return self._name(self.compute_effects(directions), count)

    def find_read(self, directions: Tensor, count: int) -> list[Words]:
        """Return the words whose embeddings each direction reads most: by their cosines, beside the mean embedding."""
        if self.embedding is None:
            return [Words() for _ in directions]
        mean = self.embedding.mean(0, dtype=torch.float32)
        products, lengths = [], []
        for part in self.embedding.split(_WORDS_AT_ONCE):
            centred = part.float() - mean
            products.append((directions.to(centred) @ centred.T).cpu())
            lengths.append(centred.norm(dim=1).clamp_min(1e-12).cpu())
        return self._name((torch.cat(products, 1) / torch.cat(lengths))[:, self.ids], count)

    def _name(self, values: Tensor, count: int) -> list[Words]:
        return [Words(*(self._show(sign * row, count) for sign in (1, -1))) for row in values]

    def _show(self, row: Tensor, count: int) -> tuple[str, ...]:
        return tuple(
            show_token(self.tokenizer, token) for token in self.ids[self.find_named(row, count)].tolist()
        )


def is_readable(word: str) -> bool:
    r"""Return whether a word can be shown: it has a sign, and neither parts of characters nor controls.

    >>> [is_readable(word) for word in (" the", " ", "\ufffd", "a\x00")]
    [True, False, False, False]
    """
    return bool(word.strip()) and "\ufffd" not in word and all(c.isprintable() or c.isspace() for c in word)


def _multiply(directions: Tensor, words: Tensor) -> Tensor:
    """Return directions times the vectors of all words, in float32 on the CPU, a part of the words at a time."""
    parts = [directions.to(part.device) @ part.float().T for part in words.split(_WORDS_AT_ONCE)]
    return torch.cat([part.cpu() for part in parts], 1)
