"""Operon behind the core's interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import joblib
import numpy as np
import torch

from symtorch_core import OutputwiseRegressor, Problem, SearchError, SearchSpace
from symtorch_core.expressions import Expression, evaluate
from symtorch_operon.engine import Evolution, Settings
from symtorch_operon.harvest import Harvest
from symtorch_operon.island import Island, admits_scaled, columns_of
from symtorch_operon.symbols import symbols_for


@final
@dataclass(frozen=True)
class OperonRegressor(OutputwiseRegressor):
    """Genetic programming in C++ with local search of the constants, on a sample of the rows.

    An iteration is a generation. The iterations are split among ``islands`` populations that evolve one after
    the other from different starts: a population that settles on a wrong form does not leave it, a new one
    may.

    Operon minimises squares. For another loss, each island looks at rows drawn by how much they count in that
    loss, given the residuals that the best equation of the island before leaves: reweighted least squares, by
    sampling.

    Attributes:
        population_size: trees in a population, and new trees in each generation.
        islands: populations, each with its share of the iterations.
        search_rows: rows the search looks at; the core measures what was found on all rows.
        local_iterations: Levenberg-Marquardt steps on the constants of a new tree; 0 for none.
        local_probability: how many of the new trees get them, 0..1.
        mutation_probability: how many of the new trees are mutated after crossover, 0..1.
        tournament_size: trees among which a parent is the best.
        max_length: largest number of nodes in a tree; None for the search's maxsize. Weights of variables and
            the final scaling do not count here, so that many a tree of that length is larger than maxsize in
            the core's count.
        threads: threads of one search; 0 for all cores, shared among the jobs. Does not change the result.
        n_jobs: outputs searched at the same time, as joblib counts.

    >>> OperonRegressor(population_size=500).name
    'operon'
    """

    name: ClassVar[str] = "operon"

    population_size: int = 500
    islands: int = 4
    search_rows: int = 512
    local_iterations: int = 5
    local_probability: float = 1.0
    mutation_probability: float = 0.25
    tournament_size: int = 5
    max_length: int | None = None
    threads: int = 0
    n_jobs: int = 1

    def __post_init__(self) -> None:
        for option, least in (
            ("population_size", 2),
            ("islands", 1),
            ("search_rows", 2),
            ("tournament_size", 1),
        ):
            if getattr(self, option) < least:
                raise SearchError(f"operon's {option} must be at least {least}, got {getattr(self, option)}")
        for option in ("local_probability", "mutation_probability"):
            if not 0.0 <= getattr(self, option) <= 1.0:
                raise SearchError(f"operon's {option} must be between 0 and 1, got {getattr(self, option)}")

    def check(self, search: SearchSpace) -> None:
        symbols_for(search.operators)
        if not search.operators:
            raise SearchError("operon needs at least one operator")
        if search.parsimony:
            raise SearchError(
                "operon has no parsimony: it weighs accuracy against length by Pareto ranks; leave it at 0"
            )

    def search(self, problem: Problem) -> Iterable[Expression]:
        return _Search(self, problem).run()

    def threads_per_job(self) -> int:
        """Threads for the search of one output."""
        return self.threads or max(1, joblib.cpu_count() // joblib.effective_n_jobs(self.n_jobs))


@final
class _Search:
    """The search for one output: islands one after the other, and what they leave behind."""

    def __init__(self, options: OperonRegressor, problem: Problem) -> None:
        self._options, self._problem = options, problem
        self._started = time.monotonic()
        self._columns = columns_of(problem.X, problem.variable_names)
        self._residual = problem.y - np.median(problem.y)
        self._solved = False

    def run(self) -> list[Expression]:
        iterations = self._problem.search.niterations
        shares = [len(share) for share in np.array_split(np.arange(iterations), self._options.islands)]
        found: list[Expression] = []
        for number, generations in enumerate(shares):
            if generations == 0 or self._solved or self._late():
                break
            found += self._settle(number, generations, sum(shares[:number]))
        self._problem.report_progress(1.0)
        return found

    def _settle(self, number: int, generations: int, done: int) -> list[Expression]:
        """Run one island; ``done`` iterations were spent before it."""
        problem = self._problem
        # Every other island sees a centred target: an offset that the law has is then easier to find, one
        # that it lacks harder. The final scaling makes both alike.
        island = Island(problem, *self._rows(number), centred=number % 2 == 1)
        evolution = Evolution(
            *island.data, symbols_for(problem.search.operators), self._settings(number, generations)
        )
        harvest = Harvest(island.inputs(evolution.inputs), self._welcome())

        def judge(individuals: Iterable[Any]) -> tuple[Expression | None, bool]:
            improved = island.improved_by(harvest.gather(individuals))
            return improved, island.exhausted or self._late()

        with closing(evolution.run(judge)) as run:
            for generation, improved in enumerate(run):
                problem.report_progress((done + generation) / problem.search.niterations)
                scaled = None if improved is None else island.scaled(improved)
                if scaled is not None:
                    problem.report_improvement(scaled, island.loss(scaled))
        self._solved = island.solved
        self._look_back(island)
        return [scaled for scaled in map(island.scaled, harvest) if scaled is not None]

    def _rows(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        problem = self._problem
        loss = problem.search.loss_function
        if loss.name != "mse":
            # Below the median all residuals count alike, or a few rows met by chance would be all there is.
            size = np.maximum(np.abs(self._residual), np.median(np.abs(self._residual)))
            influence = loss.influence(torch.from_numpy(size)).numpy()
            weights = influence if problem.weights is None else influence * problem.weights
            problem = replace(problem, weights=weights, seed=problem.seed + number)
        return problem.search_rows(self._options.search_rows)

    def _look_back(self, island: Island) -> None:
        best = None if island.best is None else island.scaled(island.best)
        if best is not None:
            residual = evaluate(best, self._columns).expand(len(self._residual)).numpy() - self._problem.y
            if np.isfinite(residual).all():
                self._residual = residual

    def _late(self) -> bool:
        limit = self._problem.search.timeout_in_seconds
        return limit is not None and time.monotonic() - self._started > limit

    def _settings(self, number: int, generations: int) -> Settings:
        options = self._options
        return Settings(
            generations=generations,
            population_size=options.population_size,
            max_length=options.max_length or self._problem.search.maxsize,
            local_iterations=options.local_iterations,
            local_probability=options.local_probability if options.local_iterations else 0.0,
            mutation_probability=options.mutation_probability,
            tournament_size=options.tournament_size,
            threads=options.threads_per_job(),
            seed=int(np.random.SeedSequence((self._problem.seed, number)).generate_state(1)[0]),
        )

    def _welcome(self) -> Callable[[Expression], bool]:
        """Whether to keep an equation: with constraints, what obeys them. The core drops the oversized."""
        search = self._problem.search
        if search.constraints or search.nested_constraints:
            return lambda expression: admits_scaled(search, expression)
        return lambda expression: True
