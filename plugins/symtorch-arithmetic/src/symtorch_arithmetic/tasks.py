"""The four tasks: their questions, their true laws, and the variables in which errors are searched for.

Prompts are those of the reference study's notebook (docs/demos/llm_maths_demo.ipynb in astroautomata/SymTorch), with
``\\boxed{}`` in place of ``$boxed$``, since models answer with the former.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import SearchError
from symtorch_core.expressions import evaluate, parse

_WRITTEN: Final = re.compile(r"(?:\{x\d+\})+")
_OPENING: Final = r"Return only the numeric answer in the format \boxed{}. "


@final
@dataclass(frozen=True)
class Published:
    """Results of the reference study's notebook, with PySR in Llama-3.2-1B-Instruct.

    Attributes:
        chosen: the equation that it chose.
        law_loss: mean squared error of the equation of the law's form on its front; None without one.
        chosen_loss: mean squared error of the chosen equation.
        questions: that were asked.
    """

    chosen: str
    law_loss: float | None
    chosen_loss: float
    questions: int


@final
@dataclass(frozen=True)
class Task:
    """A kind of question about whole numbers.

    Attributes:
        name: for the command line.
        title: for the report.
        prompt: the question, with ``{x0}`` in place of the number x0.
        ranges: for each variable the lowest and the highest number.
        law: the true answer, an expression in the variables.
        step: resolution of right answers: the smallest difference of two of them.
        digits: derived variables, as expressions; the equation of the errors is in these.
        planted: an error in the variables, for the oracle that makes errors.
        planted_in: the derived variables that it depends on.
        withheld: an expression that is 1 for questions that may be withheld from training, else 0.
        published: the reference study's figures.
    """

    name: str
    title: str
    prompt: str
    ranges: tuple[tuple[int, int], ...]
    law: str
    published: Published
    step: float = 1.0
    digits: Mapping[str, str] = field(default_factory=dict)
    planted: str = "0"
    planted_in: tuple[str, ...] = ()
    withheld: str = "0"

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables: x0, x1, ..."""
        return tuple(f"x{place}" for place in range(len(self.ranges)))

    @property
    def size(self) -> int:
        """Number of different questions."""
        return math.prod(self._counts)

    @property
    def _counts(self) -> tuple[int, ...]:
        """Number of values of each variable."""
        return tuple(high - low + 1 for low, high in self.ranges)

    def draw_questions(self, count: int, seed: int = 0) -> Tensor:
        """Draw different questions in random order, shape (n, d), float64; all questions where there are fewer.

        >>> TASKS["count"].draw_questions(1000).shape
        torch.Size([64, 6])
        """
        if count < 1:
            raise SearchError(f"questions={count}: at least one question must be asked")
        chosen = np.random.default_rng(seed).choice(self.size, min(count, self.size), replace=False)
        numbers = np.stack(np.unravel_index(chosen, self._counts), axis=1) + [low for low, _ in self.ranges]
        return torch.from_numpy(numbers.astype(np.float64))

    def find_among(self, numbers: Tensor, others: Tensor) -> Tensor:
        """Return which questions (n, d) are among others (m, d), shape (n,)."""
        return torch.isin(self._locate(numbers), self._locate(others))

    def _locate(self, numbers: Tensor) -> Tensor:
        """Return the index of each question among all questions of the task."""
        shifted = numbers.long() - torch.tensor([low for low, _ in self.ranges])
        return torch.from_numpy(np.ravel_multi_index(tuple(shifted.T.numpy()), self._counts))

    def write_prompts(self, numbers: Tensor) -> list[str]:
        """Return the questions as text.

        Args:
            numbers: shape (n, d), whole.

        >>> TASKS["add"].write_prompts(torch.tensor([[12, 7]]))[0]
        'Return only the numeric answer in the format \\\\boxed{}. What is 12+7=?'

        Raises:
            SearchError: the numbers are not whole, or their shape is wrong.
        """
        if (
            numbers.ndim != 2
            or numbers.shape[1] != len(self.ranges)
            or bool((numbers != numbers.round()).any())
        ):
            raise SearchError(
                f"{self.name} needs {len(self.ranges)} whole numbers for each question, shape (n, {len(self.ranges)})"
            )
        return [self._fill(self.prompt, row) for row in numbers.long().tolist()]

    def _fill(self, text: str, numbers: list[int]) -> str:
        for variable, number in zip(self.variables, numbers, strict=True):
            text = text.replace(f"{{{variable}}}", str(number))
        return text

    def list_asked(self, numbers: Tensor) -> list[tuple[float, ...]]:
        """Return the numbers of each question as they are written: one where digits stand side by side.

        >>> TASKS["count"].list_asked(torch.tensor([[0, 1, 1, 1, 0, 0]]))
        [(11100.0,)]
        """
        written = [match.group() for match in _WRITTEN.finditer(self.prompt)]
        return [tuple(float(self._fill(place, row)) for place in written) for row in numbers.long().tolist()]

    def evaluate(self, expression: str, numbers: Tensor) -> Tensor:
        """Evaluate an expression in the variables for questions (n, d), shape (n,), float64."""
        columns = dict(zip(self.variables, numbers.double().unbind(1), strict=True))
        result: Tensor = evaluate(parse(expression, self.variables), columns)
        return result.double().expand(len(numbers))

    def compute_truth(self, numbers: Tensor) -> Tensor:
        """Return the true answers to questions (n, d), shape (n,), float64."""
        return self.evaluate(self.law, numbers)

    def find_right(self, answers: Tensor, numbers: Tensor) -> Tensor:
        """Return which answers (n,) are exactly right, up to the rounding of floats; NaN never is."""
        return (answers - self.compute_truth(numbers)).abs() <= 1e-6 * self.step


