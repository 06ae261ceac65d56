"""The search stage: a front for each column of the targets, saved to disk on request."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from symtorch_core.errors import BackendError
from symtorch_core.events.records import (
    Callback,
    Event,
    Interrupted,
    OutputEvent,
    OutputFinished,
    OutputInterrupted,
    notify,
)
from symtorch_core.search.checkpoint import FrontStore
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.front_builder import build_front
from symtorch_core.search.losses import check_targets
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.space import SearchSpace


def regress(
    engine: Regressor,
    Z: Tensor,
    T: Tensor,
    search: SearchSpace,
    variable_names: Sequence[str],
    *,
    weights: Tensor | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    resume: Path | str | None = None,
    numbers: Sequence[int] | None = None,
) -> tuple[dict[int, ParetoFront], bool]:
    """Search a front for each column of T.

    Args:
        engine: the backend.
        Z: inputs of the equations, shape (n, k_in).
        T: targets, shape (n, k_out).
        search: the search space.
        variable_names: k_in names.
        weights: shape (n,), or None.
        seed: same seed, same fronts.
        callbacks: called with each event.
        resume: folder of finished fronts; None to keep none. Fronts of outputs that belong together are kept together,
            when all are finished, so that a repetition gives what an uninterrupted run gives.
        numbers: numbers of the columns in events and messages; their positions in T by default.

    Returns:
        The front of each column of T, by its position, and whether the search was stopped, by the user or by a
        failure of the backend (which is then a warning). After a stop, some fronts are missing or unfinished.

    Raises:
        KeyboardInterrupt, BackendError: the search was stopped before there was any front.
        SearchError: the loss of a column overflows or vanishes, the search names variables that there are not, or,
            with ``resume``, it cannot be known again or is running in that folder now.
        FileFormatError: a file in the folder is damaged.
    """
    search.check_variables(variable_names)
    columns = range(T.shape[1])
    numbers = columns if numbers is None else numbers
    check_targets(search.loss_function, T, weights, numbers)
    names = tuple(variable_names)
    checkpoint = None if resume is None else FrontStore(resume, Z, weights, search, engine, names, seed)
    together = [[column] for column in columns] if engine.independent_outputs else [list(columns)]
    set_of = {column: members for members in together for column in members}
    found: dict[int, ParetoFront] = {}
    finished: dict[int, ParetoFront] = {}
    missing: list[int] = []

    def finish(column: int, front: ParetoFront) -> None:
        found[column] = front
        notify(callbacks, OutputFinished(numbers[column], front))

    def save(column: int, front: ParetoFront) -> None:
        finished[column] = front
        members = set_of[column]
        if checkpoint is not None and finished.keys() >= set(members):
            checkpoint.save(T[:, members], [finished[member] for member in members])

    def relay(event: Event) -> None:
        # Backends number the columns they received; events number those of the block.
        if not isinstance(event, OutputEvent):
            notify(callbacks, event)
            return
        column = missing[event.output]
        if isinstance(event, OutputInterrupted):
            found[column] = event.front
        if isinstance(event, OutputFinished):
            save(column, event.front)
            finish(column, event.front)
        else:
            notify(callbacks, replace(event, output=numbers[column]))

    try:
        for members in together:
            fronts = None if checkpoint is None else checkpoint.load(T[:, members])
            if fronts is None:
                missing += members
            else:
                for column, front in zip(members, fronts, strict=True):
                    finish(column, front)
        if missing:
            with nullcontext() if checkpoint is None else checkpoint.lock(T):
                fronts = engine.fit(
                    Z,
                    T[:, missing],
                    search=search,
                    variable_names=names,
                    weights=weights,
                    seed=seed,
                    callbacks=[relay],
                    folder=None if checkpoint is None else checkpoint.folder(T[:, missing]),
                )
            found.update(zip(missing, fronts, strict=True))
    except (KeyboardInterrupt, BackendError) as error:
        if not found:
            raise
        if isinstance(error, BackendError):
            warnings.warn(f"{error}\nWhat it found before that is kept.", RuntimeWarning, stacklevel=3)
        notify(callbacks, Interrupted(len(found)))
        return found, True
    return found, False


def fill_missing_fronts(
    found: Mapping[int, ParetoFront], T: Tensor, search: SearchSpace, weights: Tensor | None
) -> tuple[ParetoFront, ...]:
    """Return a front for every column: behind a reducer, all are needed to restore a block's outputs.

    A column that an interrupted run did not reach gets the best constant.
    """
    nothing = np.empty((len(T), 0))
    row_weights = None if weights is None else weights.double().numpy()
    return tuple(
        found[column]
        if column in found
        else build_front([], nothing, T[:, column].double().numpy(), search, (), row_weights)
        for column in range(T.shape[1])
    )
