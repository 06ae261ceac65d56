"""One task and one model: questions, answers, the equation of the answers, and the equation of the errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

import torch
from torch import Tensor

from symtorch_arithmetic.analysis.error_analysis import ErrorAnalysis, analyze_errors
from symtorch_arithmetic.analysis.laws import LawPosition, find_law
from symtorch_arithmetic.analysis.mixture import Mixture, find_laws
from symtorch_arithmetic.answers.kinds import Kind, KindCount, classify_all, count_kinds
from symtorch_arithmetic.answers.prompting import Answers, ask
from symtorch_arithmetic.answers.reading import Reading, read_by_paper, read_number
from symtorch_arithmetic.models.language_models import LanguageModel
from symtorch_arithmetic.searches import SearchSettings, distill_answers, distill_errors, search_some
from symtorch_arithmetic.tasks import Task
from symtorch_core import Candidate, Distillation, SearchError, SymbolicModel, Transforms
from symtorch_core.expressions import variables

_FAR: Final = 100.0  # in interquartile ranges of the answers; answers beyond are not used
_FEWEST: Final = 10


@final
class TooFewNumbersError(SearchError):
    """Too few answers have a number to search for equations."""


@final
@dataclass(frozen=True, eq=False)
class Run:
    """The answers of one model to one task, and the equations found in them.

    Attributes:
        task: of the questions.
        model: the model's name.
        numbers: in the questions, shape (n, d).
        prompts, answers: n of each.
        readings: of the answers.
        usable: the answers that equations are fitted to, shape (n,): those with a number that is not absurdly far off.
        kinds: kinds of questions whose accuracy is reported separately, by name; shape (n,) each, boolean.
        law: the distillation of the answers.
        law_position: of the true law on its front; None where it is not on the front.
        residual: the distillation of the errors (answer minus truth) of all usable answers.
        error_analysis: which variables decide whether an answer is wrong.
        mixture: laws in turn, found in the usable answers alone.
        deciding: which variables decide by which of these laws, or by none, a question is answered.
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
    law_position: LawPosition | None
    residual: Distillation
    error_analysis: ErrorAnalysis
    mixture: Mixture
    deciding: ErrorAnalysis

    @property
    def values(self) -> Tensor:
        """The answers as numbers, shape (n,), float64; NaN where there is none."""
        return torch.tensor([reading.value for reading in self.readings], dtype=torch.float64)

    @property
    def errors(self) -> Tensor:
        """Answer minus truth, shape (n,); exactly 0 for right answers."""
        return _compute_errors(self.task, self.values, self.numbers)

    @property
    def right(self) -> Tensor:
        """Which answers are exactly right, shape (n,); those without a number are not."""
        return self.errors == 0

    @property
    def accuracy(self) -> float:
        """Share of all questions that were answered exactly right."""
        return float(self.right.double().mean())

    @property
    def accuracy_by_paper(self) -> float:
        """Share of right answers where the paper's rule reads them, which takes the first number."""
        said = torch.tensor([read_by_paper(text) for text in self.answers], dtype=torch.float64)
        return float(self.task.find_right(said, self.numbers).double().mean())

    @property
    def answer_kinds(self) -> list[Kind]:
        """The kind of each answer by definition, n of them."""
        return classify_all(*self._list_plain())

    def count_kinds(self) -> list[KindCount]:
        """Count the kinds of answers by definition, and how often each comes by chance."""
        return count_kinds(*self._list_plain())

    def _list_plain(self) -> tuple[list[float], list[float], list[tuple[float, ...]], float]:
        """Return answers, right answers, numbers of the questions, and the step."""
        truths = self.task.compute_truth(self.numbers).tolist()
        return self.values.tolist(), truths, self.task.list_asked(self.numbers), self.task.step

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
        """Variables in the equation of the errors; none where errors look random."""
        return tuple(sorted(variables(self.error_equation.expression)))

    def compute_explained_share(self, *, with_error: bool) -> float:
        """Return the share of the usable answers that the true law explains, to the answer's last digit.

        Args:
            with_error: add the equation of the errors to the law.
        """
        numbers, errors = self.numbers[self.usable], self.errors[self.usable]
        predicted = self.residual.surrogate()(numbers)[:, 0] if with_error else torch.zeros_like(errors)
        return float(((errors - predicted).abs() < self.task.step / 2).double().mean())


