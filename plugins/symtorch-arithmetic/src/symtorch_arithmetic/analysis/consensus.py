"""Consensus: equations of few terms that give many answers exactly, however many others they miss (RANSAC).

A search by a loss loses a law that gives one answer in five: the other four decide. Here the constants come from as
many answers as there are constants, drawn at random, and the other answers only vote.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement
from typing import Final

import torch
from torch import Tensor

from symtorch_core.expressions import Expression, parse, simplify

_SAMPLES: Final = 400
_PER_BASIS: Final = 3
_BEST: Final = 40
_FEW: Final = 3  # variables
_DIGITS: Final = 10  # significant ones; the rest is rounding
_NOTHING: Final = 0.01  # of a step: terms smaller than this are left out

_Term = tuple[int, ...]
"""A product of variables by their places: (0, 0, 1) is x0*x0*x1, and () is 1."""


def find_consensus(
    names: Sequence[str], numbers: Tensor, values: Tensor, *, step: float = 1.0, seed: int = 0
) -> list[Expression]:
    """Return equations that give most answers exactly, the best first.

    They have one or two terms, which are products of up to two variables or a constant, or are linear in all variables.

    Args:
        names: of the variables, d of them.
        numbers: of the questions, shape (n, d).
        values: the answers, shape (n,).
        step: an equation gives an answer exactly if it is off by less than half a step.
        seed: of the draws.

    >>> x = torch.arange(40.0, dtype=torch.float64)[:, None]
    >>> answers = torch.where(torch.arange(40) % 4 == 0, 1.8 * x[:, 0] + 32, 1000 * x[:, 0].sin())
    >>> str(find_consensus(["x"], x, answers, step=0.2)[0])
    '1.8*x + 32.0'
    """
    generator = torch.Generator().manual_seed(seed)
    votes: dict[str, int] = {}
    for basis in _list_bases(len(names)):
        columns = torch.stack([_compute_term(term, numbers) for term in basis], dim=1)
        for constants, hits in _draw_constants(columns, values, step, generator):
            text = _write(constants, basis, names, columns, step)
            if text:
                votes[text] = max(hits, votes.get(text, 0))
    best = sorted(votes, key=lambda text: (-votes[text], len(text)))[:_BEST]
    return [simplify(parse(text, list(names))) for text in best]


def _list_bases(count: int) -> Iterator[tuple[_Term, ...]]:
    terms = [term for size in range(3) for term in combinations_with_replacement(range(count), size)]
    # Pairs of all terms would be many where there are many variables.
    paired = terms if count <= _FEW else [term for term in terms if len(term) < 2]
    linear: tuple[_Term, ...] = tuple((place,) for place in range(count))
    yield from dict.fromkeys([*((term,) for term in terms), *combinations(paired, 2), linear, ((), *linear)])


def _compute_term(term: _Term, numbers: Tensor) -> Tensor:
    product = torch.ones(len(numbers), dtype=torch.float64)
    for place in term:
        product = product * numbers[:, place].double()
    return product


def _draw_constants(
    columns: Tensor, values: Tensor, step: float, generator: torch.Generator
) -> Iterator[tuple[list[float], int]]:
    """Yield constants for columns (n, k), each with the number of answers that they give exactly; the best few."""
    count, size = columns.shape
    if count <= size:
        return
    rows = torch.rand(_SAMPLES, count, generator=generator).argsort(dim=1)[:, :size]
    solved, failed = torch.linalg.solve_ex(columns[rows], values[rows][..., None])
    constants = solved[(failed == 0) & solved.isfinite().all(dim=1)[:, 0], :, 0]
    hits = ((constants @ columns.T - values).abs() < step / 2).sum(dim=1)
    for place in hits.argsort(descending=True)[:_PER_BASIS].tolist():
        if int(hits[place]) > size + 1:  # those it was drawn from, and two more
            yield constants[place].tolist(), int(hits[place])


def _write(
    constants: Sequence[float], basis: Sequence[_Term], names: Sequence[str], columns: Tensor, step: float
) -> str:
    sizes = columns.abs().amax(dim=0).tolist()
    terms = [
        "*".join([f"({constant:.{_DIGITS}g})", *(names[place] for place in term)])
        for constant, term, size in zip(constants, basis, sizes, strict=True)
        if math.isfinite(constant) and abs(constant) * size >= _NOTHING * step
    ]
    return " + ".join(terms)
