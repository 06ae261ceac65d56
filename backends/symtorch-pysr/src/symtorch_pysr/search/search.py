"""One search: the job of the worker, its progress, and the fronts built from its tables."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TextIO, final

import numpy as np

from symtorch_core import BackendError, ParetoFront, SearchSpace
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
from symtorch_core.search import AT_ONCE, NEVER, Deadline, Unrunnable, build_front, reserve_for_front
from symtorch_pysr.arguments.expressions import name_variable, write_julia
from symtorch_pysr.arguments.job import Arguments, build_arguments
from symtorch_pysr.arguments.operators import translate_operators
from symtorch_pysr.arguments.parameters import Installation
from symtorch_pysr.julia import make_julia_error
from symtorch_pysr.search.data import Data
from symtorch_pysr.search.folders import Run
from symtorch_pysr.search.process import Exit, Message, OutputLine, describe_end, listen
from symtorch_pysr.search.tables import Row, name_table, read_table, rename_variables, translate_rows

_LINES_SHOWN = 20
_TABLES = "tables"
_SECONDS_BETWEEN_READS = 0.5
_PROGRESS = re.compile(r"Progress: *(\d+) */ *(\d+) total iterations")


@final
@dataclass(frozen=True)
class Search:
    """One search.

    Attributes:
        data: the rows.
        search: the search space.
        pysr: the installed PySR.
        run: the folder.
        worker: the command of the worker.
        seed: seed of a deterministic search; None for PySR's default.
        start: equations to start from.
        elementwise_loss: Julia code for the loss, or None.
        overtime: seconds after the time limit until the worker is killed.
        options: parameters that are passed on to PySR.
        callbacks: called with events of the search.
    """

    data: Data
    search: SearchSpace
    pysr: Installation
    run: Run
    worker: tuple[str, ...]
    seed: int | None
    start: tuple[Expression, ...]
    elementwise_loss: str | None
    overtime: float
    options: Mapping[str, Any]
    callbacks: tuple[Callback, ...]

    def run_to_fronts(self) -> list[ParetoFront]:
        """Search, and return the front of each output.

        Raises:
            SearchError: PySR cannot run this search.
            BackendError: the search failed; callbacks have received the best equations so far.
            MissingDependencyError: there is no Julia.
        """
        rows = self._load_tables()
        arguments = self._build_arguments() if rows is None else None
        fronts: dict[int, ParetoFront] = {}
        for column in sorted(set(range(self.data.Y.shape[1])) - set(self.data.varying)):
            self._finish(column, [], fronts, NEVER)
        try:
            if arguments is not None and self.data.varying:
                self._run_worker(arguments)
            if rows is None:
                rows = [self._collect_rows(column) for column in self.data.varying]
                self._save_tables(rows)
            deadline = self._start_fronts()
            for position, (column, found) in enumerate(zip(self.data.varying, rows, strict=True)):
                self._finish(column, found, fronts, deadline.share(len(rows) - position))
        except BackendError:
            self._hand_over(fronts, self._start_fronts())
            raise
        except KeyboardInterrupt:  # there is no time for a refit
            self._hand_over(fronts, AT_ONCE)
            raise
        return [fronts[column] for column in sorted(fronts)]

    def _start_fronts(self) -> Deadline:
        """Return the end of the time for all fronts; Julia may have taken its own time to start and to stop."""
        limit = self.search.timeout_in_seconds
        return Deadline.after(None if limit is None else reserve_for_front(limit) * len(self.data.varying))

    def _load_tables(self) -> list[list[Row]] | None:
        """Return the rows for each varying output of an earlier attempt that ended before its fronts were kept.

        Raises:
            FileFormatError: their file is damaged.
        """
        kept = None if self.run.tables is None else self.run.tables.read_json(_TABLES)
        return None if kept is None else [[Row(*row) for row in table] for table in kept]

    def _save_tables(self, rows: Sequence[Sequence[Row]]) -> None:
        if self.run.tables is not None:
            self.run.tables.write_json(_TABLES, [[astuple(row) for row in table] for table in rows])

    def _build_arguments(self) -> Arguments:
        guesses = self._write_guesses()
        return build_arguments(
            self.search,
            self.pysr,
            variable_names=self.data.names,
            rows=len(self.data.X),
            weighted=self.data.weights is not None,
            outputs=len(self.data.varying),
            elementwise_loss=self.elementwise_loss,
            seed=self.seed,
            guesses=guesses if any(guesses) else None,
            # The user's own precision has precedence.
            options=self.options if self.data.fits_single else {"precision": 64, **self.options},
        )

    def _write_guesses(self) -> list[list[str]]:
        """Return, for each varying output, the user's equations in Julia and PySR's own of earlier attempts."""
        names = {
            **translate_operators(self.search, self.pysr.major).names,
            **{name: name_variable(column) for column, name in enumerate(self.data.names)},
        }
        given = [write_julia(equation, self.search, names) for equation in self.start]
        return [
            [
                *given,
                *(row.equation for row in (self._read_earlier(column) if self.pysr.takes_guesses else ())),
            ]
            for column in self.data.varying
        ]

    def _run_worker(self, arguments: Arguments) -> None:
        """Write the job, and run the worker to its end."""
        folder = self.run.folder
        folder.mkdir(parents=True, exist_ok=True)
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
        reading, lowest = Stopwatch(), dict[tuple[int, int], float]()
        with closing(listen(self.worker, self.run.folder)) as events, self._open_log() as log:
            for event in events:
                match event:
                    case OutputLine(line):
                        tail.append(line)
                        log.write(line + "\n")
                        self._report_line(line, searching is not None)
                    case Message("starting", _):
                        self._report(
                            "starting Julia (the first time, this installs and compiles it: minutes)"
                        )
                    case Message("no julia", values):
                        raise make_julia_error(str(values.get("error")))
                    case Message("searching", values):
                        searching = Stopwatch()
                        self._report(
                            f"PySR {values.get('pysr')}, Julia {values.get('julia')}: compiling and searching"
                        )
                    case Message("failed", values):
                        raise self._make_error(f"failed: {values.get('error')}", tail)
                    case Message("done", _) if any(
                        self._read_rows(column, self.run.folder) for column in self.data.varying
                    ):
                        self._report_improvements(lowest)
                        return
                    case Message("done", _):
                        raise self._make_error(
                            "ended before its first iteration was over: give it more time", tail
                        )
                    case Exit(status):
                        raise self._make_error(f"{describe_end(status)} before it was done", tail)
                if searching is not None and searching.seconds() > self._compute_limit():
                    raise self._make_error(
                        f"did not stop {self.overtime:g} s after its time limit, and was killed", tail
                    )
                if self.callbacks and reading.seconds() > _SECONDS_BETWEEN_READS:
                    reading = Stopwatch()
                    self._report_improvements(lowest)

    def _open_log(self) -> TextIO:
        return self.run.folder.joinpath("worker.log").open("w", encoding="utf-8")

    def _compute_limit(self) -> float:
        limit = self.search.timeout_in_seconds
        if limit is None:
            return float("inf")
        return (limit - reserve_for_front(limit)) * len(self.data.varying) + self.overtime

    def _make_error(self, what: str, tail: Sequence[str]) -> BackendError:
        log = f" (all of it: {self.run.folder / 'worker.log'})" if self.run.kept else ""
        lines = "\n".join(f"    {line}" for line in tail) or "    (none)"
        return BackendError(f"PySR's worker {what}. The end of its output{log}:\n{lines}")

    def _report_line(self, line: str, searching: bool) -> None:
        """Report a line of output: while Julia starts, every line; later, only the progress."""
        found = _PROGRESS.search(line)
        if found is not None:
            fraction = int(found.group(1)) / max(1, int(found.group(2)))
            for column in self.data.varying:
                notify(self.callbacks, OutputProgressed(column, min(1.0, fraction)))
        elif not searching:
            self._report(line)

    def _report(self, text: str) -> None:
        notify(self.callbacks, StageTold("regress", text))

    def _report_improvements(self, lowest: dict[tuple[int, int], float]) -> None:
        """Report every equation that is the best of its complexity so far.

        Args:
            lowest: lowest loss so far, by column and complexity; is updated.
        """
        for column in self.data.varying:
            for row in self._read_rows(column, self.run.folder):
                if row.loss < lowest.get((column, row.complexity), float("inf")):
                    lowest[column, row.complexity] = row.loss
                    text = rename_variables(row.equation, self.data.names)
                    notify(self.callbacks, OutputImproved(column, text, row.loss, row.complexity))

    def _read_rows(self, column: int, folder: Path) -> list[Row]:
        outputs = len(self.data.varying)
        return read_table(folder / name_table(self.data.varying.index(column), outputs))

    def _read_earlier(self, column: int) -> list[Row]:
        """Return the rows of earlier attempts whose equations the core can compute, and so measure anew.

        Others are left out: the file of an attempt that was killed may be damaged.
        """
        rows = dict.fromkeys(row for folder in self.run.earlier for row in self._read_rows(column, folder))
        return [row for row in rows if self._translate([row])[0]]

    def _collect_rows(self, column: int) -> list[Row]:
        """Return the rows that the front of an output is built from."""
        return list(dict.fromkeys([*self._read_earlier(column), *self._read_rows(column, self.run.folder)]))

    def _translate(self, rows: Iterable[Row]) -> tuple[list[Expression], list[Unrunnable]]:
        """Return the equations that the core can compute, and those that it cannot."""
        definitions = translate_operators(self.search, self.pysr.major).definitions
        return translate_rows(rows, self.data.names, definitions)

    def _finish(
        self, column: int, rows: Sequence[Row], fronts: dict[int, ParetoFront], deadline: Deadline
    ) -> None:
        fronts[column] = self._build_front(column, rows, deadline)
        notify(self.callbacks, OutputFinished(column, fronts[column]))

    def _hand_over(self, fronts: Mapping[int, ParetoFront], deadline: Deadline) -> None:
        """Report the fronts so far of outputs that are not finished."""
        for column in self.data.varying:
            if column not in fronts and self._read_rows(column, self.run.folder):
                front = self._build_front(column, self._collect_rows(column), deadline)
                notify(self.callbacks, OutputInterrupted(column, front))

    def _build_front(self, column: int, rows: Sequence[Row], deadline: Deadline) -> ParetoFront:
        data = self.data
        equations: list[Expression] = []
        unrunnable: list[Unrunnable] = []
        if column in data.varying:
            equations, unrunnable = self._translate(rows)
            equations += self.start
        search = self.search
        if search.definitions:  # for PySR's maxsize, each definition counts as one operator
            longest = max(map(search.rules.count, equations), default=0)
            search = replace(search, maxsize=max(search.maxsize, longest))
        y = np.ascontiguousarray(data.Y[:, column])
        return ParetoFront(
            build_front(equations, data.X, y, search, data.names, data.weights, deadline), unrunnable
        )
