"""The check of a reading: a term of an equation is changed in the running model, and the words it names must follow.

A term t of equation j adds t(z) u to the block's output, with u the equation's output direction. Scaled by 1 + a, it
adds a t(z) u more, and the lens predicts what u does to each word. What the model then really predicts holds the work
of all later layers as well, so prediction and measurement may differ: how much is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core import Surrogate, SymbolicModel
from symtorch_llm.models.transformer import place_modules
from symtorch_llm.reading.lens import Lens
from symtorch_llm.reading.passes import find_read_tokens, run_model, watch_blocks
from symtorch_llm.reading.terms import Term, evaluate_terms
from symtorch_llm.text import Batch


@final
@dataclass(frozen=True)
class Effect:
    """What the model's words did when a term changed.

    Attributes:
        agreement: rank correlation, over the vocabulary, of the predicted effect on each word with the mean change of
            its log probability.
        random: the same for a random direction of the same size in the term's place: what any change would show.
        others: the largest of the same with the words of the block's other equations, in absolute value; NaN where
            there are none.
        raised, lowered: mean change of the log probability of the words named as raised and as lowered, in nats, beside
            that of all words.
        random_gap: by how much the first rose above the second along the random direction.
        rows: how many tokens were looked at.
    """

    agreement: float
    random: float
    others: float
    raised: float
    lowered: float
    random_gap: float
    rows: int

    @property
    def holds(self) -> bool:
        """Whether all words, and those that are named, followed more than under the controls."""
        bar = max(abs(self.random), 0.0 if math.isnan(self.others) else self.others)
        named = self.raised > 0 > self.lowered and self.raised - self.lowered > abs(self.random_gap)
        return self.agreement > bar and named


@contextmanager
def scale_term(surrogate: Surrogate, term: Term, change: float, direction: Tensor) -> Iterator[None]:
    """Add ``change`` times a term, along a direction, to what a surrogate computes, inside; afterwards nothing is left.

    Along the output direction of the term's equation, this is that equation with the term scaled by ``1 + change``.

    Args:
        surrogate: with equations in the variables of its maps.
        term: of one of its equations.
        change: -1 removes the term.
        direction: in the outputs, shape (d_out,).
    """
    maps = surrogate.maps()
    step: list[Tensor] = []

    def read(_: nn.Module, args: Any, z: Tensor) -> None:
        step[:] = [change * evaluate_terms([term], maps.variable_names, z)]

    def write(_: nn.Module, args: Any, outputs: Tensor) -> Tensor:
        return outputs + step.pop() * direction.to(outputs)

    handles = [maps.down.register_forward_hook(read), maps.up.register_forward_hook(write)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def evaluate_on_text(
    model: nn.Module, blocks: Mapping[str, SymbolicModel], batches: Sequence[Batch]
) -> list[dict[str, Tensor]]:
    """Return the blocks' variables on each batch, with the equations in place: path -> (sequences, tokens, k_in)."""
    found = []
    with place_modules(model, blocks), watch_blocks(blocks) as seen:
        for batch in batches:
            run_model(model, batch)
            shape = batch["input_ids"].shape
            found.append({path: z.reshape(*shape, -1).float().cpu() for path, (z, _) in seen.items()})
    return found


def choose_rows(values: Sequence[Tensor], batches: Sequence[Batch], count: int) -> list[Tensor]:
    """Return True for the read tokens at which a term is largest in size, for each batch.

    Args:
        values: of the term on each batch, shape (sequences, tokens).
        batches: of tokens.
        count: how many tokens, over all batches.
    """
    sizes = [
        torch.where(find_read_tokens(batch) & value.isfinite(), value.abs(), -math.inf)
        for value, batch in zip(values, batches, strict=True)
    ]
    every = torch.cat([size.flatten() for size in sizes])
    chosen = torch.zeros_like(every, dtype=torch.bool)
    chosen[every.topk(min(count, len(every))).indices] = True
    parts = (chosen & (every > 0)).split([size.numel() for size in sizes])
    return [part.view_as(size) for part, size in zip(parts, sizes, strict=True)]


