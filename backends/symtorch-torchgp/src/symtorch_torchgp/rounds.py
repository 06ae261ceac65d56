"""One round of the search: a fresh population that evolves until it stagnates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.expression import Expression, parse
from symtorch_core.threads import one_thread
from symtorch_core.timing import Stopwatch
from symtorch_torchgp.evaluation import evaluate, schedule
from symtorch_torchgp.evolution import Archive, Population
from symtorch_torchgp.fitting import Rows, fit_constants, unexplained
from symtorch_torchgp.primitives import Primitives
from symtorch_torchgp.programs import Programs
from symtorch_torchgp.variation import Sampler, admissible

if TYPE_CHECKING:
    from symtorch_torchgp.regressor import TorchGPRegressor

_SINGLE_RESOLUTION = 3e-6
"""1 - R2 that single precision cannot tell from 0."""
_SOLVED = 1e-12
_STAGNATION = 12
_PROGRESS = 0.98
_POLISH_STEPS = 12
_AFTER_SOLVING = 5
"""Generations granted to a solved output, in which it may find a shorter form."""
_FEWEST_PROGRAMS = 150

Live = Callable[[int, Expression, float, int], None]
"""Told of an output's best program: (output, program, loss, generation)."""


@final
@dataclass(frozen=True)
class Data:
    """What a search is about.

    Attributes:
        X: inputs, shape (n, d).
        Y: targets, shape (n, k).
        weights: shape (n,) or None.
        search: the search space.
        names: of the inputs.
    """

    X: Tensor
    Y: Tensor
    weights: Tensor | None
    search: SearchSpace
    names: tuple[str, ...]

    @property
    def length(self) -> int:
        """Places of a program."""
        return max(8, self.search.maxsize)

    def is_constant(self, column: int) -> bool:
        """Whether an output is one number, to single precision."""
        y = self.Y[:, column].double()
        return float(y.max() - y.min()) <= torch.finfo(torch.float32).eps * float(y.abs().max())

    def arrays(self, column: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """X, one target and the weights as float64 arrays."""
        weights = None if self.weights is None else self.weights.double().cpu().numpy()
        return self.X.double().cpu().numpy(), self.Y[:, column].double().cpu().numpy(), weights

    def rows(self, outputs: list[int], index: Tensor, device: torch.device, dtype: torch.dtype) -> Rows:
        """Some rows of some outputs, ready to search on."""
        X, Y = self.X[index].to(device, dtype), self.Y[index][:, outputs].to(device, dtype)
        weights = torch.ones(len(X), dtype=dtype, device=device)
        if self.weights is not None:
            weights = self.weights[index].to(device, dtype)
        return Rows.of(X, Y, weights[None, :] * self._emphasis(Y))

    def _emphasis(self, Y: Tensor) -> Tensor:
        """Row weights (k, n) under which least squares acts like the loss that was asked.

        For mae and huber, rows count alike whatever the size of y, so that heavy tails do not drown the rest.
        """
        if self.search.loss == "mse":
            return torch.ones_like(Y.T)
        size = (Y - Y.median(0).values).abs()
        return (1 / (size + size.median(0).values + torch.finfo(Y.dtype).tiny)).square().T


@final
@dataclass(frozen=True)
class Round:
    """The task of one round.

    Attributes:
        outputs: columns to search.
        generations: at most so many.
        seconds: at most so many; None for no limit.
        seed: of the whole search.
        number: of this round; with ``seed`` it decides every random choice.
    """

    outputs: tuple[int, ...]
    generations: int
    seconds: float | None
    seed: int
    number: int


@final
@dataclass(frozen=True)
class Outcome:
    """What a round found: the archive of its outputs (in the round's order), the solved ones, its length."""

    archive: Archive
    solved: tuple[int, ...]
    generations: int


@one_thread()
def evolve(data: Data, options: TorchGPRegressor, task: Round, live: Live | None) -> Outcome:
    """Run one round.

    Args:
        data: what the search is about.
        options: of the regressor.
        task: which outputs, how long, which seed.
        live: told of the best programs after each generation; None for nobody.
    """
    watch = Stopwatch()
    device = torch.device(options.device) if options.device else data.X.device
    chance = np.random.SeedSequence([task.seed, task.number])
    first, second = chance.generate_state(2)
    generator = torch.Generator(device).manual_seed(int(first))
    n = len(data.X)
    index = torch.arange(n)
    if n > options.search_rows:
        chosen = np.random.default_rng(second).choice(n, options.search_rows, replace=False)
        index = torch.from_numpy(np.sort(chosen))
    primitives = Primitives.of(data.search, data.names, device)
    sampler = Sampler(primitives, data.length, generator, device)
    active = list(task.outputs)
    size = max(_FEWEST_PROGRAMS, round(options.population_size / len(active) ** 0.5))
    population = Population(
        data.rows(active, index, device, torch.float32),
        primitives,
        sampler,
        size,
        data.search.maxsize,
        _admission(data.search, primitives),
        _starting(options.start, data, primitives),
    )
    result = Archive.empty(len(active), data.search.maxsize, data.length, device)
    best, since, generation = population.archive.losses.amin(1), 0, 0
    exact: dict[int, int] = {}  # solved output -> generation in which it was
    while generation < task.generations and since < _STAGNATION:
        if task.seconds is not None and watch.seconds() > task.seconds:
            break
        population.step()
        generation += 1
        now = population.archive.losses.amin(1)
        since = 0 if bool((now < _PROGRESS * best).any()) or exact else since + 1
        best = torch.minimum(best, now)
        if live is not None:
            _show(live, active, population, generation)
        for position in _solved(data, active, population, set(exact)):
            exact[active[position]] = generation
        done = [c for c in active if generation - exact.get(c, generation) >= _AFTER_SOLVING]
        if done:
            _store(result, task, active, population)
            left = [position for position, column in enumerate(active) if column not in done]
            active = [active[position] for position in left]
            if not active:
                break
            population.keep(torch.tensor(left, device=device))
            best = best[left]
            exact = {column: when for column, when in exact.items() if column in active}
    _store(result, task, active, population)
    finished = [c for c in task.outputs if c not in active or c in exact]
    return Outcome(result, tuple(finished), generation)


def _store(result: Archive, task: Round, active: list[int], population: Population) -> None:
    for position, column in enumerate(active):
        result.take(task.outputs.index(column), population.archive, position)


def _show(live: Live, active: list[int], population: Population, generation: int) -> None:
    archive = population.archive
    for position, column in enumerate(active):
        place = int(archive.losses[position].argmin())
        codes, values = (
            archive.codes[position, place].tolist(),
            archive.values[position, place].double().tolist(),
        )
        program = population.primitives.decode(codes, values)
        live(column, program, float(archive.losses[position, place]), generation)


def _solved(data: Data, active: list[int], population: Population, known: set[int]) -> list[int]:
    """Positions of outputs with an equation that is exact on all rows in double precision."""
    archive, primitives, done = population.archive, population.primitives, []
    device = archive.losses.device
    for position in (archive.losses.amin(1) < _SINGLE_RESOLUTION).nonzero()[:, 0].tolist():
        if active[position] in known:
            continue
        near = (archive.losses[position] < _SINGLE_RESOLUTION).nonzero()[:, 0]
        programs = Programs(archive.codes[position][near], archive.values[position][near].double())
        rows = data.rows([active[position]], torch.arange(len(data.X)), device, torch.float64)
        owner = torch.zeros(len(programs), dtype=torch.long, device=device)
        programs = fit_constants(programs, owner, primitives, rows, _POLISH_STEPS)
        plan = schedule(programs, primitives, share_constants=False)
        numbers = programs.values[plan.constant_programs, plan.constant_places]
        buffer = evaluate(plan, primitives, rows.columns, numbers)
        if float(unexplained(buffer[plan.roots], rows).min()) < _SOLVED:
            done.append(position)
    return done


def _admission(search: SearchSpace, primitives: Primitives) -> Callable[[Programs], Tensor]:
    first = primitives.first_operator
    code = {name: first + i for i, name in enumerate(primitives.operators)}
    limits = {code[name]: limit for name, limit in search.constraints.items() if name in code}
    nested = {
        code[outer]: {code[name]: most for name, most in inner.items() if name in code}
        for outer, inner in search.nested_constraints.items()
        if outer in code
    }
    return lambda programs: admissible(programs, primitives, search.maxsize, limits, nested)


def _starting(texts: tuple[str, ...], data: Data, primitives: Primitives) -> Programs | None:
    encoded = [primitives.encode(parse(text, data.names), data.length) for text in texts]
    usable = [entry for entry in encoded if entry is not None]
    if not usable:
        return None
    device = primitives.arity.device
    return Programs(
        torch.tensor([codes for codes, _ in usable], device=device),
        torch.tensor([values for _, values in usable], device=device),
    )
