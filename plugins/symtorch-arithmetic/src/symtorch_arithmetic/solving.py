"""One task and one model, once: questions, answers, the equation of the answers, and the equation of the errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import Tensor

from symtorch_arithmetic.asking import Answers, ask
from symtorch_arithmetic.laws import Standing, standing
from symtorch_arithmetic.models import LanguageModel
from symtorch_arithmetic.reading import Reading, read
from symtorch_arithmetic.screening import Screening, screened
from symtorch_arithmetic.tasks import Task
from symtorch_core import (
    Candidate,
    Distillation,
    SearchError,
    SearchSpace,
    SymbolicModel,
    Transforms,
    distill,
)
from symtorch_core.events import Callback
from symtorch_core.expressions import variables
from symtorch_core.search import SelectionRule
from symtorch_core.studies import require_finished

LOSS: Final = "log1p(abs(r))"
"""Unless told otherwise. Answers are exact or wrong by any power of ten: one that is met exactly counts more than a
huge error made smaller, so that equations grow no poles where single answers are wrong. (Mean absolute errors do not
prevent that: a pole between whole numbers hits one outlier and leaves all other answers as they are.)"""
_HELD_OUT: Final = 0.35  # of the errors, to choose an equation by: rare ones must be among them, too
_FAR: Final = 100.0  # interquartile ranges of the answers, beyond which an answer is not even wrong
_FEWEST: Final = 10
_MAXSIZE: Final = 20
_PLAIN: Final = ("+", "-", "*")
_THRESHOLDS: Final = (*_PLAIN, "max", "greater_equal")


@final
@dataclass(frozen=True)
class Searching:
    """How much searching is done.

    Attributes:
        regressor: name of the backend.
        niterations, timeout: of each search.
        seed: of each search.
        folder: for finished searches.
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


@final
@dataclass(frozen=True, eq=False)
class Run:
    """What one model answered in one task, and what was found in it.

    Attributes:
        task: of the questions.
        model: the model's name.
        numbers: that were asked about, shape (n, d).
        prompts, answers: n of each.
        readings: of the answers.
        usable: which answers equations are fitted to, shape (n,): those with a number that is not absurdly far off.
        kinds: questions of which the accuracy is told apart, by name; shape (n,) each, boolean.
        law: the distillation of the answers.
        standing: where the true law is on its front; None where it is not.
        residual: the distillation of the errors (answer minus truth) of all usable answers.
        screening: which variables tell wrong answers from right ones.
    """

    task: Task
    model: str
    numbers: Tensor
    prompts: Sequence[str]
    answers: Sequence[str]
    readings: Sequence[Reading]
    usable: Tensor
    kinds: Mapping[str, Tensor]
    law: Distillation
    standing: Standing | None
    residual: Distillation
    screening: Screening

    @property
    def values(self) -> Tensor:
        """The answers as numbers, shape (n,), float64; NaN where there is none."""
        return torch.tensor([reading.value for reading in self.readings], dtype=torch.float64)

    @property
    def errors(self) -> Tensor:
        """Answer minus truth, shape (n,); exactly 0 for right answers."""
        return _errors(self.task, self.values, self.numbers)

    @property
    def right(self) -> Tensor:
        """Which answers are exactly right, shape (n,); those without a number are not."""
        return self.errors == 0

    @property
    def accuracy(self) -> float:
        """Share of all questions that were answered exactly right."""
        return float(self.right.double().mean())

    @property
    def equation(self) -> Candidate:
        """The chosen equation of the answers."""
        return self.law.chosen()[0]

    @property
    def error_equation(self) -> Candidate:
        """The chosen equation of the errors; a constant near 0 where nothing systematic was found."""
        return self.residual.chosen()[0]

    @property
    def error_variables(self) -> tuple[str, ...]:
        """Those in the equation of the errors; none where errors look random."""
        return tuple(sorted(variables(self.error_equation.expression)))

    def explained(self, *, with_error: bool) -> float:
        """Share of the usable answers that are what the true law says, to the answer's last digit.

        Args:
            with_error: add the equation of the errors to the law.
        """
        numbers, errors = self.numbers[self.usable], self.errors[self.usable]
        predicted = self.residual.surrogate()(numbers)[:, 0] if with_error else torch.zeros_like(errors)
        return float(((errors - predicted).abs() < self.task.step / 2).double().mean())


