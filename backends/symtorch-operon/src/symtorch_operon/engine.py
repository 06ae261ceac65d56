"""Operon's evolution for one output: its C++ objects, their lifetimes, and a run that can be stopped."""

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
    """Settings of one evolution; see the options of the regressor."""

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
    """A population that evolves towards short and accurate trees (NSGA-II on error and length).

    Args:
        X: inputs, shape (n, d).
        y: targets, shape (n,).
        symbols: the symbols that trees may use.
        settings: the settings.

    Attributes:
        inputs: Operon's hash of each input.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, symbols: Sequence[Symbol], settings: Settings) -> None:
        self._settings = settings
        self._dataset = op.Dataset(np.asfortranarray(np.column_stack((X, y)), dtype=np.float64))
        *inputs, target = sorted(self._dataset.Variables, key=lambda variable: variable.Index)
        self.inputs = tuple(int(variable.Hash) for variable in inputs)
        self._problem = self._make_problem(target)
        self._primitives = self._make_primitives(symbols)
        # Operon keeps bare pointers to its arguments: every part must live as long as the algorithm.
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

    def _keep(self, part: Any) -> Any:
        self._parts.append(part)
        return part

    def _make_algorithm(self) -> Any:
        settings, keep = self._settings, self._keep
        comparison = keep(op.CrowdedComparison())
        creator = keep(op.BalancedTreeCreator(self._primitives, list(self.inputs), 0.0))
        coefficients = keep(op.NormalCoefficientInitializer())
        coefficients.ParameterizeDistribution(0.0, 1.0)
        trees = keep(op.UniformLengthTreeInitializer(creator))
        trees.ParameterizeDistribution(1, min(_INITIAL_LENGTH, settings.max_length))
        trees.MinDepth, trees.MaxDepth = 1, _MAX_DEPTH
        generator = keep(
            op.BasicOffspringGenerator(
                self._make_evaluator(),
                keep(op.SubtreeCrossover(0.9, _MAX_DEPTH, settings.max_length)),
                self._make_mutation(creator, coefficients),
                self._make_selector(comparison),
                self._make_selector(comparison),
                self._make_local_search(),
            )
        )
        config = keep(
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
        reinserter, sorter = keep(op.KeepBestReinserter(comparison)), keep(op.RankSorter())
        return op.NSGA2Algorithm(config, self._problem, trees, coefficients, generator, reinserter, sorter)

    def _make_evaluator(self) -> Any:
        metric = self._keep(op.MSE())
        self._interpreter = self._keep(op.DispatchTable())
        scaled = True  # the error of a tree f is that of the best a + b f
        error = self._keep(op.Evaluator(self._problem, self._interpreter, metric, scaled))
        length = self._keep(op.LengthEvaluator(self._problem))
        both = self._keep(op.MultiEvaluator(self._problem))
        for evaluator in (error, length):
            both.Add(evaluator)
        for evaluator in (error, length, both):
            evaluator.Budget = _UNLIMITED
        return both

    def _make_mutation(self, creator: Any, coefficients: Any) -> Any:
        bounds = (_MAX_DEPTH, self._settings.max_length)
        shift = op.NormalOnePointMutation()
        shift.ParameterizeDistribution(0.0, 1.0)
        mutation = self._keep(op.MultiMutation())
        for part in (
            shift,
            op.ChangeVariableMutation(list(self.inputs)),
            op.ChangeFunctionMutation(self._primitives),
            op.ReplaceSubtreeMutation(creator, coefficients, *bounds),
            op.InsertSubtreeMutation(creator, coefficients, *bounds),
            op.RemoveSubtreeMutation(self._primitives),
        ):
            mutation.Add(self._keep(part), 1.0)
        return mutation

    def _make_selector(self, comparison: Any) -> Any:
        selector = self._keep(op.TournamentSelector(comparison))
        selector.TournamentSize = self._settings.tournament_size
        return selector

    def _make_local_search(self) -> Any:
        every_row = 0
        optimizer = op.LMOptimizer(
            self._interpreter, self._problem, self._settings.local_iterations, every_row
        )
        return self._keep(op.CoefficientOptimizer(self._keep(optimizer)))

    def _get_evaluated(self) -> Iterator[Any]:
        """Return the individuals of this generation: at first the parents only, later also the offspring."""
        everyone = self._algorithm.Individuals
        return (
            iter(everyone) if self._algorithm.Generation else islice(everyone, self._settings.population_size)
        )

    def run(self, judge: Callable[[Any], tuple[Any, bool]]) -> Generator[Any, None, None]:
        """Evolve in a separate thread, and yield the verdict of ``judge`` on each generation.

        The thread is needed because Python sees no signal while C++ runs in the main thread. Closing the iterator stops
        the evolution at the next generation.

        Args:
            judge: called in that thread with all individuals of a generation; returns the verdict, and whether to
                stop.
        """
        news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        stop = threading.Event()

        def report_generation() -> None:
            if not stop.is_set():
                try:
                    verdict, enough = judge(self._get_evaluated())
                    news.put(("generation", verdict))
                    if not enough:
                        return
                except BaseException as error:  # raised again in the caller's thread
                    news.put(("error", error))
            raise InterruptedError  # Operon stops at any exception

        def evolve() -> None:
            try:
                self._algorithm.Run(self._random, report_generation, self._settings.threads, False)
            except InterruptedError:
                pass
            finally:
                news.put(("end", None))

        thread = threading.Thread(target=evolve, name="operon", daemon=True)
        try:
            thread.start()
            yield from _receive(news)
        finally:
            stop.set()
            if thread.ident is not None:
                thread.join()


def _receive(news: queue.SimpleQueue[tuple[str, Any]]) -> Iterator[Any]:
    while True:
        try:
            kind, value = news.get(timeout=_POLL_SECONDS)  # without a timeout, Windows would ignore Ctrl-C
        except queue.Empty:
            continue
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value
