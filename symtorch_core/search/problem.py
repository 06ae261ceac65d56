"""The search for one output: its data, its reports, and what is kept of it if it is stopped."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from torch import Tensor

from symtorch_core.errors import BackendError, SymTorchError
from symtorch_core.events.records import (
    Callback,
    Event,
    OutputFinished,
    OutputImproved,
    OutputInterrupted,
    OutputProgressed,
    notify,
)
from symtorch_core.expressions import Expression
from symtorch_core.search.deadline import AT_ONCE, NEVER, Deadline, reserve_for_front
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.front_builder import build_front
from symtorch_core.search.space import SearchSpace


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
        deadline: the end of the time for the search and its front.
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    search: SearchSpace
    variable_names: tuple[str, ...]
    seed: int
    callbacks: tuple[Callback, ...] = ()
    output: int = 0
    deadline: Deadline = NEVER

    def is_late(self) -> bool:
        """Return whether the search has to end now, since its time is over or the user stopped it.

        A part of the time limit is left for the front. Backends ask this between their steps.
        """
        reserve = reserve_for_front(self.search.timeout_in_seconds)
        return self.deadline.earlier(reserve).is_over()

    def report_progress(self, fraction: float) -> None:
        """Tell the callbacks how much of the search is done, 0..1."""
        self._tell(OutputProgressed(self.output, min(fraction, 1.0)))

    def report_improvement(self, equation: Expression, loss: float, complexity: int | None = None) -> None:
        """Tell the callbacks of a better equation; see :class:`OutputImproved` for ``complexity``."""
        self._tell(OutputImproved(self.output, str(equation), loss, complexity))

    def report_end(self, front: ParetoFront) -> None:
        """Tell the callbacks that the output is done."""
        self._tell(OutputFinished(self.output, front))

    def report_stop(self, found: Sequence[Expression]) -> None:
        """Tell the callbacks that the output is stopped, with the front of what was found; nothing if that is nothing.

        The front is built at once, without a refit of constants.
        """
        if found:
            front = replace(self, deadline=AT_ONCE).build_front(found)
            self._tell(OutputInterrupted(self.output, front))

    def _tell(self, event: Event) -> None:
        notify(self.callbacks, event)

    def build_front(self, equations: Iterable[Expression]) -> ParetoFront:
        """Return the front of these equations; see :func:`build_front`."""
        return build_front(
            equations, self.X, self.y, self.search, self.variable_names, self.weights, self.deadline
        )

    @contextmanager
    def keep_if_stopped(self, found: list[Expression]) -> Iterator[None]:
        """If the block is stopped by Ctrl-C or by an error, send the front of what was found until then.

        Args:
            found: the equations; the block adds to this list.

        Raises:
            BackendError: the block raised an error that is not one of the framework's.
        """
        try:
            yield
        except (KeyboardInterrupt, Exception) as error:
            with suppress(Exception):  # the equations themselves may be what failed
                self.report_stop(found)
            if isinstance(error, KeyboardInterrupt | SymTorchError):
                raise
            raise BackendError(f"the search failed with {type(error).__name__}: {error}") from error

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


def make_problems(
    X: Tensor,
    Y: Tensor,
    search: SearchSpace,
    variable_names: Sequence[str],
    weights: Tensor | None,
    seed: int,
    callbacks: Sequence[Callback],
) -> list[Problem]:
    """Return the problem of each column of Y, with a seed of its own; see :meth:`Regressor.fit` for the arguments."""
    inputs, targets = X.double().cpu().numpy(), Y.double().cpu().numpy()
    row_weights = None if weights is None else weights.double().cpu().numpy()
    return [
        Problem(
            inputs,
            np.ascontiguousarray(y),
            row_weights,
            search,
            tuple(variable_names),
            _derive_output_seed(seed, y),
            tuple(callbacks),
            output,
        )
        for output, y in enumerate(targets.T)
    ]


def _derive_output_seed(seed: int, y: np.ndarray) -> int:
    """Return a seed for one output that depends on its data alone, not on the other outputs of the search."""
    return int(
        np.random.SeedSequence([seed, zlib.crc32(np.ascontiguousarray(y).tobytes())]).generate_state(1)[0]
    )
