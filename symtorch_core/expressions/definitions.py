"""Operators that a user defines for one search: ``name(x, y) = expression``.

A definition serves the search and is not a new kind of node: equations come back expanded in the operators of the
table, so that they run, print and export like any other. If the right-hand side is not in the core's grammar (Julia
code, say), a backend may still search with it, but equations that use it cannot run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

import torch

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions.operators import ALIASES, OPERATORS
from symtorch_core.expressions.parsing import parse
from symtorch_core.expressions.torch_programs import evaluate
from symtorch_core.expressions.tree import Call, Expression, Variable, substitute

_FORM = re.compile(r"\s*([A-Za-z]\w*)\s*\(([^()]*)\)\s*=(?!=)(.+)", re.DOTALL)
_SINGLE_PRECISION = re.compile(r"(?<=[\d.])f(?=[+-]?\d)")


@final
@dataclass(frozen=True)
class Definition:
    """An operator defined by the user.

    Attributes:
        name: name of the operator.
        parameters: names of its arguments.
        source: the whole definition as given.
        body: its right-hand side in the operators of the table; None if the grammar cannot read it.
        unreadable: the reason if it cannot be read; empty otherwise.
    """

    name: str
    parameters: tuple[str, ...]
    source: str
    body: Expression | None = None
    unreadable: str = ""

    def expand(self, *args: Expression) -> Expression:
        """Return the body for these arguments.

        Raises:
            ExpressionError: there is no body, or the number of arguments is wrong.
        """
        if self.body is None:
            raise ExpressionError(f"{self.name!r} is defined by {self.source!r}: {self.unreadable}")
        if len(args) != len(self.parameters):
            raise ExpressionError(f"{self.name!r} takes {len(self.parameters)} argument(s), got {len(args)}")
        return substitute(self.body, dict(zip(self.parameters, args, strict=True)))


def is_definition(text: str) -> bool:
    """Return whether an operator is given by a definition and not by name."""
    return "(" in text


def parse_definition(text: str) -> Definition:
    """Parse ``name(x, y) = expression``.

    Numbers may be in Julia's notation for single precision, ``1.5f0``.

    >>> parse_definition("gauss(x) = exp(-x^2)").expand(Variable("t"))
    ... # doctest: +ELLIPSIS
    Call(operator='exp', ...)

    Raises:
        ExpressionError: the text is not a definition, or gives another meaning to a name of the table.
    """
    found = _FORM.fullmatch(text)
    if found is None or not found.group(3).strip():
        raise ExpressionError(f"cannot read {text!r} as a definition: write it like 'gauss(x) = exp(-x^2)'")
    name, listed, right = found.group(1), found.group(2), found.group(3).strip()
    parameters = tuple(part.strip() for part in listed.split(","))
    if not all(part.isidentifier() for part in parameters) or len(set(parameters)) != len(parameters):
        raise ExpressionError(f"{text!r}: the arguments of {name!r} must be different plain names")
    try:
        definition = Definition(name, parameters, text, parse(as_double(right), parameters))
    except ExpressionError as error:
        definition = Definition(name, parameters, text, unreadable=str(error))
    if name in OPERATORS or name in ALIASES:
        _check_meaning(definition)
    return definition


def as_double(text: str) -> str:
    """Return text with Julia's single-precision numbers, ``1.5f-3``, in the usual notation.

    >>> as_double("1.5f-3*x + buff0")
    '1.5e-3*x + buff0'
    """
    return _SINGLE_PRECISION.sub("e", text)


def _check_meaning(definition: Definition) -> None:
    """Refuse a new meaning for a name of the table; definitions that agree, like ``inv(x) = 1/x``, are allowed."""
    operator = OPERATORS[ALIASES.get(definition.name, definition.name)]
    if definition.body is not None and len(definition.parameters) == operator.arity:
        columns = {
            name: torch.linspace(0.2, 0.8, 7, dtype=torch.float64) ** (1 + i)
            for i, name in enumerate(definition.parameters)
        }
        ours = evaluate(Call(operator.name, *map(Variable, definition.parameters)), columns)
        if torch.allclose(evaluate(definition.body, columns), ours):
            return
    raise ExpressionError(
        f"{definition.source!r}: {definition.name!r} is an operator of the table and means something else there; "
        "choose another name"
    )
