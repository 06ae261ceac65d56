"""The regressor ``operon``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import joblib
import numpy as np
import torch

from symtorch_core import SearchError, SearchSpace
from symtorch_core.expressions import Expression, evaluate
from symtorch_core.search import OutputwiseRegressor, Problem, fits_single, weighted_median
from symtorch_operon.engine import Evolution, Settings
from symtorch_operon.harvest import Harvest
from symtorch_operon.island import Island, admits_scaled, make_columns
from symtorch_operon.symbols import get_symbols


@final
@dataclass(frozen=True)
class OperonRegressor(OutputwiseRegressor):
    """Genetic programming in C++ with local search of the constants, on a sample of the rows.

    An iteration is a generation. The iterations are split among ``islands`` populations that evolve one after the other
    from different starts: a population that has settled on a wrong form seldom leaves it, but a new one may find the
    right form.

    Operon minimises squares. For another loss, the rows of each island are drawn in proportion to their influence on
    that loss, given the residuals of the best equation of the island before: reweighted least squares, by sampling.

    Attributes:
        population_size: trees in a population, and new trees in each generation.
        islands: populations, each with its share of the iterations.
        search_rows: rows used by the search; the core measures its equations on all rows.
        local_iterations: Levenberg-Marquardt steps on the constants of a new tree; 0 for none.
        local_probability: share of the new trees, 0..1, that get these steps.
        mutation_probability: share of the new trees, 0..1, that are mutated after crossover.
        tournament_size: trees among which a parent is the best.
        max_length: the largest number of nodes in a tree; None for the search's maxsize. Weights of variables and the
            final scaling do not count here, so many trees of this length have a complexity above maxsize.
        threads: threads of one search; 0 for all cores, shared among the jobs. The result does not depend on it.
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
        self.at_least(2, "population_size", "search_rows")
        self.at_least(1, "islands", "tournament_size")
        self.at_least(0, "local_iterations", "threads")
        self.between(0, 1, "local_probability", "mutation_probability")
        self.at_least(1, "max_length")
        self.jobs("n_jobs")

    def check(self, search: SearchSpace) -> None:
        get_symbols(search.operators)
        if not search.operators:
            raise SearchError("operon needs at least one operator")
        if search.parsimony:
            raise SearchError(
                "operon has no parsimony, since it ranks trees by error and length: leave parsimony at 0"
            )

    def search(self, problem: Problem) -> Iterable[Expression]:
        _check_inputs(problem)
        return _Search(self, problem).run()

    def count_threads(self) -> int:
        """Return the number of threads for the search of one output."""
        return self.threads or max(1, joblib.cpu_count() // joblib.effective_n_jobs(self.n_jobs))


def _check_inputs(problem: Problem) -> None:
    """Refuse inputs whose values are one in single precision, in which Operon computes."""
    for name, column in zip(problem.variable_names, problem.X.T, strict=True):
        size = float(np.abs(column).max())
        if size and not fits_single(column / size):
            raise SearchError(
                f"operon computes in single precision, which cannot tell the values of {name!r} apart: subtract their "
                "mean first, or use another regressor"
            )


@final
class _Search:
    """The search for one output: its islands, one after the other."""

    def __init__(self, options: OperonRegressor, problem: Problem) -> None:
        self._options, self._problem = options, problem
        self._columns = make_columns(problem.X, problem.variable_names)
        self._weights = None if problem.weights is None else torch.from_numpy(problem.weights)
        y = torch.from_numpy(problem.y)
        self._residual = y - weighted_median(y, self._weights)
        self._solved = False

    def run(self) -> Iterator[Expression]:
        iterations = self._problem.search.niterations
        shares = [len(share) for share in np.array_split(np.arange(iterations), self._options.islands)]
        for number, generations in enumerate(shares):
            if generations == 0 or self._solved or self._problem.is_late():
                break
            yield from self._run_island(number, generations, sum(shares[:number]))
        self._problem.report_progress(1.0)

    def _run_island(self, number: int, generations: int, done: int) -> Iterator[Expression]:
        """Run one island, after ``done`` iterations of those before it, and yield its equations."""
        problem = self._problem
        # Every other island has a centred target. This makes a law with an offset easier to find, and one without it
        # harder. The final scaling makes up for the difference.
        island = Island(problem, *self._draw_rows(number), centred=number % 2 == 1)
        evolution = Evolution(
            *island.data, get_symbols(problem.search.operators), self._make_settings(number, generations)
        )
        harvest = Harvest(island.name_inputs(evolution.inputs), self._make_filter())

        def judge(individuals: Iterable[Any]) -> tuple[Expression | None, bool]:
            improved = island.update_best(harvest.gather(individuals))
            return improved, island.exhausted or problem.is_late()

        try:
            with closing(evolution.run(judge)) as run:
                for generation, improved in enumerate(run):
                    problem.report_progress((done + generation) / problem.search.niterations)
                    scaled = None if improved is None else island.scale(improved)
                    if scaled is not None:
                        problem.report_improvement(scaled, island.compute_loss(scaled))
            self._solved = island.solved
            self._update_residual(island)
            yield from island.scale_all(harvest)
        except (KeyboardInterrupt, Exception):
            yield from island.scale_all(harvest)
            raise

    def _draw_rows(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        problem = self._problem
        loss = problem.search.loss_function
        if loss.name != "mse":
            # Residuals below the median count as the median: else a few rows, met by chance, would outweigh all others.
            size = self._residual.abs()
            influence = loss.influence(size.clamp_min(float(weighted_median(size, self._weights))))
            weights = influence if self._weights is None else influence * self._weights
            problem = replace(problem, weights=weights.numpy(), seed=problem.seed + number)
        return problem.search_rows(self._options.search_rows)

    def _update_residual(self, island: Island) -> None:
        best = None if island.best is None else island.scale(island.best)
        if best is not None:
            residual = evaluate(best, self._columns).expand(len(self._residual)) - torch.from_numpy(
                self._problem.y
            )
            if bool(residual.isfinite().all()):
                self._residual = residual

    def _make_settings(self, number: int, generations: int) -> Settings:
        options = self._options
        return Settings(
            generations=generations,
            population_size=options.population_size,
            max_length=options.max_length or self._problem.search.maxsize,
            local_iterations=options.local_iterations,
            local_probability=options.local_probability if options.local_iterations else 0.0,
            mutation_probability=options.mutation_probability,
            tournament_size=options.tournament_size,
            threads=options.count_threads(),
            seed=int(np.random.SeedSequence((self._problem.seed, number)).generate_state(1)[0]),
        )

    def _make_filter(self) -> Callable[[Expression], bool]:
        """Return a function that decides whether an equation is kept: with constraints, only if it obeys them.

        The core drops equations above maxsize.
        """
        search = self._problem.search
        if search.constraints or search.nested_constraints:
            return lambda expression: admits_scaled(search, expression)
        return lambda expression: True
