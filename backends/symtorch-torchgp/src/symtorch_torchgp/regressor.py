"""The regressor ``torchgp``: genetic programming on tensors, all outputs in one population."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, final

import joblib
import torch
from torch import Tensor

from symtorch_core import Candidate, ParetoFront, Regressor, SearchError, SearchSpace
from symtorch_core.events import (
    Callback,
    OutputFinished,
    OutputImproved,
    OutputInterrupted,
    OutputProgressed,
    Stopwatch,
    notify,
)
from symtorch_core.expressions import Expression, parse, respell, simplify
from symtorch_core.search import (
    AT_ONCE,
    NEVER,
    Deadline,
    build_front,
    end_with_parent,
    one_thread,
    read_start,
    reserve_for_front,
)
from symtorch_torchgp.data.scales import remove_units, restore_units
from symtorch_torchgp.data.task import Task
from symtorch_torchgp.evolution.archive import Archive
from symtorch_torchgp.evolution.progress import Progress, read_progress, write_progress
from symtorch_torchgp.evolution.rounds import Outcome, Round, evolve
from symtorch_torchgp.fitting.scaling import build_expressions
from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import Primitives

_PROGRESS = 0.95
"""A loss counts as progress if it is lower by this factor."""
_WORTH_REPORTING = 0.9
_SHORTEST_ROUND = 16


@final
@dataclass(frozen=True)
class TorchGPRegressor(Regressor):
    """Genetic programming in torch, for all outputs in one population.

    An iteration is a generation: one child for every program of every output that is not solved yet. The search runs
    in rounds. In each, a new population evolves until it stagnates, so that one bad start does not decide the result.
    The best programs of all rounds are kept, and with ``resume=`` written to disk after each round: a search that
    was killed goes on from there, to the same result.

    Attributes:
        population_size: programs for one output; fewer for each where there are many outputs.
        search_rows: rows used by the search, doubled if they turn out to be too few; the core measures the equations
            on all rows.
        islands: rounds that run at the same time, in up to ``n_jobs`` processes.
        n_jobs: processes, as joblib counts; the result does not depend on it.
        start: equations to start from: text in the variables, candidates, or a whole front.
        patience: rounds in succession without progress after which the search ends.
        stop_below: 1 - R2 (on weighted rows, for robust losses) below which an output counts as solved.
        device: the device to search on, for instance ``"cuda"``; None for that of the data.
    """

    name: ClassVar[str] = "torchgp"
    population_size: int = 2000
    search_rows: int = 256
    islands: int = 1
    n_jobs: int = 1
    start: Sequence[str | Candidate] = ()
    patience: int = 3
    stop_below: float = 1e-13
    device: str | None = None

    def __post_init__(self) -> None:
        self.at_least(1, "population_size", "search_rows", "islands", "patience")
        self.at_least(0, "stop_below")
        self.jobs("n_jobs")
        if self.device is not None:
            try:
                torch.device(self.device)
            except (RuntimeError, TypeError):
                raise SearchError(
                    f"torchgp's device must be a device of torch, like 'cpu' or 'cuda', got {self.device!r}"
                ) from None
        object.__setattr__(self, "start", read_start(self.start))

    @one_thread()
    def fit(
        self,
        X: Tensor,
        Y: Tensor,
        *,
        search: SearchSpace,
        variable_names: Sequence[str],
        weights: Tensor | None = None,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        folder: Path | None = None,
    ) -> list[ParetoFront]:
        if not search.operators:
            raise SearchError("torchgp needs at least one operator")
        task = Task(X, Y, weights, search, tuple(variable_names))
        return _Search(self, task, seed, tuple(callbacks), folder).run()


@final
class _Search:
    """Rounds of evolution until the outputs are solved or a limit is reached."""

    def __init__(
        self,
        options: TorchGPRegressor,
        task: Task,
        seed: int,
        callbacks: tuple[Callback, ...],
        folder: Path | None,
    ) -> None:
        self._options, self._task, self._seed, self._callbacks = options, task, seed, callbacks
        self._folder = folder
        self._device = torch.device(options.device) if options.device else task.X.device
        self._primitives = Primitives.of(task.search, task.names, self._device)
        self._columns = range(task.Y.shape[1])
        self._archive = Archive.empty(len(self._columns), task.search.maxsize, task.length, self._device)
        self._given = _encode_start(options.start, task, self._primitives)
        self._fronts: dict[int, ParetoFront] = {}
        self._deadline = NEVER
        self._reported = torch.full_like(self._archive.losses, torch.inf)

    def run(self) -> list[ParetoFront]:
        """Search, and return the front of each output."""
        try:
            self._run_rounds()
            for column in self._list_open():
                self._finish(column)
        except KeyboardInterrupt:
            for column in self._list_open():
                front = self._build_front(column, AT_ONCE)
                notify(self._callbacks, OutputInterrupted(column, front))
            raise
        return [self._fronts[column] for column in self._columns]

    def _list_open(self) -> tuple[int, ...]:
        """Return the outputs without a final front."""
        return tuple(column for column in self._columns if column not in self._fronts)

    def _run_rounds(self) -> None:
        watch, search, now = Stopwatch(), self._task.search, self._read_progress()
        varying = [column for column in self._columns if not self._task.is_constant(column)]
        for column in self._columns:
            if column in now.finished or column not in varying:
                self._finish(column)
        limit, earlier = search.timeout_in_seconds, now.seconds
        budget = None if limit is None else (limit - reserve_for_front(limit)) * len(varying)
        self._deadline = Deadline.after(None if limit is None else limit * len(varying) - earlier)
        while (
            self._list_open()
            and now.generations < search.niterations
            and now.idle < self._options.patience
            and (budget is None or now.seconds < budget)
        ):
            before = self._archive.losses.cummin(1).values
            plan = Round(
                outputs=self._list_open(),
                generations=min(
                    compute_luby(now.turn) * _SHORTEST_ROUND, search.niterations - now.generations
                ),
                seconds=None if budget is None else budget - now.seconds,
                rows=now.rows,
                start=self._choose_start(now.turn),
                seed=self._seed,
                number=now.turn * self._options.islands,
                population_size=self._options.population_size,
                exact_below=self._options.stop_below,
                device=self._device,
            )
            outcomes = self._run_islands(plan, now.generations)
            overfitted = all(outcome.overfitted for outcome in outcomes)
            after = self._archive.losses.cummin(1).values
            now = Progress(
                rows=min(2 * now.rows, len(self._task.X)) if overfitted else now.rows,
                generations=now.generations + max(1, *(outcome.generations for outcome in outcomes)),
                turn=now.turn + 1,
                idle=0 if bool((after < _PROGRESS * before).any()) else now.idle + 1,
                seconds=earlier + watch.seconds(),
                finished=tuple(self._fronts),
            )
            if self._folder is not None:
                write_progress(self._folder, now, self._archive)

    def _read_progress(self) -> Progress:
        """Return how far the search is, and take over the archive of an earlier attempt."""
        kept = None if self._folder is None else read_progress(self._folder, self._device)
        if kept is None:
            return Progress(self._options.search_rows)
        progress, self._archive = kept
        return progress

    def _choose_start(self, turn: int) -> Programs:
        """Return the programs that a round starts from: long rounds also start from the best of all rounds."""
        if turn == 0 or compute_luby(turn) == 1:
            return self._given
        return Programs.cat([self._given, self._archive.select_best(self._list_open()).to_float()])

    def _run_islands(self, plan: Round, before: int) -> list[Outcome]:
        """Run one round on each island."""
        options, share = self._options, 1 / self._task.search.niterations
        plans = [replace(plan, number=plan.number + island) for island in range(options.islands)]

        def report(column: int, archive: Archive, generation: int) -> None:
            notify(self._callbacks, OutputProgressed(column, min(1.0, (before + generation) * share)))
            self._report(column, archive)

        if options.n_jobs != 1 and options.islands > 1:
            jobs = (joblib.delayed(evolve)(self._task, one, None) for one in plans)
            results = joblib.Parallel(
                n_jobs=options.n_jobs,
                return_as="generator",
                initializer=end_with_parent,
                initargs=(os.getpid(),),
            )(jobs)
        else:
            results = (evolve(self._task, one, report if self._callbacks else None) for one in plans)
        outcomes: list[Outcome] = []
        for result in results:
            outcomes.append(result)
            for position, column in enumerate(plan.outputs):
                if column not in self._fronts:
                    self._archive.merge(column, result.archive, position)
            if result.interrupted:
                raise KeyboardInterrupt
            for column in result.solved:
                if column not in self._fronts:
                    self._finish(column)
            if not self._list_open():
                break
        return outcomes

    def _finish(self, column: int) -> None:
        """Build the final front of an output, and report it."""
        self._fronts[column] = self._build_front(column, self._deadline.share(len(self._list_open())))
        notify(self._callbacks, OutputFinished(column, self._fronts[column]))

    def _build_front(self, column: int, deadline: Deadline) -> ParetoFront:
        """Return the front of an output from the programs of the archive."""
        programs = self._archive.select_best([column])
        rows = self._task.select_rows(
            [column], self._task.sample_judging_rows(), programs.codes.device, torch.float64
        )
        found = map(self._restore, build_expressions(programs, self._primitives, rows))
        X, y, weights = self._task.to_arrays(column)
        return build_front(found, X, y, self._task.search, self._task.names, weights, deadline)

    def _report(self, column: int, archive: Archive) -> None:
        """Report every equation that is clearly better than all reported ones of up to its size."""
        reported = self._reported[column].cummin(0).values
        better = (archive.losses[0] < _WORTH_REPORTING * reported).nonzero()[:, 0]
        if len(better) == 0:
            return
        rows = self._task.select_rows(
            [column], self._task.sample_rows(self._options.search_rows, 0), reported.device, torch.float64
        )
        equations = build_expressions(archive.get_programs(0, better), self._primitives, rows)
        for size, equation in zip(better.tolist(), equations, strict=True):
            loss = float(archive.losses[0, size])
            if loss < _WORTH_REPORTING * float(self._reported[column, : size + 1].min()):
                self._reported[column, size] = loss
                text = str(simplify(self._restore(equation)))
                notify(self._callbacks, OutputImproved(column, text, loss, size))

    def _restore(self, equation: Expression) -> Expression:
        """Return an equation of the search in the units of the data."""
        return restore_units(equation, self._task.names, self._task.scales)


def compute_luby(turn: int) -> int:
    """Return the length of a round, in units of the shortest: 1, 1, 2, 1, 1, 2, 4, ...

    If the time that a run needs varies widely, restarts of these lengths are within a logarithmic factor of the best
    possible ones (Luby, Sinclair and Zuckerman 1993).

    Args:
        turn: number of the round, from 0.

    >>> [compute_luby(turn) for turn in range(15)]
    [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]
    """
    number, size = turn + 1, 1
    while size < number:
        size = 2 * size + 1
    while size != number:
        size //= 2
        number = number if number <= size else number - size
    return (size + 1) // 2


def _encode_start(given: Sequence[str | Candidate], task: Task, primitives: Primitives) -> Programs:
    """Return given equations as programs.

    Raises:
        SearchError: an equation does not fit the operators or the maxsize of the search.
    """
    encoded = []
    for text in map(str, given):
        scaled = remove_units(parse(text, task.names), task.names, task.scales)
        equation = respell(scaled, primitives.operators)
        entry = primitives.encode(equation, task.length)
        if entry is None:
            raise SearchError(
                f"cannot start from {text!r}: it needs operators that the search does not have, or is too long"
            )
        encoded.append(entry)
    device, shape = primitives.arity.device, (len(encoded), task.length)
    return Programs(
        torch.tensor([codes for codes, _ in encoded], dtype=torch.long, device=device).view(shape),
        torch.tensor([values for _, values in encoded], dtype=torch.float32, device=device).view(shape),
    )
