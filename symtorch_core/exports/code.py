"""Expressions in numpy and in C: the spelling of every operator of the table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

from symtorch_core.expressions import Call, Expression, Variable
from symtorch_core.expressions.torch_programs import compute_numbers
from symtorch_core.expressions.tree import share_parts, walk_up

NUMPY: Mapping[str, str] = MappingProxyType(
    {
        "+": "({0} + {1})",
        "-": "({0} - {1})",
        "*": "({0} * {1})",
        "/": "({0} / {1})",
        "^": "np.power({0}, {1})",
        "pow_abs": "np.power(np.abs({0}), {1})",
        "max": "np.maximum({0}, {1})",
        "min": "np.minimum({0}, {1})",
        "mod": "np.mod({0}, {1})",
        "atan2": "np.arctan2({0}, {1})",
        "greater": "np.where({0} > {1}, 1.0, 0.0)",
        "less": "np.where({0} < {1}, 1.0, 0.0)",
        "greater_equal": "np.where({0} >= {1}, 1.0, 0.0)",
        "less_equal": "np.where({0} <= {1}, 1.0, 0.0)",
        "cond": "np.where({0} > 0.0, {1}, 0.0)",
        "logical_or": "np.where(({0} > 0.0) | ({1} > 0.0), 1.0, 0.0)",
        "logical_and": "np.where(({0} > 0.0) & ({1} > 0.0), 1.0, 0.0)",
        "clamp": "np.where({0} < {1}, {1}, np.where({0} > {2}, {2}, {0}))",
        "neg": "(-{0})",
        "inv": "(1.0 / {0})",
        "square": "np.square({0})",
        "cube": "({0} * {0} * {0})",
        "sqrt": "np.sqrt({0})",
        "sqrt_abs": "np.sqrt(np.abs({0}))",
        "cbrt": "np.cbrt({0})",
        "abs": "np.abs({0})",
        "sign": "np.sign({0})",
        "relu": "np.maximum({0}, 0.0)",
        "exp": "np.exp({0})",
        "log": "np.log({0})",
        "log2": "np.log2({0})",
        "log10": "np.log10({0})",
        "log1p": "np.log1p({0})",
        "log_abs": "np.log(np.abs({0}))",
        "log2_abs": "np.log2(np.abs({0}))",
        "log10_abs": "np.log10(np.abs({0}))",
        "log1p_abs": "np.log1p(np.abs({0}))",
        "sin": "np.sin({0})",
        "cos": "np.cos({0})",
        "tan": "np.tan({0})",
        "asin": "np.arcsin({0})",
        "acos": "np.arccos({0})",
        "atan": "np.arctan({0})",
        "sinh": "np.sinh({0})",
        "cosh": "np.cosh({0})",
        "tanh": "np.tanh({0})",
        "asinh": "np.arcsinh({0})",
        "acosh": "np.arccosh({0})",
        "acosh_abs": "np.arccosh(np.abs({0}) + 1.0)",
        "atanh": "np.arctanh({0})",
        "atanh_clip": "np.arctanh(np.mod({0} + 1.0, 2.0) - 1.0)",
        "sigmoid": "(1.0 / (1.0 + np.exp(-{0})))",
        "erf": "np.vectorize(math.erf, otypes=[float])({0})",
        "erfc": "np.vectorize(math.erfc, otypes=[float])({0})",
        "gamma": "np.vectorize(math.gamma, otypes=[float])({0})",
        "floor": "np.floor({0})",
        "ceil": "np.ceil({0})",
        "round": "np.rint({0})",
    }
)
"""Every operator of the table in numpy (and Python's math), elementwise."""

C: Mapping[str, str] = MappingProxyType(
    {
        "+": "({0} + {1})",
        "-": "({0} - {1})",
        "*": "({0} * {1})",
        "/": "({0} / {1})",
        "^": "pow({0}, {1})",
        "pow_abs": "pow(fabs({0}), {1})",
        "max": "fmax({0}, {1})",
        "min": "fmin({0}, {1})",
        "mod": "floored_mod({0}, {1})",
        "atan2": "atan2({0}, {1})",
        "greater": "(double)({0} > {1})",
        "less": "(double)({0} < {1})",
        "greater_equal": "(double)({0} >= {1})",
        "less_equal": "(double)({0} <= {1})",
        "cond": "({0} > 0.0 ? {1} : 0.0)",
        "logical_or": "(double)({0} > 0.0 || {1} > 0.0)",
        "logical_and": "(double)({0} > 0.0 && {1} > 0.0)",
        "clamp": "({0} < {1} ? {1} : {0} > {2} ? {2} : {0})",
        "neg": "(-{0})",
        "inv": "(1.0 / {0})",
        "square": "({0} * {0})",
        "cube": "({0} * {0} * {0})",
        "sqrt": "sqrt({0})",
        "sqrt_abs": "sqrt(fabs({0}))",
        "cbrt": "cbrt({0})",
        "abs": "fabs({0})",
        "sign": "(double)(({0} > 0.0) - ({0} < 0.0))",
        "relu": "fmax({0}, 0.0)",
        "exp": "exp({0})",
        "log": "log({0})",
        "log2": "log2({0})",
        "log10": "log10({0})",
        "log1p": "log1p({0})",
        "log_abs": "log(fabs({0}))",
        "log2_abs": "log2(fabs({0}))",
        "log10_abs": "log10(fabs({0}))",
        "log1p_abs": "log1p(fabs({0}))",
        "sin": "sin({0})",
        "cos": "cos({0})",
        "tan": "tan({0})",
        "asin": "asin({0})",
        "acos": "acos({0})",
        "atan": "atan({0})",
        "sinh": "sinh({0})",
        "cosh": "cosh({0})",
        "tanh": "tanh({0})",
        "asinh": "asinh({0})",
        "acosh": "acosh({0})",
        "acosh_abs": "acosh(fabs({0}) + 1.0)",
        "atanh": "atanh({0})",
        "atanh_clip": "atanh(floored_mod({0} + 1.0, 2.0) - 1.0)",
        "sigmoid": "(1.0 / (1.0 + exp(-{0})))",
        "erf": "erf({0})",
        "erfc": "erfc({0})",
        "gamma": "tgamma({0})",
        "floor": "floor({0})",
        "ceil": "ceil({0})",
        "round": "rint({0})",
    }
)
"""Every operator of the table in C99 with <math.h>."""


@final
@dataclass(frozen=True)
class Language:
    """A language of source code: its operators, and the numbers that have no digits."""

    operators: Mapping[str, str]
    infinity: str
    nan: str


PYTHON: Final = Language(NUMPY, "math.inf", "math.nan")
C99: Final = Language(C, "INFINITY", "NAN")
_DEEPEST: Final = 12
"""Brackets are nested this deep before a step is begun: Python and C both have limits."""


@final
@dataclass(frozen=True)
class SourceProgram:
    """Expressions as source code: steps, each a variable and its value, and then the results."""

    steps: tuple[tuple[str, str], ...]
    results: tuple[str, ...]


def to_program(
    expressions: Sequence[Expression], language: Language, names: Mapping[str, str], prefix: str = "v"
) -> SourceProgram:
    """Return expressions as source code in which everything is computed once.

    What would stand in the code more than once, in one expression or several, or too deeply in brackets, becomes a
    step. Functions of numbers are worked out here.

    Args:
        expressions: the expressions.
        language: :data:`PYTHON` or :data:`C99`.
        names: names of the variables in the code.
        prefix: of the names of the steps, unless a variable has this name.

    >>> from symtorch_core.expressions import parse
    >>> to_program([parse("2*sin(x) - 1e-9")], C99, {"x": "x[0]"}).results
    ('((2.0 * sin(x[0])) - 1e-09)',)
    >>> to_program([parse("square(square(x))")], C99, {"x": "x[0]"})
    SourceProgram(steps=(('v0', '(x[0] * x[0])'),), results=('(v0 * v0)',))
    """
    roots = share_parts(expressions)
    numbers = compute_numbers(*roots)
    uses = _count_uses(roots, language.operators)
    while any(name.startswith(prefix) for name in names.values()):
        prefix += "_"
    codes: dict[int, str] = {}
    depths: dict[int, int] = {}
    steps: list[tuple[str, str]] = []
    for node in walk_up(*roots):
        key = id(node)
        if key in numbers:
            codes[key], depths[key] = _write_number(numbers[key], language), 0
        elif isinstance(node, Variable):
            codes[key], depths[key] = names[node.name], 0
        else:
            assert isinstance(node, Call)
            codes[key] = language.operators[node.operator].format(*(codes[id(child)] for child in node.args))
            depths[key] = 1 + max(depths[id(child)] for child in node.args)
            if uses[key] > 1 or depths[key] > _DEEPEST:
                name = f"{prefix}{len(steps)}"
                steps.append((name, codes[key]))
                codes[key], depths[key] = name, 0
    return SourceProgram(tuple(steps), tuple(codes[id(root)] for root in roots))


def _count_uses(roots: Sequence[Expression], operators: Mapping[str, str]) -> Counter[int]:
    """Return how often the code of each part stands in that of others, by the parts' ids."""
    uses = Counter(map(id, roots))
    for node in walk_up(*roots):
        if isinstance(node, Call):
            for position, child in enumerate(node.args):
                uses[id(child)] += operators[node.operator].count(f"{{{position}}}")
    return uses


def _write_number(value: float, language: Language) -> str:
    if math.isnan(value):
        return language.nan
    if math.isinf(value):
        return language.infinity if value > 0 else f"(-{language.infinity})"
    return repr(value) if math.copysign(1.0, value) > 0 else f"({value!r})"
