"""The regressor ``pysr``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, final

from torch import Tensor

from symtorch_core import (
    Candidate,
    Finding,
    MissingDependencyError,
    ParetoFront,
    Regressor,
    SearchError,
    SearchSpace,
)
from symtorch_core.events import Callback
from symtorch_core.expressions import parse
from symtorch_core.search import read_start
from symtorch_pysr.arguments.job import check_options, list_options
from symtorch_pysr.arguments.losses import read_core_loss
from symtorch_pysr.arguments.parameters import read_installed
from symtorch_pysr.julia import check_julia
from symtorch_pysr.search.data import Data
from symtorch_pysr.search.folders import open_run_folder
from symtorch_pysr.search.search import Search

_WORKER = (sys.executable, "-P", "-m", "symtorch_pysr.worker")


@final
@dataclass(frozen=True)
class PySRRegressor(Regressor):
    """PySR 1.5 or newer, for all outputs in one search, in a separate process.

    An iteration is one of PySR's. A time limit is multiplied by the number of outputs, since they are searched
    together. Parameters of PySR that are not named here are passed on, in ``options`` or by name as options of this
    regressor, after a check that the installed PySR takes them.

    Attributes:
        deterministic: whether the same seed gives the same result, by a serial search with PySR's ``random_state``.
            By default PySR uses many threads, which is faster, but no two searches are the same. With ``resume=``, a
            deterministic search that was killed starts anew, and another one from the equations on disk.
        start: equations to start from: text in the variables, candidates, or a whole front (PySR 2).
        elementwise_loss: Julia code for the loss, in place of the search's. The core must be able to read it, or the
            search must have the same loss as a torch function; see
            :func:`symtorch_pysr.arguments.losses.read_core_loss`.
        output_directory: folder in which a folder with PySR's files is kept; None for temporary files.
        run_id: name of the folder with PySR's files; made up if None.
        overtime_in_seconds: seconds after its time limit until a search is killed.
        worker: command that runs a search; the folder of the job becomes its last argument. Name another Python here to
            use a PySR in another environment.
        options: parameters that are passed on to PySR.

    >>> PySRRegressor(options={"populations": 40}).name
    'pysr'
    """

    name: ClassVar[str] = "pysr"
    neutral_options: ClassVar[tuple[str, ...]] = ("overtime_in_seconds", "worker")

    deterministic: bool = False
    start: Sequence[str | Candidate] = ()
    elementwise_loss: str | None = None
    output_directory: str | Path | None = None
    run_id: str | None = None
    overtime_in_seconds: float = 120.0
    worker: tuple[str, ...] = _WORKER
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.at_least(0, "overtime_in_seconds")
        self.flags("deterministic")
        self._check_texts()
        if self.run_id is not None and self.output_directory is None:
            raise SearchError("run_id names a folder in output_directory: give both")
        if self.deterministic and self.options.get("parallelism", "serial") != "serial":
            raise SearchError(
                'a deterministic search is serial: leave out parallelism, or set it to "serial"'
            )
        object.__setattr__(self, "start", read_start(self.start))

    def _check_texts(self) -> None:
        for option in ("elementwise_loss", "run_id"):
            value = getattr(self, option)
            if value is not None and not isinstance(value, str):
                raise SearchError(f"pysr's {option} must be a text or None, got {value!r}")
        if self.output_directory is not None and not isinstance(self.output_directory, str | Path):
            raise SearchError(
                f"pysr's output_directory must be a path or None, got {self.output_directory!r}"
            )
        listed = isinstance(self.worker, tuple | list)
        if not listed or not all(isinstance(part, str) for part in self.worker):
            raise SearchError(
                f"pysr's worker must be a list of texts, like {list(_WORKER)}, got {self.worker!r}"
            )
        _check_dictionary(self.options)

    @classmethod
    def passed_options(cls) -> tuple[str, ...]:
        try:
            return list_options(read_installed())
        except MissingDependencyError:
            return ()

    @classmethod
    def with_options(cls, options: Mapping[str, Any]) -> Self:
        own = {entry.name for entry in fields(cls)}
        passed = {name: value for name, value in options.items() if name not in own}
        if passed:
            check_options(passed, read_installed(), also=sorted(own))
        ours = {name: value for name, value in options.items() if name in own}
        both = ours.get("options", {})
        _check_dictionary(both)
        return cls(**{**ours, "options": {**both, **passed}})

    @classmethod
    def checkup(cls) -> tuple[Finding, ...]:
        return check_julia()

    def resolve_search(self, search: SearchSpace) -> SearchSpace:
        return replace(search, loss=read_core_loss(search.loss, self.elementwise_loss))

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
        pysr = read_installed()
        check_options(self.options, pysr)
        if self.start and not pysr.takes_guesses:
            raise SearchError(f"PySR {pysr.version} cannot start from equations; PySR 2 can")
        data = Data.of(X, Y, weights, tuple(variable_names))
        search = self.resolve_search(search)
        with open_run_folder(self.output_directory, self.run_id, folder) as run:
            return Search(
                data,
                search=search,
                pysr=pysr,
                run=replace(run, earlier=()) if self.deterministic else run,
                worker=self.worker,
                seed=seed if self.deterministic else None,
                start=tuple(parse(str(text), data.names) for text in self.start),
                elementwise_loss=self.elementwise_loss,
                overtime=self.overtime_in_seconds,
                options=self.options,
                callbacks=tuple(callbacks),
            ).run_to_fronts()


def _check_dictionary(options: Any) -> None:
    if not isinstance(options, Mapping):
        raise SearchError(f"pysr's options must be a dictionary, like {{'populations': 40}}, got {options!r}")
