"""The regressor ``torchgp``: genetic programming on tensors, all outputs in one population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import joblib
import torch
from torch import Tensor

from symtorch_core import ParetoFront, Regressor, SearchError, SearchSpace
from symtorch_core.events import Callback, OutputFinished, OutputImproved, OutputProgressed, notify
from symtorch_core.expression import Expression, parse, simplify
from symtorch_core.refine import build_front
from symtorch_core.timing import Stopwatch
from symtorch_torchgp.evolution import Archive
from symtorch_torchgp.primitives import Primitives
from symtorch_torchgp.rounds import Data, Round, evolve


@final
@dataclass(frozen=True)
class TorchGPRegressor(Regressor):
    """Genetic programming in torch.

    An iteration is a generation: one child for every program of every output that is not solved yet. The search
    goes in rounds: a fresh population evolves until it stagnates, and the next round starts anew, so that one bad
    start does not decide; what was best in any round is kept.

    Attributes:
        population_size: programs for one output; fewer each where there are many outputs.
        search_rows: rows looked at while searching; everything is measured on all rows in the end.
        islands: rounds that run beside each other, in up to ``n_jobs`` processes.
        n_jobs: processes; the result does not depend on it.
        start: equations to start from, as text in the variables.
        device: where to search, ``"cuda"`` say; None is where the data are.
    """

    name: ClassVar[str] = "torchgp"
    population_size: int = 1000
    search_rows: int = 512
    islands: int = 1
    n_jobs: int = 1
    start: tuple[str, ...] = ()
    device: str | None = None

    def __post_init__(self) -> None:
        for option in ("population_size", "search_rows", "islands"):
            if getattr(self, option) < 1:
                raise SearchError(f"{option} must be at least 1")

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
    ) -> list[ParetoFront]:
        if not search.operators:
            raise SearchError("torchgp needs at least one operator")
        if search.parsimony > 0:
            raise SearchError(
                "torchgp has no parsimony: it keeps the best program at every complexity, so leave it at 0"
            )
        for text in self.start:
            self._check_start(text, search, variable_names)
        data = Data(X, Y, weights, search, tuple(variable_names))
        return _Search(self, data, seed, tuple(callbacks)).run()

    def _check_start(self, text: str, search: SearchSpace, names: Sequence[str]) -> None:
        primitives = Primitives.of(search, names, torch.device("cpu"))
        if primitives.encode(parse(text, names), search.maxsize) is None:
            raise SearchError(
                f"cannot start from {text!r}: it needs operators that the search does not have, or is too long"
            )


@final
class _Search:
    """Rounds of evolution until time, effort or everything is done."""

    def __init__(
        self, options: TorchGPRegressor, data: Data, seed: int, callbacks: tuple[Callback, ...]
    ) -> None:
        self._options, self._data, self._seed, self._callbacks = options, data, seed, callbacks
        device = torch.device(options.device) if options.device else data.X.device
        self._primitives = Primitives.of(data.search, data.names, device)
        self._archive = Archive.empty(data.Y.shape[1], data.search.maxsize, data.length, device)
        self._fronts: dict[int, ParetoFront] = {}
        self._told = [float("inf")] * data.Y.shape[1]

    def run(self) -> list[ParetoFront]:
        """The front of each output."""
        watch, search = Stopwatch(), self._data.search
        outputs = []
        for column in range(self._data.Y.shape[1]):
            if self._data.is_constant(column):
                self._finish(column)
            else:
                outputs.append(column)
        budget = None if search.timeout_in_seconds is None else search.timeout_in_seconds * len(outputs)
        generations = number = 0
        while outputs and generations < search.niterations:
            left = None if budget is None else budget - watch.seconds()
            if left is not None and left <= 0:
                break
            plan = Round(tuple(outputs), search.niterations - generations, left, self._seed, number)
            generations += self._batch(plan, generations)
            number += self._options.islands
            outputs = [column for column in outputs if column not in self._fronts]
        for column in outputs:
            self._finish(column)
        return [self._fronts[column] for column in range(self._data.Y.shape[1])]

    def _batch(self, plan: Round, before: int) -> int:
        """Run one round on each island; returns the most generations one of them took."""
        options = self._options
        plans = [replace(plan, number=plan.number + island) for island in range(options.islands)]
        parallel = options.n_jobs != 1 and options.islands > 1

        def live(column: int, program: Expression, loss: float, generation: int) -> None:
            self._tell(column, program, loss, (before + generation) / self._data.search.niterations)

        if parallel:
            jobs = (joblib.delayed(evolve)(self._data, options, one, None) for one in plans)
            results = joblib.Parallel(n_jobs=options.n_jobs, return_as="generator")(jobs)
        else:
            results = (evolve(self._data, options, one, live if self._callbacks else None) for one in plans)
        most, open_outputs = 0, list(plan.outputs)
        for result in results:
            most = max(most, result.generations)
            for position, column in enumerate(plan.outputs):
                if column in open_outputs:
                    self._archive.take(column, result.archive, position)
            for column in result.solved:
                if column in open_outputs:
                    open_outputs.remove(column)
                    self._finish(column)
            if not open_outputs:
                break
        return max(most, 1)

    def _finish(self, column: int) -> None:
        """Build the front of an output from what the archive holds."""
        found, best = [], float("inf")
        for size, loss in enumerate(self._archive.losses[column].tolist()):
            if loss < best:
                best = loss
                codes, values = self._archive.codes[column, size], self._archive.values[column, size]
                found.append(self._primitives.decode(codes.tolist(), values.double().tolist()))
        X, y, weights = self._data.arrays(column)
        front = build_front(found, X, y, self._data.search, self._data.names, weights)
        self._fronts[column] = front
        notify(self._callbacks, OutputFinished(column, front))

    def _tell(self, column: int, program: Expression, loss: float, fraction: float) -> None:
        notify(self._callbacks, OutputProgressed(column, min(fraction, 1.0)))
        if loss < 0.99 * self._told[column]:
            self._told[column] = loss
            notify(self._callbacks, OutputImproved(column, str(simplify(program)), loss))
