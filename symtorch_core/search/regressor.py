"""The interface of the symbolic-regression backends."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from torch import Tensor

from symtorch_core.components.options import Configurable
from symtorch_core.errors import SearchError
from symtorch_core.events.records import (
    Callback,
    Event,
    OutputFinished,
    OutputImproved,
    OutputProgressed,
    notify,
)
from symtorch_core.expressions import Expression
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.front_builder import build_front
from symtorch_core.search.precision import is_constant
from symtorch_core.search.space import SearchSpace


class Regressor(Configurable):
    """Search of equations for all columns of Y; an instance holds the options of its backend.

    A backend must refuse what it cannot honour (an operator, a constraint, a loss) with a :class:`SearchError`, and
    never ignore it.
    """

    neutral_options: ClassVar[tuple[str, ...]] = ("n_jobs",)
    """Options that do not change the result: a stopped search may go on with other values of them."""
    independent_outputs: ClassVar[bool] = False
    """Whether the front of an output is the same, to the last digit, whichever others are searched with it.

    Finished fronts of independent outputs are saved one by one; others together, when all of them are there.
    """

    def resolve_search(self, search: SearchSpace) -> SearchSpace:
        """Return the search as this backend runs it, if its own options change the loss.

        Fronts are validated and saved with it, so that everything is measured by one loss.

        Raises:
            SearchError: options and search contradict each other.
        """
        return search

    @abstractmethod
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
        """Search equations for each column of Y.

        Args:
            X: inputs, shape (n, d).
            Y: targets, shape (n, k); columns are independent outputs.
            search: operators, limits and loss.
            variable_names: d names for the columns of X.
            weights: shape (n,), non-negative; None weighs all rows equally.
            seed: same seed, same fronts.
            callbacks: called with each event. A backend must send :class:`OutputFinished` for each column when it is
                done, so that finished fronts survive an interruption of a later one. On Ctrl-C, it may send
                :class:`OutputInterrupted` with the best so far before it raises KeyboardInterrupt again.
            folder: folder for files from which a repetition of this search may go on, created by the backend if it
                needs one; None if nothing is kept. Most backends ignore it.

        Returns:
            A front for each column of Y.

        Raises:
            SearchError: the search asks for something the backend cannot do.
            BackendError: the search failed; the best so far was sent as :class:`OutputInterrupted`.
        """


@final
@dataclass(frozen=True)
class Problem:
    """The search for one output, on numpy data.

    Attributes:
        X: inputs, shape (n, d), float64.
        y: targets, shape (n,), float64.
        weights: shape (n,), float64, or None.
        search: operators, limits and loss.
        variable_names: d names for the columns of X.
        seed: seed of this output.
        callbacks: called with each event.
        output: index of the column of Y.
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    search: SearchSpace
    variable_names: tuple[str, ...]
    seed: int
    callbacks: tuple[Callback, ...] = ()
    output: int = 0

    def report_progress(self, fraction: float) -> None:
        """Tell the callbacks how much of the search is done, 0..1."""
        self._tell(OutputProgressed(self.output, min(fraction, 1.0)))

    def report_improvement(self, equation: Expression, loss: float) -> None:
        """Tell the callbacks of a better equation."""
        self._tell(OutputImproved(self.output, str(equation), loss))

    def _tell(self, event: Event) -> None:
        notify(self.callbacks, event)

    def search_rows(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a seeded sample of at most ``most`` rows for searching, as (X, y) of shapes (m, d) and (m,).

        With weights, rows are drawn in proportion to them, so that the unweighted loss of the sample estimates the
        weighted loss of all rows.
        """
        n = len(self.y)
        if n <= most and self.weights is None:
            return self.X, self.y
        generator = np.random.default_rng(self.seed)
        if self.weights is None:
            rows = generator.choice(n, size=most, replace=False)
        else:
            rows = generator.choice(n, size=min(n, most), replace=True, p=self.weights / self.weights.sum())
        rows.sort()
        return self.X[rows], self.y[rows]


class OutputwiseRegressor(Regressor):
    """Regressor that searches one output at a time; outputs run as joblib jobs.

    A subclass implements the search for one output. This class cuts Y into problems, gives each its own seed, so
    that the result does not depend on the number of workers, and builds fronts from the equations found.
    """

    independent_outputs: ClassVar[bool] = True
    n_jobs: int

    @abstractmethod
    def check(self, search: SearchSpace) -> None:
        """Refuse, with a :class:`SearchError`, a search this backend cannot honour; called before any work."""

    @abstractmethod
    def search(self, problem: Problem) -> Iterable[Expression]:
        """Search one output.

        Returns:
            Every equation worth keeping, at any complexity: the core simplifies them, refits their constants, measures
            them on all rows and keeps the Pareto front.
        """

    @final
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
        import joblib  # slow to import

        self.check(search)
        inputs, targets = X.double().cpu().numpy(), Y.double().cpu().numpy()
        row_weights = None if weights is None else weights.double().cpu().numpy()
        parallel = self.n_jobs != 1 and targets.shape[1] > 1
        problems = [
            Problem(
                inputs,
                np.ascontiguousarray(targets[:, column]),
                row_weights,
                search,
                tuple(variable_names),
                _derive_output_seed(seed, targets[:, column]),
                # Callbacks stay in this process; workers only return fronts.
                () if parallel else tuple(callbacks),
                column,
            )
            for column in range(targets.shape[1])
        ]
        fronts = []
        jobs = joblib.Parallel(n_jobs=self.n_jobs if parallel else 1, return_as="generator")(
            joblib.delayed(_solve)(self.search, problem) for problem in problems
        )
        for column, front in enumerate(jobs):
            fronts.append(front)
            notify(callbacks, OutputFinished(column, front))
        return fronts


def read_start(given: Any) -> tuple[str, ...]:
    """Return the equations that a search starts from, given as a backend's option ``start``, as texts.

    Raises:
        SearchError: they are not a list of texts and candidates.
    """
    if isinstance(given, str):
        raise SearchError(f"start takes a list of equations, like ({given!r},)")
    if not isinstance(given, Iterable):
        raise SearchError(f"start takes a list of equations, not a {type(given).__name__}")
    texts = []
    for item in given:
        if not isinstance(item, str | Candidate):
            raise SearchError(f"start takes texts and candidates; {item!r} is a {type(item).__name__}")
        texts.append(item if isinstance(item, str) else item.text(None))
    return tuple(texts)


def _derive_output_seed(seed: int, y: np.ndarray) -> int:
    """Return a seed for one output that depends on its data alone, not on the other outputs of the search."""
    return int(
        np.random.SeedSequence([seed, zlib.crc32(np.ascontiguousarray(y).tobytes())]).generate_state(1)[0]
    )


def _solve(search: Callable[[Problem], Iterable[Expression]], problem: Problem) -> ParetoFront:
    # Nothing to search where all targets are one number.
    found = () if is_constant(problem.y, problem.weights) else search(problem)
    return build_front(found, problem.X, problem.y, problem.search, problem.variable_names, problem.weights)
