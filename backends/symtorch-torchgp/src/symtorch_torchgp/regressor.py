"""The regressor ``torchgp``: genetic programming on tensors, all outputs in one population."""

from __future__ import annotations

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
from symtorch_core.expressions import parse, respell, simplify
from symtorch_core.search import build_front, one_thread
from symtorch_torchgp.data import Data
from symtorch_torchgp.evolution import Archive
from symtorch_torchgp.fitting import materialised
from symtorch_torchgp.primitives import Primitives
from symtorch_torchgp.programs import Programs
from symtorch_torchgp.rounds import Outcome, Round, evolve

_PROGRESS = 0.95
"""A loss that is not lower by this factor is no progress."""
_WORTH_TELLING = 0.9
_FOR_FRONTS = 0.1
"""Share of a time limit that is left for building the fronts."""
_SHORTEST_ROUND = 16


@final
@dataclass(frozen=True)
class TorchGPRegressor(Regressor):
    """Genetic programming in torch.

    An iteration is a generation: one child for every program of every output that is not solved yet. The search
    goes in rounds: a fresh population evolves until it stagnates, and the next round starts anew, so that one bad
    start does not decide; what was best in any round is kept.

    Attributes:
        population_size: programs for one output; fewer each where there are many outputs.
        search_rows: rows looked at while searching, doubled when they turn out to be too few; everything is measured
            on all rows in the end.
        islands: rounds that run beside each other, in up to ``n_jobs`` processes.
        n_jobs: processes; the result does not depend on it.
        start: equations to start from: text in the variables, candidates, or a whole front.
        patience: rounds in succession without progress after which the search is over.
        stop_below: 1 - R2 (on weighted rows, for robust losses) at which an output counts as solved.
        device: where to search, ``"cuda"`` say; None is where the data are.
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
        for option in ("population_size", "search_rows", "islands", "patience"):
            if getattr(self, option) < 1:
                raise SearchError(f"{option} must be at least 1")
        if isinstance(self.start, str):
            raise SearchError(f"start takes a list of equations, like ({self.start!r},)")
        texts = (item if isinstance(item, str) else item.text(None) for item in self.start)
        object.__setattr__(self, "start", tuple(texts))

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
        search.refuse_definitions("torchgp")
        if not search.operators:
            raise SearchError("torchgp needs at least one operator")
        data = Data(X, Y, weights, search, tuple(variable_names))
        return _Search(self, data, seed, tuple(callbacks)).run()


@final
class _Search:
    """Rounds of evolution until time, effort or everything is done."""

    def __init__(
        self, options: TorchGPRegressor, data: Data, seed: int, callbacks: tuple[Callback, ...]
    ) -> None:
        self._options, self._data, self._seed, self._callbacks = options, data, seed, callbacks
        device = torch.device(options.device) if options.device else data.X.device
        self._primitives = Primitives.of(data.search, data.names, device)
        self._columns = range(data.Y.shape[1])
        self._archive = Archive.empty(len(self._columns), data.search.maxsize, data.length, device)
        self._penalty = data.penalty(list(self._columns)).to(device)
        self._given = _starting(options.start, data, self._primitives)
        self._fronts: dict[int, ParetoFront] = {}
        self._told = torch.full_like(self._archive.losses, torch.inf)

    def run(self) -> list[ParetoFront]:
        """The front of each output."""
        try:
            self._rounds()
            for column in self._open():
                self._finish(column)
        except KeyboardInterrupt:
            for column in self._open():
                front = self._front(column, replace(self._data.search, refine=False))
                notify(self._callbacks, OutputInterrupted(column, front))
            raise
        return [self._fronts[column] for column in self._columns]

    def _open(self) -> tuple[int, ...]:
        """Outputs without a final front."""
        return tuple(column for column in self._columns if column not in self._fronts)

    def _rounds(self) -> None:
        watch, search = Stopwatch(), self._data.search
        for column in self._columns:
            if self._data.is_constant(column):
                self._finish(column)
        limit = search.timeout_in_seconds
        budget = None if limit is None else (1 - _FOR_FRONTS) * limit * len(self._open())
        rows, generations, turn, idle = self._options.search_rows, 0, 0, 0
        while self._open() and generations < search.niterations and idle < self._options.patience:
            left = None if budget is None else budget - watch.seconds()
            if left is not None and left <= 0:
                break
            before = self._archive.losses.cummin(1).values
            plan = Round(
                outputs=self._open(),
                generations=min(luby(turn) * _SHORTEST_ROUND, search.niterations - generations),
                seconds=left,
                rows=rows,
                start=self._start(turn),
                seed=self._seed,
                number=turn * self._options.islands,
            )
            outcomes = self._batch(plan, generations)
            generations += max(1, *(outcome.generations for outcome in outcomes))
            turn += 1
            if all(outcome.overfitted for outcome in outcomes):
                rows = min(2 * rows, len(self._data.X))
            after = self._archive.losses.cummin(1).values
            idle = 0 if bool((after < _PROGRESS * before).any()) else idle + 1

    def _start(self, turn: int) -> Programs:
        """What a round starts from: long ones go on with the best of all rounds, short ones try their luck."""
        if turn == 0 or luby(turn) == 1:
            return self._given
        return Programs.cat([self._given, self._archive.best(self._open(), self._penalty).float()])

    def _batch(self, plan: Round, before: int) -> list[Outcome]:
        """Run one round on each island."""
        options, share = self._options, 1 / self._data.search.niterations
        plans = [replace(plan, number=plan.number + island) for island in range(options.islands)]

        def live(column: int, archive: Archive, generation: int) -> None:
            notify(self._callbacks, OutputProgressed(column, min(1.0, (before + generation) * share)))
            self._tell(column, archive)

        if options.n_jobs != 1 and options.islands > 1:
            jobs = (joblib.delayed(evolve)(self._data, options, one, None) for one in plans)
            results = joblib.Parallel(n_jobs=options.n_jobs, return_as="generator")(jobs)
        else:
            results = (evolve(self._data, options, one, live if self._callbacks else None) for one in plans)
        outcomes: list[Outcome] = []
        for result in results:
            outcomes.append(result)
            for position, column in enumerate(plan.outputs):
                if column not in self._fronts:
                    self._archive.take(column, result.archive, position)
            if result.interrupted:
                raise KeyboardInterrupt
            for column in result.solved:
                if column not in self._fronts:
                    self._finish(column)
            if not self._open():
                break
        return outcomes

    def _finish(self, column: int) -> None:
        """Build the final front of an output."""
        self._fronts[column] = self._front(column, self._data.search)
        notify(self._callbacks, OutputFinished(column, self._fronts[column]))

    def _front(self, column: int, search: SearchSpace) -> ParetoFront:
        """The front of an output from what the archive holds."""
        programs = self._archive.best([column], self._penalty)
        rows = self._data.rows([column], self._data.judging_sample(), programs.codes.device, torch.float64)
        found = materialised(programs, self._primitives, rows)
        X, y, weights = self._data.arrays(column)
        return build_front(found, X, y, search, self._data.names, weights)

    def _tell(self, column: int, archive: Archive) -> None:
        """Tell of every equation that is clearly better than all told of its size and simpler."""
        told = self._told[column].cummin(0).values
        better = (archive.losses[0] < _WORTH_TELLING * told).nonzero()[:, 0]
        if len(better) == 0:
            return
        rows = self._data.rows(
            [column], self._data.sample(self._options.search_rows, 0), told.device, torch.float64
        )
        equations = materialised(archive.programs(0, better), self._primitives, rows)
        for size, equation in zip(better.tolist(), equations, strict=True):
            loss = float(archive.losses[0, size])
            if loss < _WORTH_TELLING * float(self._told[column, : size + 1].min()):
                self._told[column, size] = loss
                notify(self._callbacks, OutputImproved(column, str(simplify(equation)), loss, size))


def luby(turn: int) -> int:
    """Length of the round of that number, from 0, in units of the shortest: 1, 1, 2, 1, 1, 2, 4, ...

    Where one run may be lucky at once or never, restarts of these lengths are within a logarithm of the best possible
    (Luby, Sinclair and Zuckerman 1993).

    >>> [luby(turn) for turn in range(15)]
    [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]
    """
    number, size = turn + 1, 1
    while size < number:
        size = 2 * size + 1
    while size != number:
        size //= 2
        number = number if number <= size else number - size
    return (size + 1) // 2


def _starting(given: Sequence[str | Candidate], data: Data, primitives: Primitives) -> Programs:
    """Given equations as programs.

    Raises:
        SearchError: one cannot be had under the search's operators and maxsize.
    """
    encoded = []
    for text in map(str, given):
        equation = respell(parse(text, data.names), primitives.operators)
        entry = primitives.encode(equation, data.length)
        if entry is None:
            raise SearchError(
                f"cannot start from {text!r}: it needs operators that the search does not have, or is too long"
            )
        encoded.append(entry)
    device, shape = primitives.arity.device, (len(encoded), data.length)
    return Programs(
        torch.tensor([codes for codes, _ in encoded], dtype=torch.long, device=device).view(shape),
        torch.tensor([values for _, values in encoded], dtype=torch.float32, device=device).view(shape),
    )
