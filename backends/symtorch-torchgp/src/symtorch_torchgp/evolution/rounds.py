"""One round of the search: a fresh population that evolves until it stagnates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.events import Stopwatch
from symtorch_core.search import one_thread
from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.data.task import Task
from symtorch_torchgp.evaluation.evaluator import compute_values
from symtorch_torchgp.evolution.archive import Archive
from symtorch_torchgp.evolution.population import Population
from symtorch_torchgp.fitting.constants import fit_constants
from symtorch_torchgp.fitting.scaling import fit_scaling
from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import Primitives
from symtorch_torchgp.variation.limits import make_filter
from symtorch_torchgp.variation.sampler import Sampler

_NEARLY_EXACT = 1e-9
"""1 - R2 below which a program may be exact, so that its constants are fitted in double precision."""
_POLISHED = 4
_POLISH_STEPS = 8
_STAGNATION = 16
_PROGRESS = 0.98
_AFTER_SOLVING = 3
"""Generations for which a solved output goes on, to find a shorter form."""
_FEWEST_PROGRAMS = 150
_OVERFITTED = 1.2
"""Loss on the judging rows, over that on the search rows, from which the search rows are too few."""

Report = Callable[[int, Archive, int], None]
"""Called after each generation for each output: (output, archive of that output alone, generation)."""


@final
@dataclass(frozen=True)
class Round:
    """The plan of one round.

    Attributes:
        outputs: columns to search.
        generations: the largest number of generations.
        seconds: the time limit; None for no limit.
        rows: number of rows to search on.
        start: programs to start from, besides random ones; None for none.
        seed: seed of the whole search.
        number: number of the round; together with ``seed`` it decides every random choice.
        population_size: programs for one output; fewer for each where there are many outputs.
        exact_below: 1 - R2 below which an output is solved.
        device: the device to search on.
    """

    outputs: tuple[int, ...]
    generations: int
    seconds: float | None
    rows: int
    start: Programs | None
    seed: int
    number: int
    population_size: int
    exact_below: float
    device: torch.device


@final
@dataclass(frozen=True)
class Outcome:
    """The result of a round.

    Attributes:
        archive: archive of the round's outputs, in their order, with losses on the judging rows.
        solved: outputs with an equation that is exact on these rows.
        generations: number of generations.
        overfitted: whether losses on the search rows were clearly lower than on the judging rows.
        interrupted: whether the user stopped the round.
    """

    archive: Archive
    solved: tuple[int, ...]
    generations: int
    overfitted: bool
    interrupted: bool


@one_thread()
def evolve(task: Task, plan: Round, report: Report | None) -> Outcome:
    """Run one round.

    Args:
        task: the task of the search.
        plan: the plan of the round.
        report: called with the best programs after each generation, if not None.
    """
    return _Evolution(task, plan).run(report)


@final
class _Evolution:
    """The state of a round."""

    def __init__(self, task: Task, plan: Round) -> None:
        self._task, self._plan = task, plan
        self._exact_below, self._device = plan.exact_below, plan.device
        first, second = np.random.SeedSequence([plan.seed, plan.number]).generate_state(2)
        generator = torch.Generator(self._device).manual_seed(int(first))
        self._primitives = Primitives.of(task.search, task.names, self._device)
        self._active = list(plan.outputs)
        self._population = Population(
            task.select_rows(
                self._active, task.sample_rows(plan.rows, int(second)), self._device, task.dtype
            ),
            self._primitives,
            Sampler(
                self._primitives, task.length, generator, self._device, task.collect_levels(self._device)
            ),
            max(_FEWEST_PROGRAMS, round(plan.population_size / len(self._active) ** 0.5)),
            task.search.maxsize,
            make_filter(task.search, self._primitives),
            task.search.parsimony,
            plan.start,
        )
        self._result = Archive.empty(len(self._active), task.search.maxsize, task.length, self._device)
        self._solved: dict[int, int] = {}  # output -> generation in which it was solved
        self._polished: dict[int, float] = {}  # output -> best loss after its last fit in double precision

    def run(self, report: Report | None) -> Outcome:
        """Evolve until all outputs are solved, nothing improves, or a limit of the plan is reached."""
        generations, interrupted = 0, False
        try:
            for generations in self._run_generations():
                if report is not None:
                    for position, output in enumerate(self._active):
                        report(output, self._get_archive(position), generations)
        except KeyboardInterrupt:
            interrupted = True
        overfitted = self._store_archives(self._active)
        return Outcome(self._result, tuple(self._solved), generations, overfitted, interrupted)

    def _run_generations(self) -> Iterator[int]:
        """Evolve, and yield the number of each generation at its end."""
        watch, plan = Stopwatch(), self._plan
        best, since, generation = self._get_best_losses(), 0, 0
        while self._active and generation < plan.generations and since < _STAGNATION:
            if plan.seconds is not None and watch.seconds() > plan.seconds:
                return
            self._population.step()
            generation += 1
            now = self._get_best_losses()
            since = 0 if bool((now < _PROGRESS * best).any()) or self._solved else since + 1
            best = torch.minimum(best, now)
            for output in self._find_exact():
                self._solved[output] = generation
            yield generation
            best = best[self._retire_solved(generation)]

    def _get_archive(self, position: int) -> Archive:
        return self._population.archive.select_outputs(torch.tensor([position], device=self._device))

    def _get_best_losses(self) -> Tensor:
        return self._population.archive.losses.amin(1)

    def _retire_solved(self, generation: int) -> Tensor:
        """Store outputs that have been solved for some generations, and return the positions of the others."""
        done = [c for c in self._active if generation - self._solved.get(c, generation) >= _AFTER_SOLVING]
        left = [position for position, column in enumerate(self._active) if column not in done]
        positions = torch.tensor(left, dtype=torch.long, device=self._device)
        if done:
            self._store_archives(done)
            self._active = [self._active[position] for position in left]
            if left:
                self._population.keep_outputs(positions)
        return positions

    def _find_exact(self) -> list[int]:
        """Return the newly solved outputs, after a fit of nearly exact programs in double precision."""
        archive, found = self._population.archive, []
        for position, loss in enumerate(self._get_best_losses().tolist()):
            output = self._active[position]
            if output in self._solved or loss > min(
                max(_NEARLY_EXACT, self._exact_below), 0.5 * self._polished.get(output, 1.0)
            ):
                continue
            near = (archive.losses[position] < 1e3 * loss + self._exact_below).nonzero()[:, 0]
            near = near[archive.losses[position, near].argsort()[:_POLISHED]]
            rows = self._select_judging_rows(output)
            programs, owner = archive.get_programs(position, near), torch.zeros_like(near)
            programs = fit_constants(programs, owner, self._primitives, rows, _POLISH_STEPS)
            losses = self._compute_losses(programs, rows)
            better = losses < archive.losses[position, near]
            archive.values[position, near[better]] = programs.values[better]
            archive.losses[position, near[better]] = losses[better]
            self._polished[output] = float(archive.losses[position].min())
            if float(losses.min()) < self._exact_below:
                found.append(output)
        return found

    def _select_judging_rows(self, output: int) -> Rows:
        return self._task.select_rows([output], self._task.sample_judging_rows(), self._device, torch.float64)

    def _compute_losses(self, programs: Programs, rows: Rows) -> Tensor:
        values = compute_values(programs, self._primitives, rows.columns)
        return fit_scaling(values, rows.targets.expand_as(values), rows.weights.expand_as(values)).loss

    def _store_archives(self, outputs: list[int]) -> bool:
        """Store the archives of outputs with losses on the judging rows, and return whether most were overfitted."""
        worse = []
        for output in outputs:
            position = self._active.index(output)
            archive = self._get_archive(position)
            known = torch.isfinite(archive.losses[0]).nonzero()[:, 0]
            if len(known) == 0:  # all inputs are constant
                continue
            losses = self._compute_losses(archive.get_programs(0, known), self._select_judging_rows(output))
            best = archive.losses[0, known].argmin()
            worse.append(
                float(losses[best]) > _OVERFITTED * float(archive.losses[0, known][best]) + self._exact_below
            )
            archive.losses[0, known] = losses
            self._result.merge(self._plan.outputs.index(output), archive, 0)
        return 2 * sum(worse) > len(worse)
