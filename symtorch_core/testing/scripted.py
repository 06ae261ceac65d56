"""A regressor with prescribed equations, for tests of everything around a search."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, final

from symtorch_core.expressions import Expression, parse
from symtorch_core.search.problem import Problem
from symtorch_core.search.regressor import OutputwiseRegressor
from symtorch_core.search.space import SearchSpace


@final
@dataclass(frozen=True)
class ScriptedRegressor(OutputwiseRegressor):
    """Regressor that proposes the given equations for every output; constants are refitted as for any backend.

    Attributes:
        equations: texts in the variables of the search.
        interrupt_at: number of the output at which to raise KeyboardInterrupt; None for never.
        n_jobs: number of joblib workers.
    """

    name: ClassVar[str] = "scripted"
    equations: tuple[str, ...] = ()
    interrupt_at: int | None = None
    n_jobs: int = 1

    def check(self, search: SearchSpace) -> None:
        """Accept every search."""

    def search(self, problem: Problem) -> Iterable[Expression]:
        if problem.output == self.interrupt_at:
            raise KeyboardInterrupt
        problem.report_progress(1.0)
        return [parse(text, problem.variable_names) for text in self.equations]