def measure_effect(
    model: nn.Module,
    blocks: Mapping[str, SymbolicModel],
    path: str,
    term: Term,
    directions: tuple[Tensor, Tensor],
    batches: Sequence[Batch],
    values: Sequence[Tensor],
    *,
    change: float,
    rows: int,
) -> tuple[Tensor, Tensor, int]:
    """Measure how log probabilities change with a term, along its direction and along another.

    Args:
        model: a language model, with its own MLPs in place.
        blocks: by path; all of them run.
        path: of the block with the term.
        term: of one of its equations.
        directions: of that equation, and another one, shape (d_out,).
        batches: of tokens.
        values: of the term on each batch, shape (sequences, tokens).
        change: the term is scaled by ``1 + change``.
        rows: how many tokens are looked at, those where the term is largest in size.

    Returns:
        The mean change of each word's log probability for a positive change of the term of the same mean size, along
        both directions, shape (vocabulary,); and the number of tokens.
    """
    surrogate = blocks[path].surrogate
    assert surrogate is not None
    totals = [torch.zeros(()), torch.zeros(())]
    seen = 0
    with place_modules(model, blocks):
        for batch, value, chosen in zip(batches, values, choose_rows(values, batches, rows), strict=True):
            some = chosen.any(1)
            if not bool(some.any()):
                continue
            part, wanted = (
                {key: tensor[some.to(tensor.device)] for key, tensor in batch.items()},
                chosen[some],
            )
            before = run_model(model, part, wanted)
            assert before is not None
            sign = (change * value[some][wanted]).sign().to(before)[:, None]
            for number, direction in enumerate(directions):
                with scale_term(surrogate, term, change, direction):
                    after = run_model(model, part, wanted)
                assert after is not None
                totals[number] = totals[number] + (sign * (after - before)).sum(0).cpu()
            seen += len(before)
    return totals[0] / max(seen, 1), totals[1] / max(seen, 1), seen


def compare(
    lens: Lens, predicted: Tensor, place: int, measured: Tensor, random: Tensor, words: int, rows: int
) -> Effect:
    """Compare what a lens predicts for one of several equations with what was measured.

    Args:
        lens: the words that count, and those that are named.
        predicted: effect of each equation on each word that counts, shape (equations, len(lens.ids)).
        place: of the equation with the term.
        measured: mean change of each word's log probability, shape (vocabulary,).
        random: the same along a random direction.
        words: how many words are named, on each side.
        rows: how many tokens were looked at.
    """
    mine = predicted[place]
    up, down = (lens.find_named(sign * mine, words) for sign in (1, -1))
    measured, random = (one[lens.ids] - one[lens.ids].mean() for one in (measured, random))
    agreements = [correlate_ranks(one, measured) for one in predicted]
    return Effect(
        agreement=agreements[place],
        random=correlate_ranks(mine, random),
        others=max((abs(one) for number, one in enumerate(agreements) if number != place), default=math.nan),
        raised=float(measured[up].mean()),
        lowered=float(measured[down].mean()),
        random_gap=float(random[up].mean() - random[down].mean()),
        rows=rows,
    )


def correlate_ranks(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rank correlation of two vectors, with mean ranks for ties; NaN if one of them is constant.

    >>> round(correlate_ranks(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 8.0, 27.0, 64.0])), 6)
    1.0
    """
    ranks = torch.stack([_rank(one), _rank(other)])
    return float(torch.corrcoef(ranks)[0, 1])


def _rank(values: Tensor) -> Tensor:
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    return (ends - (counts - 1) / 2)[place].double()


def draw_direction(like: Tensor, seed: int) -> Tensor:
    """Return a random direction of the same length."""
    drawn = torch.randn(len(like), generator=torch.Generator().manual_seed(seed))
    return drawn * (like.norm() / drawn.norm())