def solve(
    task: Task,
    model: LanguageModel,
    numbers: Tensor,
    answers: Answers,
    searching: Searching,
    *,
    kinds: Mapping[str, Tensor] = MappingProxyType({}),
) -> Run:
    """Ask, read, and look for equations.

    Args:
        task: of the questions.
        model: to ask.
        numbers: to ask about, shape (n, d).
        answers: where all answers are kept.
        searching: how.
        kinds: see :class:`Run`.

    Raises:
        SearchError: fewer than ten answers have a number.
    """
    prompts = task.ask(numbers)
    texts = ask(model, prompts, answers, searching.callbacks)
    readings = [read(text) for text in texts]
    values = torch.tensor([reading.value for reading in readings], dtype=torch.float64)
    usable = _within(values, values)
    if int(usable.sum()) < _FEWEST:
        raise SearchError(
            f"only {int(usable.sum())} of {len(values)} answers of {model.name} to {task.name} have a number, too few "
            f"for an equation. The first answer is: {texts[0][:200]!r}"
        )

    def answered(asked: Tensor) -> Tensor:
        """The model as a function of numbers (n, d) -> (n, 1); NaN where an answer cannot be used."""
        said = [read(text).value for text in ask(model, task.ask(asked), answers)]
        column = torch.tensor(said, dtype=torch.float64)
        return torch.where(_within(column, values), column, torch.nan)[:, None]

    law = _of_answers(task, SymbolicModel(answered, name=task.name), numbers, searching)
    errors = _errors(task, values, numbers)[usable]
    digits = Transforms(task.variables, task.digits)(numbers[usable])
    return Run(
        task=task,
        model=model.name,
        numbers=numbers,
        prompts=prompts,
        answers=texts,
        readings=readings,
        usable=usable,
        kinds=kinds,
        law=law,
        standing=standing(law.front(0), task),
        residual=_of_errors(task, numbers[usable], errors, searching),
        screening=screened(digits, tuple(task.digits), errors != 0, searching.seed),
    )


def _of_answers(task: Task, model: SymbolicModel, numbers: Tensor, searching: Searching) -> Distillation:
    """Answers as equations in the numbers."""
    # The paper's operators; sines and exponentials of single terms only, as in the reference study.
    space = _space(searching, ("+", "*"), ("inv", "sin", "exp"), constraints={"sin": (1,), "exp": (1,)})
    found = model.distill(
        numbers,
        search=space,
        output_names=["answer"],
        on_nonfinite="drop",
        out_of_range=False,
        **_options(task, searching),
    )
    return require_finished(found)


def _of_errors(task: Task, numbers: Tensor, errors: Tensor, searching: Searching) -> Distillation:
    """Errors as equations in the task's digits, with thresholds where the backend has them."""

    def found(operators: tuple[str, ...]) -> Distillation:
        return distill(
            (numbers, errors[:, None]),
            search=_space(searching, operators, ()),
            transforms=task.digits,
            test_fraction=_HELD_OUT,
            output_names=["error"],
            **_options(task, searching),
        )

    try:
        return require_finished(found(_THRESHOLDS))
    except SearchError:
        return require_finished(found(_PLAIN))


def _options(task: Task, searching: Searching) -> dict[str, Any]:
    return {
        "regressor": searching.regressor,
        "variable_names": task.variables,
        "select": searching.select,
        "seed": searching.seed,
        "resume": searching.folder,
        "callbacks": searching.callbacks,
        "progress": False,
    }


def _space(searching: Searching, binary: tuple[str, ...], unary: tuple[str, ...], **more: Any) -> SearchSpace:
    return SearchSpace(
        binary_operators=binary,
        unary_operators=unary,
        niterations=searching.niterations,
        maxsize=_MAXSIZE,
        loss=searching.loss,
        timeout_in_seconds=searching.timeout,
        **more,
    )


def _errors(task: Task, values: Tensor, numbers: Tensor) -> Tensor:
    errors = values - task.truth(numbers)
    return errors.masked_fill(task.right(values, numbers), 0.0)


def _within(values: Tensor, answers: Tensor) -> Tensor:
    """Which values (n,) are not absurdly far from the answers (m,); NaN never is, and is none of the answers."""
    numbers = answers[~answers.isnan()]
    if not len(numbers):
        return torch.zeros_like(values, dtype=torch.bool)
    low, middle, high = numbers.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=numbers.dtype))
    return (values - middle).abs() <= _FAR * (high - low).clamp_min(1.0)
