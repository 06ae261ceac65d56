"""The code table of a search: every leaf and operator a program may hold, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.expressions import OPERATORS, Call, Constant, Expression, Variable

NOTHING = 0
"""The code of the empty places behind a program."""
CONSTANT = 1
"""The code of a constant; its value stands beside it."""


@final
@dataclass(frozen=True)
class Primitives:
    """Codes: 0 nothing, 1 a constant, then the variables, then the operators.

    Attributes:
        variables: names of the inputs.
        operators: names of the operators, in code order.
        arity: for each code; 1 for nothing, so that sums over places ignore it.
        complexity: for each code; 0 for nothing.
    """

    variables: tuple[str, ...]
    operators: tuple[str, ...]
    arity: Tensor
    complexity: Tensor

    @classmethod
    def of(cls, search: SearchSpace, variables: Sequence[str], device: torch.device) -> Primitives:
        """The table for a search over these variables."""
        rules, names = search.rules, search.operators
        variable_complexity = [rules.count(Variable(name)) for name in variables]
        operator_complexity = [rules.operators.get(name, 1) for name in names]
        return cls(
            tuple(variables),
            names,
            torch.tensor(
                [1, 0] + [0] * len(variables) + [OPERATORS[name].arity for name in names], device=device
            ),
            torch.tensor([0, rules.constants, *variable_complexity, *operator_complexity], device=device),
        )

    @property
    def first_operator(self) -> int:
        """The code of the first operator."""
        return 2 + len(self.variables)

    def code_of(self, operator: str) -> int:
        """The code of an operator of the search."""
        return self.first_operator + self.operators.index(operator)

    def cost_of(self, operator: str) -> int:
        """The complexity of an operator of the search."""
        return int(self.complexity[self.code_of(operator)])

    def codes(self, arity: int) -> Tensor:
        """Codes of the operators that take so many arguments."""
        codes = torch.arange(self.first_operator, len(self.arity), device=self.arity.device)
        return codes[self.arity[codes] == arity]

    def decode(self, codes: Sequence[int], values: Sequence[float]) -> Expression:
        """A postfix program as an expression; ``values`` stand beside the codes of constants."""
        stack: list[Expression] = []
        for code, value in zip(codes, values, strict=True):
            if code == NOTHING:
                break
            if code == CONSTANT:
                stack.append(Constant(value))
            elif code < self.first_operator:
                stack.append(Variable(self.variables[code - 2]))
            else:
                name = self.operators[code - self.first_operator]
                arity = OPERATORS[name].arity
                args = stack[len(stack) - arity :]
                del stack[len(stack) - arity :]
                stack.append(Call(name, *args))
        (expression,) = stack
        return expression

    def encode(self, expression: Expression, length: int) -> tuple[list[int], list[float]] | None:
        """An expression as a postfix program of ``length`` places; None where it has no code or no room."""
        codes: list[int] = []
        values: list[float] = []

        def visit(node: Expression) -> bool:
            if isinstance(node, Constant):
                codes.append(CONSTANT)
                values.append(node.value)
                return True
            if isinstance(node, Variable):
                codes.append(2 + self.variables.index(node.name))
            else:
                assert isinstance(node, Call)
                if not all(visit(child) for child in node.args) or node.operator not in self.operators:
                    return False
                codes.append(self.first_operator + self.operators.index(node.operator))
            values.append(0.0)
            return True

        if not visit(expression) or len(codes) > length:
            return None
        room = length - len(codes)
        return codes + [NOTHING] * room, values + [0.0] * room