def run_experiment(
    task: Task,
    model: LanguageModel,
    numbers: Tensor,
    answers: Answers,
    settings: SearchSettings,
    *,
    kinds: Mapping[str, Tensor] = MappingProxyType({}),
) -> Run:
    """Ask, read the answers, and search for equations.

    Args:
        task: of the questions.
        model: to ask.
        numbers: of the questions, shape (n, d).
        answers: the file where all answers are kept.
        settings: of the searches.
        kinds: see :class:`Run`.

    Raises:
        TooFewNumbersError: fewer than ten answers have a number.
    """
    prompts = task.write_prompts(numbers)
    texts = ask(model, prompts, answers, settings.callbacks)
    readings = _read(task, numbers, texts)
    values = torch.tensor([reading.value for reading in readings], dtype=torch.float64)
    usable = _find_usable(values, values)
    if int(usable.sum()) < _FEWEST:
        raise TooFewNumbersError(
            f"only {int(usable.sum())} of {len(values)} answers of {model.name} to {task.name} have a number, too few "
            f"for an equation: ask more questions, or another model. The first answer is: {texts[0][:200]!r}"
        )

    def answer(asked: Tensor) -> Tensor:
        """Return the model's answers to numbers (n, d), shape (n, 1); NaN where an answer cannot be used."""
        texts = ask(model, task.write_prompts(asked), answers)
        said = [reading.value for reading in _read(task, asked, texts)]
        column = torch.tensor(said, dtype=torch.float64)
        return torch.where(_find_usable(column, values), column, torch.nan)[:, None]

    law = distill_answers(task, SymbolicModel(answer, name=task.name), numbers, settings)
    errors = _compute_errors(task, values, numbers)[usable]
    digits = Transforms(task.variables, task.digits)(numbers[usable])
    mixture = find_laws(
        task.variables,
        numbers[usable],
        values[usable],
        lambda asked, said, number: search_some(task, asked, said, number, settings),
        step=task.step,
        different=len(task.compute_truth(numbers).unique()),
        seed=settings.seed,
    )
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
        law_position=find_law(law.front(0), task),
        residual=distill_errors(task, numbers[usable], errors, settings),
        error_analysis=analyze_errors(digits, tuple(task.digits), errors != 0, settings.seed),
        mixture=mixture,
        deciding=_find_deciding(task, numbers[usable], mixture, settings.seed),
    )


def _read(task: Task, numbers: Tensor, texts: Sequence[str]) -> list[Reading]:
    return [read_number(text, asked) for text, asked in zip(texts, task.list_asked(numbers), strict=True)]


def _find_deciding(task: Task, numbers: Tensor, mixture: Mixture, seed: int) -> ErrorAnalysis:
    """Find which of the numbers and their digits decide between the laws."""
    derived = {variable: variable for variable in task.variables} | dict(task.digits)
    return analyze_errors(Transforms(task.variables, derived)(numbers), tuple(derived), mixture.places, seed)


def _compute_errors(task: Task, values: Tensor, numbers: Tensor) -> Tensor:
    errors = values - task.compute_truth(numbers)
    return errors.masked_fill(task.find_right(values, numbers), 0.0)


def _find_usable(values: Tensor, answers: Tensor) -> Tensor:
    """Return which values (n,) are not absurdly far from the answers (m,); NaN never is."""
    numbers = answers[~answers.isnan()]
    if not len(numbers):
        return torch.zeros_like(values, dtype=torch.bool)
    low, middle, high = numbers.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=numbers.dtype))
    return (values - middle).abs() <= _FAR * (high - low).clamp_min(1.0)
