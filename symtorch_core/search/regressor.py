"""The interface of the symbolic-regression backends."""

from __future__ import annotations

import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

from torch import Tensor

from symtorch_core.components.options import Configurable
from symtorch_core.errors import BackendError, SearchError
from symtorch_core.events.records import Callback, Event, OutputFinished, OutputInterrupted, notify
from symtorch_core.expressions import Expression
from symtorch_core.search.deadline import Deadline
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.precision import is_constant
from symtorch_core.search.problem import Problem, make_problems
from symtorch_core.search.space import SearchSpace
from symtorch_core.search.workers import Permit, Workers


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
                done, so that finished fronts survive an interruption of a later one. On Ctrl-C, it sends
                :class:`OutputInterrupted` with the best so far of the outputs under way before it raises
                KeyboardInterrupt again.
            folder: folder for files from which a repetition of this search may go on, created by the backend if it
                needs one; None if nothing is kept. Most backends ignore it.

        Returns:
            A front for each column of Y.

        Raises:
            SearchError: the search asks for something the backend cannot do.
            BackendError: the search failed; the best so far was sent as :class:`OutputInterrupted`.
        """


class OutputwiseRegressor(Regressor):
    """Regressor that searches one output at a time; outputs run as joblib jobs.

    A subclass implements the search for one output. This class cuts Y into problems, gives each its own seed, so
    that the result does not depend on the number of workers, and builds fronts from the equations found. If the search
    is stopped by Ctrl-C or by an error, it sends the fronts of what was found until then.
    """

    independent_outputs: ClassVar[bool] = True
    n_jobs: int

    @abstractmethod
    def check(self, search: SearchSpace) -> None:
        """Refuse, with a :class:`SearchError`, a search this backend cannot honour; called before any work."""

    @abstractmethod
    def search(self, problem: Problem) -> Iterable[Expression]:
        """Search one output, until ``problem.is_late()`` at the latest.

        A generator should yield equations as it finds them: what it has yielded is kept if it is stopped. With
        KeyboardInterrupt too, it may yield what else it has, and then raise the error again.

        Returns:
            Every equation worth keeping, at any complexity: the core simplifies them, refits their constants, measures
            them on all rows and keeps the Pareto front. An equation may come twice.
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
        self.check(search)
        problems = make_problems(X, Y, search, variable_names, weights, seed, callbacks)
        limit = search.timeout_in_seconds
        if self.n_jobs == 1 or len(problems) == 1:
            return [_solve(self.search, problem, Deadline.after(limit)) for problem in problems]
        return _solve_in_workers(self.search, problems, self.n_jobs, callbacks)


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


def _solve(
    search: Callable[[Problem], Iterable[Expression]], problem: Problem, deadline: Deadline
) -> ParetoFront:
    problem = replace(problem, deadline=deadline)
    found: list[Expression] = []
    with problem.keep_if_stopped(found):
        # Nothing to search where all targets are one number.
        if not is_constant(problem.y, problem.weights):
            # Not a loop: an interruption always meets the search, which may yield more before it passes it on.
            found.extend(search(problem))
        front = problem.build_front(found)
        found[:] = [candidate.expression for candidate in front]
        problem.report_end(front)
    return front


@final
@dataclass(frozen=True)
class _Outcome:
    """The end of an output's search in a worker.

    Attributes:
        event: its front, finished or not; None if there is none.
        error: the error that ended it, or None.
    """

    event: OutputFinished | OutputInterrupted | None
    error: Exception | None = None


@final
@dataclass(frozen=True)
class _Solver:
    """The search of a backend, for a worker process."""

    search: Callable[[Problem], Iterable[Expression]]

    def __call__(self, problem: Problem, permit: Permit) -> _Outcome:
        """Return the outcome of a search, unfinished if the permit is withdrawn before its end."""
        last: list[OutputFinished | OutputInterrupted] = []

        def keep(event: Event) -> None:
            if isinstance(event, OutputFinished | OutputInterrupted):
                last[:] = [event]

        error = None
        with permit.use():
            if permit.is_withdrawn():
                return _Outcome(None)
            deadline = Deadline.after(problem.search.timeout_in_seconds)
            deadline = replace(deadline, is_stopped=permit.is_withdrawn)
            try:
                front = _solve(self.search, replace(problem, callbacks=(keep,)), deadline)
            except Exception as failure:
                failure.add_note(traceback.format_exc())  # its own does not travel to the parent
                error = failure
            else:
                if permit.is_withdrawn():
                    last[:] = [OutputInterrupted(problem.output, front)]
        return _Outcome(last[0] if last else None, error)


def _solve_in_workers(
    search: Callable[[Problem], Iterable[Expression]],
    problems: Sequence[Problem],
    n_jobs: int,
    callbacks: Sequence[Callback],
) -> list[ParetoFront]:
    """Return the front of each problem; the callbacks stay in this process."""
    known: dict[int, OutputFinished | OutputInterrupted] = {}
    told: set[int] = set()

    def tell(output: int) -> None:
        notify(callbacks, known[output])
        told.add(output)

    tasks = [replace(problem, callbacks=()) for problem in problems]
    with Workers(_Solver(search), tasks, n_jobs) as workers:
        try:
            for outcome in workers.results():
                if outcome.event is not None:
                    known[outcome.event.output] = outcome.event
                    tell(outcome.event.output)
                if outcome.error is not None:
                    raise outcome.error
        except (KeyboardInterrupt, Exception):
            workers.stop()
            with suppress(BackendError):  # of a worker that did not stop, and was ended
                for outcome in workers.results():
                    if outcome.event is not None:
                        known[outcome.event.output] = outcome.event
            for output in sorted(set(known) - told):
                tell(output)
            raise
    return [known[output].front for output in range(len(problems))]
