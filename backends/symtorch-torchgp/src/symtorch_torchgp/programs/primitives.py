"""The code table of a search: all leaves and operators of its programs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.expressions import Call, Constant, Expression, Variable
from symtorch_core.search import Function, list_functions

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
        functions: the operators, in code order.
        arity: arity of each code, shape (codes,); 1 for nothing, so that sums over places ignore it.
        complexity: complexity of each code, shape (codes,); 0 for nothing.
    """

    variables: tuple[str, ...]
    functions: tuple[Function, ...]
    arity: Tensor
    complexity: Tensor

    @classmethod
    def of(cls, search: SearchSpace, variables: Sequence[str], device: torch.device) -> Primitives:
        """Return the table of a search over these variables."""
        rules, functions = search.rules, list_functions(search, "torchgp")
        variable_complexity = [rules.count(Variable(name)) for name in variables]
        arities = [1, 0] + [0] * len(variables) + [function.arity for function in functions]
        sizes = [0, rules.constants, *variable_complexity, *(function.complexity for function in functions)]
        return cls(
            tuple(variables),
            functions,
            torch.tensor(arities, device=device),
            torch.tensor(sizes, device=device),
        )

    @functools.cached_property
    def operators(self) -> tuple[str, ...]:
        """Names of the operators, in code order."""
        return tuple(function.name for function in self.functions)

    def get_function(self, code: int) -> Function:
        """Return the operator of a code."""
        return self.functions[code - self.first_operator]

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
                function = self.get_function(code)
                args = stack[len(stack) - function.arity :]
                del stack[len(stack) - function.arity :]
                stack.append(function.build(*args))
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
