"""Complexity of expressions, and the constraints of a search.

The core counts complexity for all backends, so that their fronts compare: one per node by default, as in PySR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from symtorch_core.expressions.tree import Call, Constant, Expression, walk

COMMUTATIVE = frozenset({"+", "*"})
"""Operators whose arguments simplification may swap."""


@final
@dataclass(frozen=True)
class ComplexityRules:
    """Complexity of each kind of node.

    Attributes:
        operators: complexity of an operator, by name; 1 for operators not named.
        constants: complexity of a constant.
        variables: complexity of a variable; one number, or a number by name (1 for variables not named).
    """

    operators: Mapping[str, int] = field(default_factory=dict)
    constants: int = 1
    variables: int | Mapping[str, int] = 1

    def count(self, expression: Expression) -> int:
        """Return the complexity of the whole expression.

        >>> from symtorch_core.expressions import parse
        >>> ComplexityRules().count(parse("2*sin(x) + 1"))
        6
        >>> ComplexityRules(operators={"sin": 3}).count(parse("2*sin(x) + 1"))
        8
        """
        total = 0
        for node in walk(expression):
            if isinstance(node, Call):
                total += self.operators.get(node.operator, 1)
            elif isinstance(node, Constant):
                total += self.constants
            elif isinstance(self.variables, int):
                total += self.variables
            else:
                total += self.variables.get(str(node), 1)
        return total


def satisfies_constraints(
    expression: Expression,
    rules: ComplexityRules,
    constraints: Mapping[str, tuple[int, ...]],
    nested_constraints: Mapping[str, Mapping[str, int]],
) -> bool:
    """Return whether an expression respects PySR's two kinds of constraints.

    Args:
        expression: the expression to check.
        rules: how complexity is counted.
        constraints: operator -> largest complexity of each argument (-1: any); for a sum or a product, in either
            order.
        nested_constraints: outer operator -> inner operator -> how often the inner may be nested inside the
            outer.

    >>> from symtorch_core.expressions import parse
    >>> satisfies_constraints(parse("sin(sin(x))"), ComplexityRules(), {}, {"sin": {"sin": 0}})
    False
    """
    for node in walk(expression):
        if not isinstance(node, Call):
            continue
        limits = constraints.get(node.operator, ())
        orders = [limits, limits[::-1]] if node.operator in COMMUTATIVE else [limits]
        if not any(_satisfies_limits(order, node, rules) for order in orders):
            return False
        for inner, most in nested_constraints.get(node.operator, {}).items():
            if max(_measure_nesting(child, inner) for child in node.args) > most:
                return False
    return True


def _satisfies_limits(limits: tuple[int, ...], node: Call, rules: ComplexityRules) -> bool:
    return all(
        limit < 0 or rules.count(child) <= limit for limit, child in zip(limits, node.args, strict=False)
    )


def _measure_nesting(expression: Expression, operator: str) -> int:
    """Return the largest number of calls of ``operator`` on one path from the root to a leaf."""
    here = int(isinstance(expression, Call) and expression.operator == operator)
    return here + max((_measure_nesting(child, operator) for child in expression.args), default=0)
