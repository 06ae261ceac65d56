"""gplearn behind the core's interface."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from gplearn.genetic import SymbolicRegressor

from symtorch_core import OutputwiseRegressor, Problem, SearchError, SearchSpace
from symtorch_core.expressions import Call, Constant, Expression, evaluate, simplify
from symtorch_gplearn.harvest import Harvest, Structure, structure
from symtorch_gplearn.programs import WORST, Scaling, gplearn_function, to_expression

_SOLVED = 1e-20
"""Relative to the loss of the best constant: nothing but rounding is left to explain."""
_PROGRESS = 0.99


@final
@dataclass(frozen=True)
class GplearnRegressor(OutputwiseRegressor):
    """Genetic programming in pure Python, with every operator of the core's table, on a sample of the rows.

    An iteration is a generation. Programs are judged after the best offset and factor, in closed form. Of those
    that differ in their constants only, the best is a parent and the others are not.

    Attributes:
        population_size: programs in a generation.
        tournament_size: programs among which a parent is the best.
        search_rows: rows the search looks at; the core measures what was found on all rows.
        populations: most populations that evolve one after the other; one that settles on a wrong form does
            not leave it, a new one may.
        patience: generations without an improvement of one per cent after which a population is given up.
        length_penalty: share of the best constant's loss that each node of a program costs in a tournament,
            against ever longer programs; ``parsimony`` of the search comes on top.
        constant_range: numbers in new programs are uniform between plus and minus this.
        crossover: how many of the programs of a generation come from crossover.
        subtree_mutation: how many get a new subtree.
        hoist_mutation: how many lose a part.
        point_mutation: how many get some nodes replaced; the rest of a generation is copied.
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
        for option, least in (
            ("population_size", 2),
            ("tournament_size", 1),
            ("search_rows", 2),
            ("populations", 1),
            ("patience", 1),
        ):
            if getattr(self, option) < least:
                raise SearchError(f"gplearn's {option} must be at least {least}, got {getattr(self, option)}")
        shares = (self.crossover, self.subtree_mutation, self.hoist_mutation, self.point_mutation)
        if min(shares) < 0 or sum(shares) > 1 + 1e-9:
            raise SearchError(
                "gplearn's crossover, subtree_mutation, hoist_mutation and point_mutation are shares of a "
                "generation: none may be negative, and they may add up to 1 at most"
            )

    def check(self, search: SearchSpace) -> None:
        search.refuse_definitions("gplearn")
        if not search.operators:
            raise SearchError("gplearn needs at least one operator")

    def search(self, problem: Problem) -> Iterator[Expression]:
        with _global_generator_untouched():
            return iter(_Search(self, problem).run())


@final
class _Search:
    """The search for one output, a generation at a time."""

    def __init__(self, options: GplearnRegressor, problem: Problem) -> None:
        self._options, self._problem = options, problem
        self._X, self._y = problem.search_rows(options.search_rows)
        self._scaling = Scaling(self._y, problem.search.loss_function)
        self._columns = {
            name: torch.from_numpy(column.copy())
            for name, column in zip(problem.variable_names, self._X.T, strict=True)
        }
        self._constant_loss = self._scaling.error(np.zeros_like(self._y))
        self._harvest = Harvest(self._translate)
        self._admitted: dict[Structure, bool] = {}
        self._started = time.monotonic()
        self._generations = 0
        self._best = WORST

    def run(self) -> list[Expression]:
        for number in range(self._options.populations):
            if self._finished():
                break
            self._settle(self._evolution(number))
        self._problem.report_progress(1.0)
        return [equation for equation in map(self._scaled, self._harvest) if equation is not None]

    def _settle(self, evolution: Any) -> None:
        """Run one population until it makes no progress any more."""
        best = progress = WORST
        generation = waited = 0
        while waited < self._options.patience and not self._finished():
            generation, waited = generation + 1, waited + 1
            evolution.set_params(generations=generation)
            evolution.fit(self._X, self._y)
            self._generations += 1
            champion = self._judge(evolution._programs[-1])
            if champion is not None and champion.raw_fitness_ < best:
                best = champion.raw_fitness_
                self._tell(champion)
            if best < _PROGRESS * progress:
                progress, waited = best, 0
            self._problem.report_progress(self._generations / self._problem.search.niterations)

    def _finished(self) -> bool:
        search = self._problem.search
        late = (
            search.timeout_in_seconds is not None
            and time.monotonic() - self._started > search.timeout_in_seconds
        )
        solved = self._best <= _SOLVED * self._constant_loss
        return late or solved or self._generations >= search.niterations

    def _tell(self, champion: Any) -> None:
        if champion.raw_fitness_ < self._best:
            self._best = champion.raw_fitness_
            scaled = self._scaled(self._translate(champion.program))
            if scaled is not None:
                self._problem.report_improvement(scaled, self._best)

    def _evolution(self, number: int) -> Any:
        options = self._options
        seed = np.random.SeedSequence((self._problem.seed, number)).generate_state(1)[0]
        return SymbolicRegressor(
            population_size=options.population_size,
            generations=1,
            tournament_size=options.tournament_size,
            stopping_criteria=-1.0,  # never: this module decides
            const_range=(-options.constant_range, options.constant_range),
            init_depth=(1, 4),
            function_set=tuple(map(gplearn_function, self._problem.search.operators)),
            metric=self._scaling.fitness(),
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
        """Set what tournaments compare, harvest, and return the best program that may be kept."""
        search = self._problem.search
        best = None
        forms: set[Structure] = set()
        for program in sorted(programs, key=lambda program: program.raw_fitness_):
            form = structure(program.program)
            if form in forms or program.raw_fitness_ >= WORST or not self._admits(program.program, form):
                # Of no use as a parent either: the population stays where equations are allowed, and does not
                # fill with copies of the best short one, from which crossover makes nothing new.
                program.fitness_ = WORST
                continue
            forms.add(form)
            program.fitness_ = (
                program.raw_fitness_
                + self._options.length_penalty * self._constant_loss * len(program.program)
            )
            if search.parsimony:
                complexity = search.rules.count(self._translate(program.program))
                program.fitness_ += search.parsimony * complexity
            self._harvest.offer(program.program, program.raw_fitness_)
            best = best or program
        return best

    def _admits(self, program: list[Any], form: Structure) -> bool:
        """Whether the search allows a program; without constraints only its length counts, which is cheap."""
        search = self._problem.search
        if len(program) > search.maxsize:
            return False
        if not (search.constraints or search.nested_constraints):
            return True
        if form not in self._admitted:  # constants aside: the core looks again at what is kept
            self._admitted[form] = search.admits(simplify(self._translate(program)))
        return self._admitted[form]

    def _translate(self, program: Any) -> Expression:
        return to_expression(program, self._problem.variable_names)

    def _scaled(self, expression: Expression) -> Expression | None:
        """offset + factor * expression, fitted to the rows of the search; None where it is not finite."""
        values = evaluate(expression, self._columns).expand(len(self._y)).numpy()
        if not np.isfinite(values).all():
            return None
        offset, factor = self._scaling.fit(values)
        return Call("+", Constant(offset), Call("*", Constant(factor), expression))


@contextmanager
def _global_generator_untouched() -> Iterator[None]:
    """Put numpy's global generator back: gplearn sets its state for every program it evaluates."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
