"""Laws in turn: the equation that gives most answers to the last digit, then one for the answers left, and so on.

A model may answer by several laws, none of which gives most answers. Nothing here knows the right answer. Equations are
searched for, and chosen, on two thirds of the questions; the others decide whether a law is one, and give its share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from torch import Tensor

from symtorch_arithmetic.analysis.consensus import find_consensus
from symtorch_core.expressions import (
    Constant,
    Expression,
    constants,
    evaluate,
    simplify,
    variables,
    walk,
    with_constants,
)

MOST_LAWS: Final = 4
SURE: Final = 1e-3
"""Probability of as many exact answers by chance, below which an equation counts as a law."""
_HELD_OUT: Final = 1 / 3
_FEWEST: Final = 10  # answers that are left, below which there is no search
_FEWEST_HITS: Final = 3
_CHANCES: Final = 3  # equations that are judged on held-out answers, at most, before a search
_OPERATORS: Final = 5  # of the search: + * inv sin exp
_ROUNDED: Final = (1, 2, 3)  # significant digits
_WRITTEN: Final = 10

Search = Callable[[Tensor, Tensor, int], Sequence[Expression]]
"""Finds equations for numbers (n, d) and answers (n,); the third argument counts the searches."""
Origin = Literal["search", "consensus", "most frequent answer"]


@final
@dataclass(frozen=True, eq=False)
class FoundLaw:
    """One of the laws.

    Attributes:
        expression: in the variables.
        origins: how it was found, at first or again.
        given: answers that it gives to the last digit, shape (n,), boolean.
        explained: those of them that no law before it gives, shape (n,).
        hits, left: held-out answers that it explains, of those left by the laws before it.
        chance: expected share of ``hits`` by chance: where answers are given to other questions; for a law without
            variables, one in so many as there are different right answers.
        probability: of so many hits by chance.
    """

    expression: Expression
    origins: tuple[Origin, ...]
    given: Tensor
    explained: Tensor
    hits: int
    left: int
    chance: float
    probability: float


@final
@dataclass(frozen=True, eq=False)
class Mixture:
    """Laws in turn.

    Attributes:
        laws: in the order in which they were found.
        held_out: the answers that no search has seen, shape (n,), boolean.
        searches: number of searches.
        rejected: an equation that did well on the answers it was chosen by, but not on held-out ones; None where there
            was none in the last turn.
    """

    laws: tuple[FoundLaw, ...]
    held_out: Tensor
    searches: int
    rejected: FoundLaw | None

    @property
    def places(self) -> Tensor:
        """For each answer the place of the law that explains it, from 0; -1 for none. Shape (n,)."""
        places = torch.full(self.held_out.shape, -1)
        for place, law in enumerate(self.laws):
            places[law.explained] = place
        return places

    def compute_share(self, law: FoundLaw) -> float:
        """Return the share of all held-out answers that a law explains."""
        return law.hits / max(1, int(self.held_out.sum()))


def find_laws(
    names: Sequence[str],
    numbers: Tensor,
    values: Tensor,
    search: Search,
    *,
    step: float = 1.0,
    different: int = 0,
    tries: int = 1,
    at_most: int = MOST_LAWS,
    seed: int = 0,
) -> Mixture:
    """Find laws in turn, as plain data.

    In each turn the equations of all searches so far compete, with their constants as found and rounded, together with
    those of :func:`.consensus.find_consensus` and the most frequent answer. An equation saves bits for each answer
    that it gives exactly, and costs bits for each symbol and each digit; the one that saves most is the law, if it also
    gives more held-out answers than chance. If it does not, there is a search on the answers that are left; before the
    first law there is one in any case.

    Args:
        names: of the variables, d of them.
        numbers: of the questions, shape (n, d).
        values: the answers, shape (n,), finite.
        search: see :data:`Search`; it never gets a held-out answer.
        step: an equation gives an answer exactly if it is off by less than half a step.
        different: number of different answers that would be plausible; 0: of those given.
        tries: searches in each turn, at most.
        at_most: number of laws.
        seed: of the held-out questions.
    """
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    held_out = torch.zeros(len(values), dtype=torch.bool)
    held_out[order[: round(_HELD_OUT * len(values))]] = True
    judge = _Judge(names, numbers, values, held_out, step, different or len(values.unique()))
    left = torch.ones_like(held_out)
    laws: list[FoundLaw] = []
    pool: dict[Expression, tuple[Origin, ...]] = {}
    searches = 0
    rejected: FoundLaw | None = None
    while len(laws) < at_most and min(int((left & part).sum()) for part in (held_out, ~held_out)) >= _FEWEST:
        rows, law = left & ~held_out, None
        agreed = find_consensus(names, numbers[rows], values[rows], step=step, seed=seed)
        _add(pool, agreed, "consensus")
        _add(pool, [Constant(float(values[rows].mode().values))], "most frequent answer")
        for attempt in range(tries + 1):
            if attempt:
                _add(pool, search(numbers[rows], values[rows], searches), "search")
                searches += 1
            law, rejected = judge.find_law(pool, left)
            if law is not None and searches:
                break
        if law is None:
            break
        laws.append(law)
        left = left & ~law.explained
    return Mixture(tuple(laws), held_out, searches, rejected)


@final
@dataclass(frozen=True, eq=False)
class _Judge:
    """Chooses the law of the answers that are left."""

    names: Sequence[str]
    numbers: Tensor
    values: Tensor
    held_out: Tensor
    step: float
    different: int

    def find_law(
        self, pool: Mapping[Expression, tuple[Origin, ...]], left: Tensor
    ) -> tuple[FoundLaw | None, FoundLaw | None]:
        """Return the law of the answers that are left, and the first equation that was not good enough."""
        aside, rejected = torch.zeros_like(left), None
        for _ in range(_CHANCES):
            law = self._choose(pool, left, aside)
            if law is None or law.probability < SURE:
                return law, rejected
            rejected = rejected or law
            aside = aside | law.given
        return None, rejected

    def _choose(
        self, pool: Mapping[Expression, tuple[Origin, ...]], left: Tensor, aside: Tensor
    ) -> FoundLaw | None:
        """Return the equation that saves most bits on answers that are left and not set aside."""
        rows = left & ~aside & ~self.held_out
        bits = math.log2(max(2, self.different))
        saved = {
            equation: int((self._find_given(equation) & rows).sum()) * bits - self._measure(equation)
            for equation in pool
        }
        best = max(saved, key=lambda equation: saved[equation])
        given = self._find_given(best)
        if saved[best] <= 0 or int((given & rows).sum()) < _FEWEST_HITS:
            return None
        return self._judge(best, pool[best], given, left)

    def _judge(
        self, expression: Expression, origins: tuple[Origin, ...], given: Tensor, left: Tensor
    ) -> FoundLaw:
        from scipy.stats import binom

        rows = left & self.held_out
        hits, count = int((given & rows).sum()), int(rows.sum())
        chance = 1 / max(2, self.different)
        if variables(expression):
            # How many answers it would give if each were the answer to another question.
            off = (self._predict(expression)[rows][:, None] - self.values[rows][None, :]).abs()
            exact = off < self.step / 2
            exact.fill_diagonal_(False)
            chance = max(chance, float(exact.double().sum()) / (count * (count - 1)))
        probability = float(binom.sf(hits - 1, count, chance)) if hits >= _FEWEST_HITS else 1.0
        return FoundLaw(expression, origins, given, given & left, hits, count, chance, probability)

    def _find_given(self, expression: Expression) -> Tensor:
        return (self._predict(expression) - self.values).abs() < self.step / 2

    def _predict(self, expression: Expression) -> Tensor:
        columns = dict(zip(self.names, self.numbers.double().unbind(1), strict=True))
        return evaluate(expression, columns).double().expand(len(self.values))

    def _measure(self, expression: Expression) -> float:
        """Return the length of an equation in bits."""
        symbol = math.log2(_OPERATORS + len(self.names))
        digits = sum(
            sum(letter.isdigit() for letter in f"{value:.{_WRITTEN}g}") for value in constants(expression)
        )
        return symbol * sum(1 for _ in walk(expression)) + math.log2(10) * digits


def _add(
    pool: dict[Expression, tuple[Origin, ...]], expressions: Iterable[Expression], origin: Origin
) -> None:
    """Add equations with their constants as found and rounded; those already there have one more origin."""
    for expression in expressions:
        for variant in _round_constants(expression):
            known = pool.get(variant, ())
            pool[variant] = known if origin in known else (*known, origin)


def _round_constants(expression: Expression) -> Iterator[Expression]:
    """Yield an equation as it is, and with constants of few significant digits."""
    yield expression
    found = constants(expression)
    if found:
        for digits in _ROUNDED:
            yield simplify(with_constants(expression, [float(f"{value:.{digits}g}") for value in found]))
