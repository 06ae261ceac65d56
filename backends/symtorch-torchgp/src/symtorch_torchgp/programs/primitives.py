"""The code table of a search: all leaves and operators of its programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.expressions import OPERATORS, Call, Constant, Expression, Variable

NOTHING = 0
"""The code of the empty places at the end of a program."""
CONSTANT = 1
"""The code of a constant; its value is in a second tensor."""


@final
@dataclass(frozen=True)
class Primitives:
    """The code table: 0 for nothing, 1 for a constant, then the variables, then the operators.

    Attributes:
        variables: names of the inputs.
        operators: names of the operators, in code order.
        arity: arity of each code, shape (codes,); 1 for nothing, so that sums over places ignore it.
        complexity: complexity of each code, shape (codes,); 0 for nothing.
    """

    variables: tuple[str, ...]
    operators: tuple[str, ...]
    arity: Tensor
    complexity: Tensor

    @classmethod
    def of(cls, search: SearchSpace, variables: Sequence[str], device: torch.device) -> Primitives:
        """Return the table of a search over these variables."""
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

    def get_code(self, operator: str) -> int:
        """Return the code of an operator of the search."""
        return self.first_operator + self.operators.index(operator)

    def get_complexity(self, operator: str) -> int:
        """Return the complexity of an operator of the search."""
        return int(self.complexity[self.get_code(operator)])

    def select_codes(self, arity: int) -> Tensor:
        """Return the codes of the operators of an arity."""
        codes = torch.arange(self.first_operator, len(self.arity), device=self.arity.device)
        return codes[self.arity[codes] == arity]

    def decode(self, codes: Sequence[int], values: Sequence[float]) -> Expression:
        """Return a postfix program as an expression; ``values`` holds the values of its constants."""
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
        """Return an expression as a postfix program of ``length`` places.

        Returns:
            Codes and values; None if an operator has no code, or the program is too long.
        """
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
