"""The core's own expression trees: parsing, printing, simplification, complexity, and conversion to sympy and torch."""

from symtorch_core.expressions.complexity import ComplexityRules, satisfies_constraints
from symtorch_core.expressions.definitions import Definition, as_double, is_definition, parse_definition
from symtorch_core.expressions.operators import ALIASES, OPERATORS, Operator, lookup
from symtorch_core.expressions.parsing import parse
from symtorch_core.expressions.printing import to_text
from symtorch_core.expressions.simplification import simplify
from symtorch_core.expressions.spelling import respell
from symtorch_core.expressions.sympy_bridge import from_sympy, to_sympy
from symtorch_core.expressions.torch_programs import Program, evaluate
from symtorch_core.expressions.tree import (
    Call,
    Constant,
    Expression,
    Variable,
    constants,
    depth,
    substitute,
    variables,
    walk,
    with_constants,
)

__all__ = [
    "ALIASES",
    "OPERATORS",
    "Call",
    "ComplexityRules",
    "Constant",
    "Definition",
    "Expression",
    "Operator",
    "Program",
    "Variable",
    "as_double",
    "constants",
    "depth",
    "evaluate",
    "from_sympy",
    "is_definition",
    "lookup",
    "parse",
    "parse_definition",
    "respell",
    "satisfies_constraints",
    "simplify",
    "substitute",
    "to_sympy",
    "to_text",
    "variables",
    "walk",
    "with_constants",
]
