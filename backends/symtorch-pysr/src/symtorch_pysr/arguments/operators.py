"""The operators of a search in Julia, and how to read them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from symtorch_core import SearchSpace
from symtorch_core.expressions import OPERATORS, Call, Definition, Variable, is_definition, parse_definition

# Julia functions for operators that neither Julia nor SymbolicRegression.jl has under the table's name, or not with the
# table's meaning everywhere. The prefix avoids clashes with their names; `inv` exists in Julia, and is defined as in
# PySR's documentation.
_DEFINED: Mapping[str, str] = MappingProxyType(
    {
        "inv": "inv(x) = 1/x",
        "sqrt_abs": "symtorch_sqrt_abs(x) = sqrt(abs(x))",
        "log_abs": "symtorch_log_abs(x) = log(abs(x))",
        "log2_abs": "symtorch_log2_abs(x) = log2(abs(x))",
        "log10_abs": "symtorch_log10_abs(x) = log10(abs(x))",
        "log1p_abs": "symtorch_log1p_abs(x) = log1p(abs(x))",
        "acosh_abs": "symtorch_acosh_abs(x) = acosh(abs(x) + 1)",
        "sigmoid": "symtorch_sigmoid(x) = 1/(1 + exp(-x))",
        "pow_abs": "symtorch_pow_abs(x, y) = abs(x)^y",
        "atan2": "symtorch_atan2(x, y) = atan(x, y)",
    }
)
# SymbolicRegression.jl exports these since PySR 2.0.
_DEFINED_BEFORE_2: Mapping[str, str] = MappingProxyType(
    {
        "less": "symtorch_less(x, y) = (x < y) * one(x)",
        "less_equal": "symtorch_less_equal(x, y) = (x <= y) * one(x)",
        "greater_equal": "symtorch_greater_equal(x, y) = (x >= y) * one(x)",
    }
)


@final
@dataclass(frozen=True)
class JuliaOperators:
    """The operators of a search as PySR takes them.

    Attributes:
        binary, unary: names or definitions, in the order of the search.
        names: name in the core of each operator -> name in Julia.
        defined: names of the functions that are defined for the search.
        definitions: definitions of these functions, to read equations that contain them.
    """

    binary: tuple[str, ...]
    unary: tuple[str, ...]
    names: Mapping[str, str]
    defined: tuple[str, ...]
    definitions: tuple[Definition, ...]


def translate_operators(search: SearchSpace, major: int) -> JuliaOperators:
    """Return the operators of a search for a major version of PySR.

    >>> translated = translate_operators(SearchSpace(unary_operators=("sin", "inv", "half(x) = x/2")), 2)
    >>> translated.unary
    ('sin', 'inv(x) = 1/x', 'half(x) = x/2')
    """
    ours = dict(_DEFINED) | (dict(_DEFINED_BEFORE_2) if major < 2 else {})
    names: dict[str, str] = {}
    definitions: list[Definition] = []

    def translate(operator: str) -> str:
        if is_definition(operator):
            definition = parse_definition(operator)
            names[definition.name] = definition.name
            definitions.append(definition)
            return operator
        if operator not in ours:
            names[operator] = operator
            return operator
        name = ours[operator].partition("(")[0]
        parameters = ("x", "y")[: OPERATORS[operator].arity]
        body = Call(operator, *map(Variable, parameters))
        names[operator] = name
        definitions.append(Definition(name, parameters, ours[operator], body))
        return ours[operator]

    binary = tuple(map(translate, search.binary_operators))
    unary = tuple(map(translate, search.unary_operators))
    return JuliaOperators(
        binary, unary, names, tuple(entry.name for entry in definitions), tuple(definitions)
    )
