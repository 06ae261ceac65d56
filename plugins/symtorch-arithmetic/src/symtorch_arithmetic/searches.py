"""The searches of the study: for the answers, for the errors, and for laws in turn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from torch import Tensor

from symtorch_arithmetic.tasks import Task
from symtorch_core import Distillation, SearchError, SearchSpace, SymbolicModel, distill
from symtorch_core.events import Callback
from symtorch_core.expressions import Expression
from symtorch_core.search import SelectionRule
from symtorch_core.studies import require_finished

LOSS: Final = "log1p(abs(r))"
"""The default. Answers are exact or wrong by any power of ten. With this loss, an answer that is met exactly counts
more than a huge error made smaller, so equations get no poles where single answers are wrong. (Mean absolute errors do
not prevent poles: one between whole numbers fits one outlier and leaves all other answers as they are.)"""
_BOUNDED: Final = "r^2/(r^2 + 1)"  # about the share of answers that are not met
_HELD_OUT: Final = 0.35  # share of the errors by which an equation is chosen: rare ones must be among them
_SHORTER: Final = 4
_MAXSIZE: Final = 20
_PLAIN: Final = ("+", "-", "*")
_THRESHOLDS: Final = (*_PLAIN, "max", "greater_equal")
# The paper's operators; arguments of sin and exp are single terms, as in the reference study.
_PAPERS: Final[tuple[tuple[str, ...], ...]] = (("+", "*"), ("inv", "sin", "exp"))
_SINGLE: Final = {"sin": (1,), "exp": (1,)}


@final
@dataclass(frozen=True)
class SearchSettings:
    """Settings of the searches.

    Attributes:
        regressor: name of the backend.
        niterations, timeout: of each search.
        seed: of each search.
        folder: where finished searches are kept.
        callbacks: told of all stages.
        loss, select: as for :func:`symtorch_core.distill`.
    """

    regressor: str
    niterations: int
    timeout: float | None
    seed: int
    folder: Path
    callbacks: Sequence[Callback] = ()
    loss: str = LOSS
    select: SelectionRule = "simplest"


def distill_answers(
    task: Task, model: SymbolicModel, numbers: Tensor, settings: SearchSettings
) -> Distillation:
    """Distill the answers into equations in the numbers."""
    found = model.distill(
        numbers,
        search=_build_search_space(settings, *_PAPERS, constraints=_SINGLE),
        output_names=["answer"],
        capture_options={"on_nonfinite": "drop"},
        out_of_range=False,
        **_share_options(task, settings),
    )
    return require_finished(found)


def distill_errors(task: Task, numbers: Tensor, errors: Tensor, settings: SearchSettings) -> Distillation:
    """Distill the errors into equations in the task's digits, with thresholds where the backend has them."""

    def found(operators: tuple[str, ...]) -> Distillation:
        return distill(
            (numbers, errors[:, None]),
            search=_build_search_space(settings, operators, ()),
            transforms=task.digits,
            test_fraction=_HELD_OUT,
            output_names=["error"],
            **_share_options(task, settings),
        )

    try:
        return require_finished(found(_THRESHOLDS))
    except SearchError:
        return require_finished(found(_PLAIN))


def search_some(
    task: Task, numbers: Tensor, values: Tensor, number: int, settings: SearchSettings
) -> list[Expression]:
    """Return equations for some of the answers: the whole front of a search that counts answers met exactly.

    Every second search has a bounded loss, for which an answer that is not met is as bad as any other. It has a quarter
    of the iterations: there are several, and consensus finds short laws without them.
    """
    settings = replace(settings, niterations=max(1, settings.niterations // _SHORTER))
    options = _share_options(task, settings) | {"seed": settings.seed + number}
    loss = _BOUNDED if number % 2 else settings.loss
    with warnings.catch_warnings():
        # What is left after the last law is noise, and a law of few answers explains little: that is no news here.
        warnings.filterwarnings("ignore", ".*on held-out rows", RuntimeWarning)
        found = distill(
            (numbers, values[:, None]),
            search=_build_search_space(settings, *_PAPERS, constraints=_SINGLE, loss=loss),
            output_names=["answer"],
            **options,
        )
    return [candidate.expression for candidate in require_finished(found).front(0)]


def _share_options(task: Task, settings: SearchSettings) -> dict[str, Any]:
    return {
        "regressor": settings.regressor,
        "variable_names": task.variables,
        "select": settings.select,
        "seed": settings.seed,
        "resume": settings.folder,
        "callbacks": settings.callbacks,
        "progress": False,
    }


def _build_search_space(
    settings: SearchSettings,
    binary: tuple[str, ...],
    unary: tuple[str, ...],
    *,
    loss: str | None = None,
    **more: Any,
) -> SearchSpace:
    return SearchSpace(
        binary_operators=binary,
        unary_operators=unary,
        niterations=settings.niterations,
        maxsize=_MAXSIZE,
        loss=loss or settings.loss,
        timeout_in_seconds=settings.timeout,
        **more,
    )
