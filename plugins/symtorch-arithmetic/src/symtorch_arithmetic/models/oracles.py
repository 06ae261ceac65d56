"""Stub models that answer by Python: their laws and errors are known, so they test the study itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, final

import numpy as np
import torch

from symtorch_arithmetic.models.language_models import LanguageModel
from symtorch_arithmetic.models.worked_examples import format_box
from symtorch_arithmetic.tasks import Task

OUTLIERS: Final = 0.03
"""Share of arbitrary answers of the erring oracle."""
SILENT: Final = 0.01
"""Share of its answers without a number."""
_TOO_LARGE: Final = 10  # arbitrary answers go up to this many times the largest right one


@final
class Oracle(LanguageModel):
    r"""A stub that answers by the task's law, or by the law and a planted error, with outliers and refusals.

    Args:
        task: that it can do.
        errs: whether it makes the planted error.
        seed: of outliers and refusals; they depend on the prompt, not on the order of prompts.

    >>> from symtorch_arithmetic.tasks import TASKS
    >>> Oracle(TASKS["add"]).answer(TASKS["add"].write_prompts(torch.tensor([[12, 9]])))
    ['The answer is $\\boxed{21}$.']
    """

    def __init__(self, task: Task, *, errs: bool = False, seed: int = 0) -> None:
        self._task, self._errs, self._seed = task, errs, seed
        self.name = "an oracle that errs" if errs else "an oracle"
        self.revision = f"{self.name} of {task.name}, {task.law}, {task.planted if errs else 0}, seed {seed}"
        self.batch = 10_000
        places = (rf"(?P<{variable}>-?\d+?)" for variable in task.variables)
        pattern = re.escape(task.prompt)
        for variable, place in zip(task.variables, places, strict=True):
            pattern = pattern.replace(re.escape(f"{{{variable}}}"), place)
        self._pattern: Final = re.compile(pattern)

    def answer(self, prompts: Sequence[str]) -> list[str]:
        numbers = torch.tensor([self._parse(prompt) for prompt in prompts], dtype=torch.float64)
        values = self._task.compute_truth(numbers)
        if not self._errs:
            return [self._phrase(value) for value in values.tolist()]
        values = values + self._task.evaluate(self._task.planted, numbers)
        largest = float(self._task.compute_truth(torch.tensor([[high for _, high in self._task.ranges]])))
        return [self._answer_wrongly(*each, largest) for each in zip(prompts, values.tolist(), strict=True)]

    def _parse(self, prompt: str) -> list[int]:
        found = self._pattern.fullmatch(prompt)
        if found is None:
            raise ValueError(f"{prompt!r} is not a question of {self._task.name}")
        return [int(found[variable]) for variable in self._task.variables]

    def _answer_wrongly(self, prompt: str, value: float, largest: float) -> str:
        generator = np.random.default_rng([self._seed, *prompt.encode()])
        luck = generator.random()
        if luck < SILENT:
            return "I would rather not say."
        if luck < SILENT + OUTLIERS:
            return self._phrase(float(generator.integers(int(_TOO_LARGE * largest))))
        return self._phrase(value)

    def _phrase(self, value: float) -> str:
        return f"The answer is ${format_box(value)}$."
