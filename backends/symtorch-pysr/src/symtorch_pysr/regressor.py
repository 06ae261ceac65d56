"""The regressor ``pysr``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, final

from torch import Tensor

from symtorch_core import Candidate, Finding, ParetoFront, Regressor, SearchError, SearchSpace
from symtorch_core.events import Callback
from symtorch_core.expressions import parse
from symtorch_pysr.arguments import check_options
from symtorch_pysr.julia import findings
from symtorch_pysr.losses import core_loss
from symtorch_pysr.parameters import installed
from symtorch_pysr.runs import run_folder
from symtorch_pysr.search import Data, Search

_WORKER = (sys.executable, "-P", "-m", "symtorch_pysr.worker")


@final
@dataclass(frozen=True)
class PySRRegressor(Regressor):
    """PySR 1.5 or newer, for all outputs in one search, in a process of its own.

    An iteration is one of PySR's. A time limit is multiplied by the number of outputs, since they are searched
    together. Parameters of PySR that are not named here are passed through (``populations=40`` to
    :func:`symtorch_core.distill`, or in ``options``), after a look at what the installed PySR takes.

    Attributes:
        deterministic: same seed, same result: a serial search with PySR's ``random_state``. PySR's default, many
            threads, is faster and never twice the same.
        start: equations to start from: text in the variables, candidates, or a whole front (PySR 2).
        elementwise_loss: Julia code for the loss, instead of the search's; the core must be able to read it, or be
            given the same loss as a torch function. See :func:`symtorch_pysr.losses.core_loss`.
        output_directory: keep PySR's files in a folder of that folder.
        run_id: name of that folder; made up if None.
        overtime_in_seconds: how much later than its time limit a search may end before it is killed.
        worker: command that runs a search; the folder of the job becomes its last argument. Give another Python to use
            a PySR that lives elsewhere.
        options: passed through to PySR.

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
        if isinstance(self.start, str):
            raise SearchError(f"start takes a list of equations, like ({self.start!r},)")
        if self.overtime_in_seconds < 0:
            raise SearchError("overtime_in_seconds must not be negative")
        if self.run_id is not None and self.output_directory is None:
            raise SearchError("run_id names a folder in output_directory: give both")
        if self.deterministic and self.options.get("parallelism", "serial") != "serial":
            raise SearchError(
                'a deterministic search is serial: leave out parallelism, or set it to "serial"'
            )
        texts = (item if isinstance(item, str) else item.text(None) for item in self.start)
        object.__setattr__(self, "start", tuple(texts))

    @classmethod
    def with_options(cls, options: Mapping[str, Any], *, also: Iterable[str] = ()) -> Self:
        own = {entry.name for entry in fields(cls)}
        passed = {name: value for name, value in options.items() if name not in own}
        if passed:
            check_options(passed, installed(), also=sorted({*own, *also}))
        ours = {name: value for name, value in options.items() if name in own}
        return cls(**{**ours, "options": {**ours.get("options", {}), **passed}})

    @classmethod
    def checkup(cls) -> tuple[Finding, ...]:
        return findings()

    def resolve_search(self, search: SearchSpace) -> SearchSpace:
        return replace(search, loss=core_loss(search.loss, self.elementwise_loss))

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
        pysr = installed()
        check_options(self.options, pysr)
        if self.start and not pysr.takes_guesses:
            raise SearchError(f"PySR {pysr.version} cannot start from equations; PySR 2 can")
        data = Data.of(X, Y, weights, tuple(variable_names))
        search = self.resolve_search(search)
        with run_folder(self.output_directory, self.run_id, folder) as run:
            return Search(
                data,
                search=search,
                pysr=pysr,
                run=run,
                worker=self.worker,
                seed=seed if self.deterministic else None,
                start=tuple(parse(str(text), data.names) for text in self.start),
                elementwise_loss=self.elementwise_loss,
                overtime=self.overtime_in_seconds,
                options=self.options,
                callbacks=tuple(callbacks),
            ).run_to_fronts()
