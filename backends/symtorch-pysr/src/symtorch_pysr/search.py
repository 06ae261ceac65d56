"""One search: a job for the worker, what it tells meanwhile, and the fronts it leaves."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TextIO, final

import numpy as np
from torch import Tensor

from symtorch_core import BackendError, ParetoFront, SearchSpace, Unrunnable
from symtorch_core.events import (
    Callback,
    OutputFinished,
    OutputImproved,
    OutputInterrupted,
    OutputProgressed,
    StageTold,
    Stopwatch,
    notify,
)
from symtorch_core.expressions import Expression
from symtorch_core.search import build_front
from symtorch_pysr.arguments import Arguments, arguments_for
from symtorch_pysr.guesses import in_julia
from symtorch_pysr.julia import no_julia
from symtorch_pysr.operators import julia_operators
from symtorch_pysr.parameters import Installed
from symtorch_pysr.process import Ended, Printed, Told, describe_end, listen
from symtorch_pysr.runs import Run
from symtorch_pysr.tables import Row, in_names, read_table, table_name, translated, variable

_LINES_SHOWN = 20
_SECONDS_BETWEEN_LOOKS = 0.5
_PROGRESS = re.compile(r"Progress: *(\d+) */ *(\d+) total iterations")


@final
@dataclass(frozen=True)
class Data:
    """Rows to search on.

    Attributes:
        X: inputs, shape (n, d), float64.
        Y: targets, shape (n, k), float64.
        weights: shape (n,), float64, or None.
        names: d names for the columns of X.
        open: the columns of Y that are not constant (to single precision).
    """

    X: np.ndarray
    Y: np.ndarray
    weights: np.ndarray | None
    names: tuple[str, ...]
    open: tuple[int, ...]

    @classmethod
    def of(cls, X: Tensor, Y: Tensor, weights: Tensor | None, names: tuple[str, ...]) -> Self:
        """From tensors on any device."""
        targets = Y.double().cpu().numpy()
        spread = np.finfo(np.float32).eps * np.abs(targets).max(axis=0)
        varies = np.ptp(targets, axis=0) > spread
        row_weights = None if weights is None else weights.double().cpu().numpy()
        columns = tuple(int(column) for column in np.flatnonzero(varies))
        return cls(X.double().cpu().numpy(), targets, row_weights, names, columns)

    def write(self, path: Path) -> None:
        """The arrays for the worker; PySR takes weights in the shape of the targets."""
        y = self.Y[:, list(self.open)]
        arrays = {"X": self.X, "y": y[:, 0] if y.shape[1] == 1 else y}
        if self.weights is not None:
            arrays["weights"] = np.broadcast_to(self.weights, arrays["y"].T.shape).T
        np.savez(path, allow_pickle=False, **arrays)


@final
@dataclass(frozen=True)
class Search:
    """Everything that belongs to one search.

    Attributes:
        data: the rows.
        search: what was asked.
        pysr: the installed version.
        run: where to write.
        worker: the command.
        seed: for a deterministic search; None for PySR's default.
        start: equations to start from.
        elementwise_loss: Julia code for the loss, or None.
        overtime: seconds after the time limit until the worker is killed.
        options: passed through to PySR.
        callbacks: told of progress.
    """

    data: Data
    search: SearchSpace
    pysr: Installed
    run: Run
    worker: tuple[str, ...]
    seed: int | None
    start: tuple[Expression, ...]
    elementwise_loss: str | None
    overtime: float
    options: Mapping[str, Any]
    callbacks: tuple[Callback, ...]

    def run_to_fronts(self) -> list[ParetoFront]:
        """Search, and give the front of each output.

        Raises:
            SearchError: PySR cannot do what is asked, or refused it.
            BackendError: it broke down; what it had found was told.
            MissingDependencyError: there is no Julia.
        """
        arguments = self._arguments()
        fronts: dict[int, ParetoFront] = {}
        for column in sorted(set(range(self.data.Y.shape[1])) - set(self.data.open)):
            self._finish(column, fronts)
        if self.data.open:
            try:
                self._work(arguments)
            except (KeyboardInterrupt, BackendError) as error:
                # After Ctrl-C there is no time for refitting.
                self._hand_over(refine=self.search.refine and isinstance(error, BackendError))
                raise
        for column in self.data.open:
            self._finish(column, fronts)
        return [fronts[column] for column in sorted(fronts)]

    def _arguments(self) -> Arguments:
        guesses = self._guesses()
        return arguments_for(
            self.search,
            self.pysr,
            variable_names=self.data.names,
            rows=len(self.data.X),
            weighted=self.data.weights is not None,
            outputs=len(self.data.open),
            elementwise_loss=self.elementwise_loss,
            seed=self.seed,
            guesses=guesses if any(guesses) else None,
            options=self.options,
        )

    def _guesses(self) -> list[list[str]]:
        """For each open output: the user's equations, and those of earlier attempts in PySR's own words."""
        names = {
            **julia_operators(self.search, self.pysr.major).names,
            **{name: variable(column) for column, name in enumerate(self.data.names)},
        }
        given = [in_julia(equation, self.search, names) for equation in self.start]
        earlier = self.run.earlier if self.pysr.takes_guesses else ()
        return [
            [*given, *dict.fromkeys(row.equation for folder in earlier for row in self._rows(column, folder))]
            for column in self.data.open
        ]

    def _work(self, arguments: Arguments) -> None:
        """Run the worker until it is done."""
        folder = self.run.folder
        folder.mkdir(exist_ok=True)
        written = {"output_directory": str(folder.parent), "run_id": folder.name}
        job = replace(arguments, init={**arguments.init, **written})
        folder.joinpath("job.json").write_text(job.to_json(), encoding="utf-8")
        self.data.write(folder / "data.npz")
        try:
            self._listen()
        finally:
            folder.joinpath("data.npz").unlink()

    def _listen(self) -> None:
        tail: deque[str] = deque(maxlen=_LINES_SHOWN)
        searching: Stopwatch | None = None
        looked, lowest = Stopwatch(), dict[tuple[int, int], float]()
        with closing(listen(self.worker, self.run.folder)) as heard, self._log_file() as log:
            for item in heard:
                match item:
                    case Printed(line):
                        tail.append(line)
                        log.write(line + "\n")
                        self._tell_of(line, searching is not None)
                    case Told("starting", _):
                        self._tell("starting Julia (the first time, this installs and compiles it: minutes)")
                    case Told("no julia", values):
                        raise no_julia(str(values.get("error")))
                    case Told("searching", values):
                        searching = Stopwatch()
                        self._tell(
                            f"PySR {values.get('pysr')}, Julia {values.get('julia')}: compiling and searching"
                        )
                    case Told("failed", values):
                        raise self._broken(f"failed: {values.get('error')}", tail)
                    case Told("done", _) if any(
                        self._rows(column, self.run.folder) for column in self.data.open
                    ):
                        self._look(lowest)
                        return
                    case Told("done", _):
                        raise self._broken(
                            "ended before its first iteration was over: give it more time", tail
                        )
                    case Ended(status):
                        raise self._broken(f"{describe_end(status)} before it was done", tail)
                if searching is not None and searching.seconds() > self._limit():
                    raise self._broken(
                        f"did not stop {self.overtime:g} s after its time limit, and was killed", tail
                    )
                if self.callbacks and looked.seconds() > _SECONDS_BETWEEN_LOOKS:
                    looked = Stopwatch()
                    self._look(lowest)

    def _log_file(self) -> TextIO:
        return self.run.folder.joinpath("worker.log").open("w", encoding="utf-8")

    def _limit(self) -> float:
        limit = self.search.timeout_in_seconds
        return float("inf") if limit is None else limit * len(self.data.open) + self.overtime

    def _broken(self, what: str, tail: Sequence[str]) -> BackendError:
        log = f" (all of it: {self.run.folder / 'worker.log'})" if self.run.kept else ""
        lines = "\n".join(f"    {line}" for line in tail) or "    (none)"
        return BackendError(f"PySR's worker {what}. The end of its output{log}:\n{lines}")

    def _tell_of(self, line: str, searching: bool) -> None:
        """While Julia starts, every line is news; later only the progress."""
        found = _PROGRESS.search(line)
        if found is not None:
            fraction = int(found.group(1)) / max(1, int(found.group(2)))
            for column in self.data.open:
                notify(self.callbacks, OutputProgressed(column, min(1.0, fraction)))
        elif not searching:
            self._tell(line)

    def _tell(self, text: str) -> None:
        notify(self.callbacks, StageTold("regress", text))

    def _look(self, lowest: dict[tuple[int, int], float]) -> None:
        """Tell of every equation that is the best of its complexity so far: ``lowest``, by column and complexity."""
        for column in self.data.open:
            for row in self._rows(column, self.run.folder):
                if row.loss < lowest.get((column, row.complexity), float("inf")):
                    lowest[column, row.complexity] = row.loss
                    text = in_names(row.equation, self.data.names)
                    notify(self.callbacks, OutputImproved(column, text, row.loss, row.complexity))

    def _rows(self, column: int, folder: Path) -> list[Row]:
        outputs = len(self.data.open)
        return read_table(folder / table_name(self.data.open.index(column), outputs))

    def _found(self, column: int, folders: Sequence[Path]) -> tuple[list[Expression], list[Unrunnable]]:
        """Equations that can run and that cannot, from these attempts."""
        rows = dict.fromkeys(row for folder in folders for row in self._rows(column, folder))
        definitions = julia_operators(self.search, self.pysr.major).definitions
        return translated(rows, self.data.names, definitions)

    def _finish(self, column: int, fronts: dict[int, ParetoFront]) -> None:
        fronts[column] = self._front(column, self.search)
        notify(self.callbacks, OutputFinished(column, fronts[column]))

    def _hand_over(self, *, refine: bool) -> None:
        """Tell what there is of outputs that are not finished."""
        for column in self.data.open:
            if self._rows(column, self.run.folder):
                front = self._front(column, replace(self.search, refine=refine))
                notify(self.callbacks, OutputInterrupted(column, front))

    def _front(self, column: int, search: SearchSpace) -> ParetoFront:
        data = self.data
        equations: list[Expression] = []
        unrunnable: list[Unrunnable] = []
        if column in data.open:
            equations, unrunnable = self._found(column, (*self.run.earlier, self.run.folder))
            equations += self.start
        if search.definitions:  # PySR kept to maxsize with definitions counted as one operator each
            longest = max(map(search.rules.count, equations), default=0)
            search = replace(search, maxsize=max(search.maxsize, longest))
        y = np.ascontiguousarray(data.Y[:, column])
        return ParetoFront(build_front(equations, data.X, y, search, data.names, data.weights), unrunnable)
