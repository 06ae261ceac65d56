"""One round of the search: a fresh population that evolves until it stagnates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.events import Stopwatch
from symtorch_core.search import one_thread
from symtorch_torchgp.data import Data
from symtorch_torchgp.evaluation import values_of
from symtorch_torchgp.evolution import Archive, Population
from symtorch_torchgp.fitting import Rows, fit_constants, scaled
from symtorch_torchgp.primitives import Primitives
from symtorch_torchgp.programs import Programs
from symtorch_torchgp.variation import Sampler, admissible

if TYPE_CHECKING:
    from symtorch_torchgp.regressor import TorchGPRegressor

_NEARLY_EXACT = 1e-9
"""1 - R2 at which a program is polished in double precision: it may be exact."""
_POLISHED = 4
_POLISH_STEPS = 8
_STAGNATION = 16
_PROGRESS = 0.98
_AFTER_SOLVING = 3
"""Generations granted to a solved output, in which it may find a shorter form."""
_FEWEST_PROGRAMS = 150
_OVERFITTED = 1.2
"""A loss so many times larger on the judging rows tells that too few rows are looked at."""

Live = Callable[[int, Archive, int], None]
"""Told of an output's best programs after a generation: (output, archive of that output alone, generation)."""


@final
@dataclass(frozen=True)
class Round:
    """The task of one round.

    Attributes:
        outputs: columns to search.
        generations: at most so many.
        seconds: at most so many; None for no limit.
        rows: how many to look at.
        start: programs to start from, besides random ones; None for none.
        seed: of the whole search.
        number: of this round; with ``seed`` it decides every random choice.
    """

    outputs: tuple[int, ...]
    generations: int
    seconds: float | None
    rows: int
    start: Programs | None
    seed: int
    number: int


@final
@dataclass(frozen=True)
class Outcome:
    """What a round found.

    Attributes:
        archive: of its outputs, in the round's order, with losses on the judging rows.
        solved: outputs with an equation that is exact there.
        generations: how many it took.
        overfitted: whether programs did clearly better on the rows looked at than on the judging rows.
        interrupted: whether the user stopped it.
    """

    archive: Archive
    solved: tuple[int, ...]
    generations: int
    overfitted: bool
    interrupted: bool


@one_thread()
def evolve(data: Data, options: TorchGPRegressor, task: Round, live: Live | None) -> Outcome:
    """Run one round.

    Args:
        data: what the search is about.
        options: of the regressor.
        task: which outputs, how long, which seed.
        live: told of the best programs after each generation; None for nobody.
    """
    return _Evolution(data, options, task).run(live)