def _define_digits(number: str, names: tuple[str, ...], variable: str) -> dict[str, str]:
    """Return expressions for the decimal digits of a number, from the last one."""
    return {
        f"{name}_{variable}": f"mod(floor({number}/{10**place}), 10)" if place else f"mod({number}, 10)"
        for place, name in enumerate(names)
    }


_THREE: Final = ("ones", "tens", "hundreds")
_DIGITS: Final = _define_digits("x0", _THREE, "x0") | _define_digits("x1", _THREE, "x1")

TASKS: Final[Mapping[str, Task]] = {
    task.name: task
    for task in (
        Task(
            name="add",
            title="Addition of numbers of up to three digits",
            prompt=_OPENING + "What is {x0}+{x1}=?",
            ranges=((0, 999), (0, 999)),
            law="x0 + x1",
            digits=_DIGITS,
            planted="-10*greater_equal(mod(x0, 10) + mod(x1, 10), 10)",
            planted_in=("ones_x0", "ones_x1"),
            withheld="greater_equal(mod(x0, 10) + mod(x1, 10), 10)",
            published=Published(
                "x0 + x1*(1/(x0 - 70.16) + 1.071 - 0.0001287*(1/(sin(x1) + 0.8002) + x1))",
                8.858e3,
                1.009e3,
                50,
            ),
        ),
        Task(
            name="multiply",
            title="Multiplication of numbers of up to three digits",
            prompt=_OPENING + "What is {x0} * {x1}=?",
            ranges=((0, 999), (0, 999)),
            law="x0*x1",
            digits=_DIGITS,
            planted="-10*greater_equal(mod(x0, 10)*mod(x1, 10), 20)",
            planted_in=("ones_x0", "ones_x1"),
            withheld="greater_equal(mod(x0, 10)*mod(x1, 10), 10)",
            published=Published("x1*(x0 + 1/(1.656 - 31.26*sin(x0)))", 1.676e10, 3.895e6, 50),
        ),
        Task(
            name="count",
            title="Ones in a string of six binary digits",
            prompt=_OPENING + "How many 1s are there in the string {x0}{x1}{x2}{x3}{x4}{x5}",
            ranges=((0, 1),) * 6,
            law="x0 + x1 + x2 + x3 + x4 + x5",
            digits={f"x{place}": f"x{place}" for place in range(6)},
            planted="-x0*x1*x2",
            planted_in=("x0", "x1", "x2"),
            withheld="x0*x1",
            published=Published(
                "(1.667 - 0.1047*x0)*(x1 + (x1*(x0 + 1.434) - 2.501)*(x2 - 0.521)*(x0 + x3 - 1.232) + 0.921) + x2",
                None,
                4.5e-4,
                25,
            ),
        ),
        Task(
            name="celsius",
            title="Degrees Celsius to Fahrenheit",
            prompt=_OPENING + "What is {x0} degrees Celsius in Fahrenheit?",
            ranges=((-20, 200),),
            law="1.8*x0 + 32",
            step=0.2,
            digits={"x0": "x0"} | _define_digits("abs(x0)", ("ones", "tens"), "x0"),
            planted="-greater_equal(mod(abs(x0), 10), 7)",
            planted_in=("ones_x0",),
            withheld="greater_equal(mod(abs(x0), 10), 7)",
            published=Published(
                "x0*(1/(x0 - 168.9) + 1/(x0 - 129.7) + 1/(x0 - 51.87) + 1.678) + 32.11", 3.522e4, 1.416e3, 50
            ),
        ),
    )
}
"""The tasks by name."""
