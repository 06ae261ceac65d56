"""Operon's evolution for one output: the C++ objects, their lifetimes, and a run that can be stopped."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

import numpy as np
import pyoperon as op

from symtorch_operon.symbols import Symbol

_POLL_SECONDS = 0.05
_UNLIMITED = 10**15
_MAX_DEPTH = 10
_INITIAL_LENGTH = 10


@final
@dataclass(frozen=True)
class Settings:
    """How one evolution runs; see the options of the regressor."""

    generations: int
    population_size: int
    max_length: int
    local_iterations: int
    local_probability: float
    mutation_probability: float
    tournament_size: int
    threads: int
    seed: int


@final
class Evolution:
    """A population that evolves towards short and accurate trees (NSGA-II on error and length)."""

    def __init__(self, X: np.ndarray, y: np.ndarray, symbols: Sequence[Symbol], settings: Settings) -> None:
        self._settings = settings
        self._dataset = op.Dataset(np.asfortranarray(np.column_stack((X, y)), dtype=np.float64))
        *inputs, target = sorted(self._dataset.Variables, key=lambda variable: variable.Index)
        self.inputs = tuple(int(variable.Hash) for variable in inputs)
        self._problem = self._make_problem(target)
        self._primitives = self._make_primitives(symbols)
        # Operon keeps bare pointers to what it is handed: every part must live as long as the algorithm.
        self._parts: list[Any] = []
        self._algorithm = self._make_algorithm()
        self._random = op.RandomGenerator(np.uint64(settings.seed))

    def _make_problem(self, target: Any) -> Any:
        rows = self._dataset.Rows
        problem = op.Problem(self._dataset)
        problem.TrainingRange = op.Range(0, rows)
        problem.TestRange = op.Range(rows - 1, rows)
        problem.Target = target
        problem.InputHashes = list(self.inputs)
        return problem

    def _make_primitives(self, symbols: Sequence[Symbol]) -> Any:
        kinds = {symbol.kind for symbol in symbols} | {op.NodeType.Constant, op.NodeType.Variable}
        self._problem.ConfigurePrimitiveSet(sum(int(kind) for kind in kinds))
        primitives = self._problem.PrimitiveSet
        for kind in kinds - {op.NodeType.Constant, op.NodeType.Variable}:
            arities = [symbol.arity for symbol in symbols if symbol.kind == kind]
            primitives.SetMinMaxArity(op.Node(kind), min(arities), max(arities))
        return primitives

    def _kept(self, part: Any) -> Any:
        self._parts.append(part)
        return part

    def _make_algorithm(self) -> Any:
        settings, kept = self._settings, self._kept
        comparison = kept(op.CrowdedComparison())
        creator = kept(op.BalancedTreeCreator(self._primitives, list(self.inputs), 0.0))
        coefficients = kept(op.NormalCoefficientInitializer())
        coefficients.ParameterizeDistribution(0.0, 1.0)
        trees = kept(op.UniformLengthTreeInitializer(creator))
        trees.ParameterizeDistribution(1, min(_INITIAL_LENGTH, settings.max_length))
        trees.MinDepth, trees.MaxDepth = 1, _MAX_DEPTH
        generator = kept(
            op.BasicOffspringGenerator(
                self._make_evaluator(),
                kept(op.SubtreeCrossover(0.9, _MAX_DEPTH, settings.max_length)),
                self._make_mutation(creator, coefficients),
                self._make_selector(comparison),
                self._make_selector(comparison),
                self._make_local_search(),
            )
        )
        config = kept(
            op.GeneticAlgorithmConfig(
                generations=settings.generations,
                max_evaluations=_UNLIMITED,
                local_iterations=settings.local_iterations,
                population_size=settings.population_size,
                pool_size=settings.population_size,
                p_crossover=1.0,
                p_mutation=settings.mutation_probability,
                p_local=settings.local_probability,
                p_lamarck=1.0,
                epsilon=1e-5,
                seed=settings.seed,
                max_time=_UNLIMITED,
            )
        )
        reinserter, sorter = kept(op.KeepBestReinserter(comparison)), kept(op.RankSorter())
        return op.NSGA2Algorithm(config, self._problem, trees, coefficients, generator, reinserter, sorter)

    def _make_evaluator(self) -> Any:
        metric = self._kept(op.MSE())
        self._interpreter = self._kept(op.DispatchTable())
        scaled = True  # each tree is judged after the best a + b f, which the equations then get as constants
        error = self._kept(op.Evaluator(self._problem, self._interpreter, metric, scaled))
        length = self._kept(op.LengthEvaluator(self._problem))
        both = self._kept(op.MultiEvaluator(self._problem))
        for evaluator in (error, length):
            both.Add(evaluator)
        for evaluator in (error, length, both):
            evaluator.Budget = _UNLIMITED
        return both

    def _make_mutation(self, creator: Any, coefficients: Any) -> Any:
        bounds = (_MAX_DEPTH, self._settings.max_length)
        shift = op.NormalOnePointMutation()
        shift.ParameterizeDistribution(0.0, 1.0)
        mutation = self._kept(op.MultiMutation())
        for part in (
            shift,
            op.ChangeVariableMutation(list(self.inputs)),
            op.ChangeFunctionMutation(self._primitives),
            op.ReplaceSubtreeMutation(creator, coefficients, *bounds),
            op.InsertSubtreeMutation(creator, coefficients, *bounds),
            op.RemoveSubtreeMutation(self._primitives),
        ):
            mutation.Add(self._kept(part), 1.0)
        return mutation

    def _make_selector(self, comparison: Any) -> Any:
        selector = self._kept(op.TournamentSelector(comparison))
        selector.TournamentSize = self._settings.tournament_size
        return selector

    def _make_local_search(self) -> Any:
        every_row = 0
        optimizer = op.LMOptimizer(
            self._interpreter, self._problem, self._settings.local_iterations, every_row
        )
        return self._kept(op.CoefficientOptimizer(self._kept(optimizer)))

    def _evaluated(self) -> Iterator[Any]:
        """The individuals of this generation; before the first there are no offspring behind the parents."""
        everyone = self._algorithm.Individuals
        return (
            iter(everyone) if self._algorithm.Generation else islice(everyone, self._settings.population_size)
        )

    def run(self, judge: Callable[[Any], tuple[Any, bool]]) -> Generator[Any, None, None]:
        """Evolve in a thread of its own, and yield what ``judge`` makes of each generation.

        The thread is there because no signal is seen while C++ runs in the main thread. Closing the iterator
        stops the evolution at the next generation.

        Args:
            judge: called in the other thread with all individuals of a generation; returns what to yield, and
                whether to stop after it.
        """
        news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        stop = threading.Event()

        def each_generation() -> None:
            if not stop.is_set():
                try:
                    verdict, enough = judge(self._evaluated())
                    news.put(("generation", verdict))
                    if not enough:
                        return
                except BaseException as error:  # carried to the caller's thread
                    news.put(("error", error))
            raise InterruptedError  # any exception makes Operon stop

        def evolve() -> None:
            try:
                self._algorithm.Run(self._random, each_generation, self._settings.threads, False)
            except InterruptedError:
                pass
            finally:
                news.put(("end", None))

        thread = threading.Thread(target=evolve, name="operon", daemon=True)
        thread.start()
        try:
            yield from _received(news)
        finally:
            stop.set()
            thread.join()


def _received(news: queue.SimpleQueue[tuple[str, Any]]) -> Iterator[Any]:
    while True:
        try:
            kind, value = news.get(timeout=_POLL_SECONDS)  # without a timeout, Windows would not see Ctrl-C
        except queue.Empty:
            continue
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value