@final
class _Evolution:
    """A population and what is known of it."""

    def __init__(self, data: Data, options: TorchGPRegressor, task: Round) -> None:
        self._data, self._task, self._exact_below = data, task, options.stop_below
        self._device = torch.device(options.device) if options.device else data.X.device
        first, second = np.random.SeedSequence([task.seed, task.number]).generate_state(2)
        generator = torch.Generator(self._device).manual_seed(int(first))
        self._primitives = Primitives.of(data.search, data.names, self._device)
        self._active = list(task.outputs)
        self._population = Population(
            data.rows(self._active, data.sample(task.rows, int(second)), self._device, torch.float32),
            self._primitives,
            Sampler(self._primitives, data.length, generator, self._device, data.levels(self._device)),
            max(_FEWEST_PROGRAMS, round(options.population_size / len(self._active) ** 0.5)),
            data.search.maxsize,
            _admission(data.search, self._primitives),
            data.penalty(self._active).to(self._device),
            task.start,
        )
        self._result = Archive.empty(len(self._active), data.search.maxsize, data.length, self._device)
        self._solved: dict[int, int] = {}  # output -> generation in which it was
        self._polished: dict[int, float] = {}  # output -> best loss when it was last polished

    def run(self, live: Live | None) -> Outcome:
        """Evolve until everything is solved, nothing improves, or the limits of the task are reached."""
        generations, interrupted = 0, False
        try:
            for generations in self._generations():
                if live is not None:
                    for position, output in enumerate(self._active):
                        live(output, self._archive_of(position), generations)
        except KeyboardInterrupt:
            interrupted = True
        overfitted = self._store(self._active)
        return Outcome(self._result, tuple(self._solved), generations, overfitted, interrupted)

    def _generations(self) -> Iterator[int]:
        """Evolve, and yield the number of each generation when it is over."""
        watch, task = Stopwatch(), self._task
        best, since, generation = self._best(), 0, 0
        while self._active and generation < task.generations and since < _STAGNATION:
            if task.seconds is not None and watch.seconds() > task.seconds:
                return
            self._population.step()
            generation += 1
            now = self._best()
            since = 0 if bool((now < _PROGRESS * best).any()) or self._solved else since + 1
            best = torch.minimum(best, now)
            for output in self._exact():
                self._solved[output] = generation
            yield generation
            best = best[self._retire(generation)]

    def _archive_of(self, position: int) -> Archive:
        return self._population.archive.of_outputs(torch.tensor([position], device=self._device))

    def _best(self) -> Tensor:
        return self._population.archive.losses.amin(1)

    def _retire(self, generation: int) -> Tensor:
        """Store outputs that were solved a while ago; returns positions of those that go on."""
        done = [c for c in self._active if generation - self._solved.get(c, generation) >= _AFTER_SOLVING]
        left = [position for position, column in enumerate(self._active) if column not in done]
        positions = torch.tensor(left, dtype=torch.long, device=self._device)
        if done:
            self._store(done)
            self._active = [self._active[position] for position in left]
            if left:
                self._population.keep(positions)
        return positions

    def _exact(self) -> list[int]:
        """Outputs that are found to be solved, their best programs polished in double precision."""
        archive, found = self._population.archive, []
        for position, loss in enumerate(self._best().tolist()):
            output = self._active[position]
            if output in self._solved or loss > min(
                max(_NEARLY_EXACT, self._exact_below), 0.5 * self._polished.get(output, 1.0)
            ):
                continue
            near = (archive.losses[position] < 1e3 * loss + self._exact_below).nonzero()[:, 0]
            near = near[archive.losses[position, near].argsort()[:_POLISHED]]
            rows = self._judging(output)
            programs, owner = archive.programs(position, near), torch.zeros_like(near)
            programs = fit_constants(programs, owner, self._primitives, rows, _POLISH_STEPS)
            losses = self._losses(programs, rows)
            better = losses < archive.losses[position, near]
            archive.values[position, near[better]] = programs.values[better]
            archive.losses[position, near[better]] = losses[better]
            self._polished[output] = float(archive.losses[position].min())
            if float(losses.min()) < self._exact_below:
                found.append(output)
        return found

    def _judging(self, output: int) -> Rows:
        return self._data.rows([output], self._data.judging_sample(), self._device, torch.float64)

    def _losses(self, programs: Programs, rows: Rows) -> Tensor:
        values = values_of(programs, self._primitives, rows.columns)
        return scaled(values, rows.targets.expand_as(values), rows.weights.expand_as(values)).loss

    def _store(self, outputs: list[int]) -> bool:
        """Keep the archive of outputs, judged; returns whether they did better on the rows looked at."""
        worse = []
        for output in outputs:
            position = self._active.index(output)
            archive = self._archive_of(position)
            known = torch.isfinite(archive.losses[0]).nonzero()[:, 0]
            if len(known) == 0:  # inputs that are all constant
                continue
            losses = self._losses(archive.programs(0, known), self._judging(output))
            best = archive.losses[0, known].argmin()
            worse.append(
                float(losses[best]) > _OVERFITTED * float(archive.losses[0, known][best]) + self._exact_below
            )
            archive.losses[0, known] = losses
            self._result.take(self._task.outputs.index(output), archive, 0)
        return 2 * sum(worse) > len(worse)


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
