"""The regressor ``gplearn``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from gplearn.genetic import SymbolicRegressor

from symtorch_core import SearchError, SearchSpace
from symtorch_core.expressions import Call, Constant, Expression, evaluate, simplify
from symtorch_core.search import OutputwiseRegressor, Problem, list_functions
from symtorch_gplearn.harvest import Harvest, Structure, get_structure
from symtorch_gplearn.programs import WORST, Scaling, make_function, to_expression

_SOLVED = 1e-20
"""Loss, relative to that of the best constant, below which the residual is rounding error."""
_PROGRESS = 0.99
_SHARES = ("crossover", "subtree_mutation", "hoist_mutation", "point_mutation")


@final
@dataclass(frozen=True)
class GplearnRegressor(OutputwiseRegressor):
    """Genetic programming in pure Python, with every operator of the core's table, on a sample of the rows.

    An iteration is a generation. Programs are ranked after the best offset and factor, found in closed form. Of
    programs that differ only in their constants, only the best becomes a parent.

    Attributes:
        population_size: programs in a generation.
        tournament_size: programs among which a parent is the best.
        search_rows: rows used by the search; the core measures its equations on all rows.
        populations: the largest number of populations, which evolve one after the other: a population that has
            settled on a wrong form seldom leaves it, but a new one may find the right form.
        patience: generations without an improvement of one per cent after which a population is stopped.
        length_penalty: what each node of a program adds to its loss in a tournament, as a share of the best
            constant's loss; it keeps programs from growing. ``parsimony`` of the search is added to it.
        constant_range: constants of new programs are uniform in plus or minus this.
        crossover: share of a generation, 0..1, that comes from crossover.
        subtree_mutation: share that gets a new subtree.
        hoist_mutation: share that loses a part.
        point_mutation: share in which some nodes are replaced; the remaining programs are copied.
        n_jobs: outputs searched at the same time, as joblib counts.

    >>> GplearnRegressor(population_size=200).name
    'gplearn'
    """

    name: ClassVar[str] = "gplearn"

    population_size: int = 1000
    tournament_size: int = 7
    search_rows: int = 256
    populations: int = 2
    patience: int = 20
    length_penalty: float = 3e-4
    constant_range: float = 3.0
    crossover: float = 0.65
    subtree_mutation: float = 0.15
    hoist_mutation: float = 0.05
    point_mutation: float = 0.1
    n_jobs: int = 1

    def __post_init__(self) -> None:
        self.at_least(2, "population_size", "search_rows")
        self.at_least(1, "tournament_size", "populations", "patience")
        self.at_least(0, "length_penalty", "constant_range")
        self.between(0, 1, *_SHARES)
        total = sum(getattr(self, share) for share in _SHARES)
        if total > 1 + 1e-9:
            raise SearchError(
                f"gplearn's {', '.join(_SHARES)} are shares of a generation and must add up to at most 1, got {total:g}"
            )
        self.jobs("n_jobs")

    def check(self, search: SearchSpace) -> None:
        list_functions(search, "gplearn")
        if not search.operators:
            raise SearchError("gplearn needs at least one operator")

    def search(self, problem: Problem) -> Iterator[Expression]:
        return _Search(self, problem).run()


@final
class _Search:
    """The search for one output."""

    def __init__(self, options: GplearnRegressor, problem: Problem) -> None:
        self._options, self._problem = options, problem
        self._operators = {operator.name: operator for operator in list_functions(problem.search, "gplearn")}
        self._X, self._y = problem.search_rows(options.search_rows)
        self._scaling = Scaling(self._y, problem.search.loss_function)
        self._columns = {
            name: torch.from_numpy(column.copy())
            for name, column in zip(problem.variable_names, self._X.T, strict=True)
        }
        self._constant_loss = self._scaling.compute_error(np.zeros_like(self._y))
        self._harvest = Harvest(self._translate)
        self._admitted: dict[Structure, bool] = {}
        self._generations = 0
        self._best = WORST

    def run(self) -> Iterator[Expression]:
        try:
            with _restore_global_generator():
                for number in range(self._options.populations):
                    if self._is_finished():
                        break
                    self._run_population(self._make_evolution(number))
            yield from self._scale_harvest()
        except (KeyboardInterrupt, Exception):
            yield from self._scale_harvest()
            raise
        self._problem.report_progress(1.0)

    def _scale_harvest(self) -> Iterator[Expression]:
        return (equation for equation in map(self._scale, self._harvest) if equation is not None)

    def _run_population(self, evolution: Any) -> None:
        """Run one population until it makes no more progress."""
        best = progress = WORST
        generation = waited = 0
        while waited < self._options.patience and not self._is_finished():
            generation, waited = generation + 1, waited + 1
            evolution.set_params(generations=generation)
            try:
                evolution.fit(self._X, self._y)
            except _TimeIsUpError:
                return
            self._generations += 1
            champion = self._judge(evolution._programs[-1])
            if champion is not None and champion.raw_fitness_ < best:
                best = champion.raw_fitness_
                self._report(champion)
            if best < _PROGRESS * progress:
                progress, waited = best, 0
            self._problem.report_progress(self._generations / self._problem.search.niterations)

    def _is_finished(self) -> bool:
        search = self._problem.search
        solved = self._best <= _SOLVED * self._constant_loss
        return self._problem.is_late() or solved or self._generations >= search.niterations

    def _check_time(self) -> None:
        """Leave a generation that the time limit overtakes, but the first: there must be something to return."""
        if self._generations and self._problem.is_late():
            raise _TimeIsUpError

    def _report(self, champion: Any) -> None:
        if champion.raw_fitness_ < self._best:
            self._best = champion.raw_fitness_
            scaled = self._scale(self._translate(champion.program))
            if scaled is not None:
                self._problem.report_improvement(scaled, self._best)

    def _make_evolution(self, number: int) -> Any:
        options = self._options
        seed = np.random.SeedSequence((self._problem.seed, number)).generate_state(1)[0]
        return SymbolicRegressor(
            population_size=options.population_size,
            generations=1,
            tournament_size=options.tournament_size,
            stopping_criteria=-1.0,  # never: the populations are stopped here
            const_range=(-options.constant_range, options.constant_range),
            init_depth=(1, 4),
            function_set=tuple(map(make_function, self._operators.values())),
            metric=self._scaling.make_fitness(self._check_time),
            parsimony_coefficient=0.0,
            p_crossover=options.crossover,
            p_subtree_mutation=options.subtree_mutation,
            p_hoist_mutation=options.hoist_mutation,
            p_point_mutation=options.point_mutation,
            warm_start=True,
            low_memory=True,
            n_jobs=1,
            random_state=int(seed),
        )

    def _judge(self, programs: list[Any]) -> Any | None:
        """Set the fitness that tournaments compare, harvest, and return the best program that the search allows."""
        search = self._problem.search
        best = None
        forms: set[Structure] = set()
        for program in sorted(programs, key=lambda program: program.raw_fitness_):
            form = get_structure(program.program)
            if form in forms or program.raw_fitness_ >= WORST or not self._admits(program.program, form):
                # It must not be a parent either: so the population stays among allowed equations, and does not fill
                # with copies of the best short one, from which crossover makes nothing new.
                program.fitness_ = WORST
                continue
            forms.add(form)
            penalty = self._options.length_penalty * len(program.program)
            if search.parsimony:
                penalty += search.parsimony * search.rules.count(self._translate(program.program))
            program.fitness_ = program.raw_fitness_ + penalty * self._constant_loss
            self._harvest.offer(program.program, program.raw_fitness_)
            best = best or program
        return best

    def _admits(self, program: list[Any], form: Structure) -> bool:
        """Return whether the search allows a program; its length is enough, but for constraints and definitions."""
        search = self._problem.search
        if len(program) > search.maxsize:
            return False
        if not (search.constraints or search.nested_constraints or search.definitions):
            return True
        if form not in self._admitted:  # whatever its constants: the core checks the kept ones again
            self._admitted[form] = search.admits(simplify(self._translate(program)))
        return self._admitted[form]

    def _translate(self, program: Any) -> Expression:
        return to_expression(program, self._problem.variable_names, self._operators)

    def _scale(self, expression: Expression) -> Expression | None:
        """Return offset + factor * expression, fitted to the rows of the search; None if it is not finite there."""
        values = evaluate(expression, self._columns).expand(len(self._y)).numpy()
        if not np.isfinite(values).all():
            return None
        offset, factor = self._scaling.fit(values)
        return Call("+", Constant(offset), Call("*", Constant(factor), expression))


class _TimeIsUpError(Exception):
    """The time limit is over in the middle of a generation."""


@contextmanager
def _restore_global_generator() -> Iterator[None]:
    """Restore the state of numpy's global generator at the end: gplearn sets it for every program it evaluates."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
