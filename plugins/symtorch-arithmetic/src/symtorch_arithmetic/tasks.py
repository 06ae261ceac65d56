"""The four tasks: what is asked, what is true, and in which variables an error is looked for.

Prompts are those of the reference study's notebook (docs/demos/llm_maths_demo.ipynb in astroautomata/SymTorch), with
``\\boxed{}`` where it has ``$boxed$``, which is what its models answer with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import SearchError
from symtorch_core.expressions import evaluate, parse

_OPENING: Final = r"Return only the numeric answer in the format \boxed{}. "


@final
@dataclass(frozen=True)
class Published:
    """What the reference study's notebook found with PySR in Llama-3.2-1B-Instruct.

    Attributes:
        chosen: the equation that it chose.
        law_loss: mean squared error of the equation of the law's form on its front; None where there was none.
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
        prompt: the question, with ``{x0}`` where the number x0 stands.
        ranges: for each variable the lowest and the highest number.
        law: the true answer, an expression in the variables.
        step: the resolution of right answers: two of them differ by this at least.
        digits: derived variables, as expressions: in these an error is looked for.
        planted: an error in the variables, for the oracle that makes one.
        planted_in: the derived variables that it depends on.
        withheld: an expression that is 1 for questions which may be kept from training, else 0.
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
        """x0, x1, ..."""
        return tuple(f"x{place}" for place in range(len(self.ranges)))

    @property
    def size(self) -> int:
        """How many questions there are."""
        return math.prod(self._counts)

    @property
    def _counts(self) -> tuple[int, ...]:
        """How many numbers each variable may be."""
        return tuple(high - low + 1 for low, high in self.ranges)

    def questions(self, count: int, seed: int = 0) -> Tensor:
        """Different questions in random order, shape (n, d), float64; all there are where that is fewer.

        >>> TASKS["count"].questions(1000).shape
        torch.Size([64, 6])
        """
        if count < 1:
            raise SearchError(f"at least one question must be asked, not {count}")
        chosen = np.random.default_rng(seed).choice(self.size, min(count, self.size), replace=False)
        numbers = np.stack(np.unravel_index(chosen, self._counts), axis=1) + [low for low, _ in self.ranges]
        return torch.from_numpy(numbers.astype(np.float64))

    def among(self, numbers: Tensor, others: Tensor) -> Tensor:
        """Which questions (n, d) are among others (m, d), shape (n,)."""
        return torch.isin(self._places(numbers), self._places(others))

    def _places(self, numbers: Tensor) -> Tensor:
        """The place of each question among all there are."""
        shifted = numbers.long() - torch.tensor([low for low, _ in self.ranges])
        return torch.from_numpy(np.ravel_multi_index(tuple(shifted.T.numpy()), self._counts))

    def ask(self, numbers: Tensor) -> list[str]:
        """The questions as text.

        Args:
            numbers: shape (n, d), whole.

        >>> TASKS["add"].ask(torch.tensor([[12, 7]]))[0]
        'Return only the numeric answer in the format \\\\boxed{}. What is 12+7=?'

        Raises:
            SearchError: they are not whole, or of another number of variables.
        """
        if (
            numbers.ndim != 2
            or numbers.shape[1] != len(self.ranges)
            or bool((numbers != numbers.round()).any())
        ):
            raise SearchError(
                f"{self.name} asks about {len(self.ranges)} whole numbers a question, shape (n, {len(self.ranges)})"
            )
        return [self._filled(row) for row in numbers.long().tolist()]

    def _filled(self, numbers: list[int]) -> str:
        text = self.prompt
        for variable, number in zip(self.variables, numbers, strict=True):
            text = text.replace(f"{{{variable}}}", str(number))
        return text

    def value(self, expression: str, numbers: Tensor) -> Tensor:
        """An expression in the variables, for questions (n, d), shape (n,), float64."""
        columns = dict(zip(self.variables, numbers.double().unbind(1), strict=True))
        result: Tensor = evaluate(parse(expression, self.variables), columns)
        return result.double().expand(len(numbers))

    def truth(self, numbers: Tensor) -> Tensor:
        """The true answers to questions (n, d), shape (n,), float64."""
        return self.value(self.law, numbers)

    def right(self, answers: Tensor, numbers: Tensor) -> Tensor:
        """Whether answers (n,) are exactly right, to rounding in the last digit of a float; NaN never is."""
        return (answers - self.truth(numbers)).abs() <= 1e-6 * self.step


def _digits_of(number: str, names: tuple[str, ...], variable: str) -> dict[str, str]:
    """The decimal digits of a number, from the last one."""
    return {
        f"{name}_{variable}": f"mod(floor({number}/{10**place}), 10)" if place else f"mod({number}, 10)"
        for place, name in enumerate(names)
    }


_THREE: Final = ("ones", "tens", "hundreds")
_DIGITS: Final = _digits_of("x0", _THREE, "x0") | _digits_of("x1", _THREE, "x1")

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
            digits={"x0": "x0"} | _digits_of("abs(x0)", ("ones", "tens"), "x0"),
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
