"""What excites the variables and equations of replaced MLPs: tokens of a text, with what stands around them.

The text runs through the model with the equations in place, since it is their variables that are read: with the
original MLPs in the layers below, the same text would give other values than those the running model computes with.

The first token of each sequence is left out. It is an attention sink: the residual stream there is many times as long
as elsewhere whatever the token is, so what is read there says nothing about the token. Padding is left out too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from symtorch_core import SearchError
from symtorch_core.reduction import Moments
from symtorch_llm.reading.passes import NOTHING

_SAME = 2
"""Places with the same token behind the same two tokens are one context."""
_OFTEN = 3
"""A token's mean is shown if it occurs at least so often."""
_Kept = dict[tuple[int, ...], tuple[float, tuple[int, ...]]]
"""Value and window, by context."""


@final
@dataclass(frozen=True)
class Example:
    """A token in its context, and the value there."""

    value: float
    before: str
    token: str
    after: str


@final
@dataclass(frozen=True)
class Excitation:
    """How a number behaves over a text.

    Attributes:
        name: of a variable, an equation or a term.
        mean, spread: over all tokens; the spread is a standard deviation.
        by_token: share of the variance that the token alone explains, adjusted for the number of tokens; 1 says that
            the context does not matter. NaN where no token occurs twice, and of terms.
        most, least: where it is largest and smallest, in different contexts.
        tokens_most, tokens_least: tokens with the largest and smallest means, among those that occur three times or
            more; empty of terms.
    """

    name: str
    mean: float
    spread: float
    by_token: float
    most: tuple[Example, ...]
    least: tuple[Example, ...]
    tokens_most: tuple[str, ...]
    tokens_least: tuple[str, ...]


def show_token(tokenizer: Any, token: int) -> str:
    """Return a token as it stands inside of text: with its space, which some tokenizers drop at a text's beginning."""
    once, twice = (tokenizer.decode([token] * times) for times in (1, 2))
    return str(twice[len(once) :])


def show_window(tokenizer: Any, window: Sequence[int], before: int, value: float) -> Example:
    """Return a window of :func:`cut_windows` as text."""
    texts = [
        tokenizer.decode([token for token in window[:end] if token != NOTHING])
        for end in (before, before + 1, len(window))
    ]
    first, second = len(texts[0]), len(texts[1])
    return Example(value, texts[0], texts[2][first:second], texts[2][second:])


def find_peaks(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Return the rows of the largest values of each column, at most one of each group, the largest first.

    Args:
        values: shape (n, columns).
        groups: number of each row's group, shape (n,).
        count: how many rows, at most.

    Returns:
        Shape (min(count, number of groups), columns).

    >>> find_peaks(torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([0, 0, 1]), 2)
    tensor([[1],
            [2]])
    """
    number, index = int(groups.max()) + 1, groups[:, None].expand_as(values)
    peaks = values.new_full((number, values.shape[1]), -math.inf).scatter_reduce(0, index, values, "amax")
    rows = torch.arange(len(values))[:, None].expand_as(values)
    at_peak = torch.where(values == peaks.gather(0, index), rows, len(values))
    first = at_peak.new_full(peaks.shape, len(values)).scatter_reduce(0, index, at_peak, "amin")
    return first.gather(0, peaks.topk(min(count, number), dim=0).indices)


@final
class Tally:
    """Counts of columns over a text, batch by batch: no rows are kept but the extreme ones.

    Args:
        columns: number of columns.
        named: how many of them, from the first on, also get means for each token.
        types: the text's different tokens, ascending.
        examples: how many extreme contexts are kept of each column, and on each side.
        before: tokens of a window before the one that is read.
    """

    def __init__(self, columns: int, named: int, types: Tensor, examples: int, before: int) -> None:
        self._named, self._types, self._examples, self._before = named, types, examples, before
        self._moments: Moments | None = None
        self._counts = torch.zeros(len(types), dtype=torch.float64)
        self._sums = torch.zeros(len(types), named, dtype=torch.float64)
        self._shift = torch.zeros(named, dtype=torch.float64)
        self._kept: dict[float, list[_Kept]] = {sign: [{} for _ in range(columns)] for sign in (1.0, -1.0)}
        self.left_out = 0
        """Rows with values that are not finite."""
        self.rows = 0
        """All others."""

    def add(self, windows: Tensor, values: Tensor) -> None:
        """Count rows.

        Args:
            windows: tokens, shape (n, w).
            values: shape (n, columns).
        """
        finite = values.isfinite().all(1)
        self.left_out += int((~finite).sum())
        windows, values = windows[finite], values[finite].double()
        if not len(values):
            return
        self.rows += len(values)
        part = Moments.of(values, values[:, :0])
        if self._moments is None:
            self._shift = part.x[: self._named]
        self._moments = part if self._moments is None else self._moments.merge(part)
        place = torch.searchsorted(self._types, windows[:, self._before].contiguous())
        self._counts.index_add_(0, place, torch.ones(len(place), dtype=torch.float64))
        self._sums.index_add_(0, place, values[:, : self._named] - self._shift)
        contexts = windows[:, max(0, self._before - _SAME) : self._before + 1]
        groups = torch.unique(contexts, dim=0, return_inverse=True)[1]
        keys, places = list(map(tuple, contexts.tolist())), list(map(tuple, windows.tolist()))
        for sign, kept in self._kept.items():
            rows = find_peaks(sign * values, groups, self._examples)
            for best, column, numbers in zip(
                kept, rows.T.tolist(), values.gather(0, rows).T.tolist(), strict=True
            ):
                for row, value in zip(column, numbers, strict=True):
                    if keys[row] not in best or sign * value > sign * best[keys[row]][0]:
                        best[keys[row]] = value, places[row]
                for key in sorted(best, key=lambda key: -sign * best[key][0])[self._examples :]:
                    del best[key]

    @property
    def covariance(self) -> Tensor:
        """Covariance of the columns, shape (columns, columns), float64."""
        return self._get_moments().xx

    def _get_moments(self) -> Moments:
        if self._moments is None:
            raise SearchError(
                "nothing could be read: the text has no sequence of two tokens or more with finite values"
            )
        return self._moments

    def finish(self, names: Sequence[str], tokenizer: Any, tokens: int) -> list[Excitation]:
        """Return what was counted, for each column.

        Args:
            names: of the columns.
            tokenizer: of transformers.
            tokens: how many tokens with the largest and the smallest means are listed.

        Raises:
            SearchError: there were no rows.
        """
        moments = self._get_moments()
        spread = moments.xx.diagonal().clamp_min(0).sqrt()
        by_token = self._explain_by_token()
        return [
            Excitation(
                name,
                float(moments.x[column]),
                float(spread[column]),
                float(by_token[column]) if column < self._named else math.nan,
                self._show_examples(tokenizer, 1.0, column),
                self._show_examples(tokenizer, -1.0, column),
                self._show_tokens(tokenizer, 1.0, column, tokens),
                self._show_tokens(tokenizer, -1.0, column, tokens),
            )
            for column, name in enumerate(names)
        ]

    def _show_examples(self, tokenizer: Any, sign: float, column: int) -> tuple[Example, ...]:
        ordered = sorted(self._kept[sign][column].values(), key=lambda entry: -sign * entry[0])
        return tuple(show_window(tokenizer, window, self._before, value) for value, window in ordered)

    def _show_tokens(self, tokenizer: Any, sign: float, column: int, tokens: int) -> tuple[str, ...]:
        if column >= self._named:
            return ()
        often = (self._counts >= _OFTEN).nonzero().flatten()
        means = sign * self._sums[often, column] / self._counts[often]
        best = often[means.topk(min(tokens, len(often))).indices]
        return tuple(show_token(tokenizer, int(token)) for token in self._types[best])

    def _explain_by_token(self) -> Tensor:
        """Return the share of each named column's variance that lies between tokens, adjusted (epsilon squared)."""
        moments, seen = self._get_moments(), self._counts > 0
        rows, groups = float(self._counts.sum()), int(seen.sum())
        if rows <= groups or groups < 2:
            return torch.full((self._named,), math.nan)
        between = (self._sums[seen].square() / self._counts[seen, None]).sum(0)
        between = between - rows * (moments.x[: self._named] - self._shift).square()
        total = rows * moments.xx.diagonal()[: self._named]
        return 1 - (total - between) / (rows - groups) * (rows - 1) / total
