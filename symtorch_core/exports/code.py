"""Expressions in numpy and in C: the spelling of every operator of the table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from symtorch_core.expressions import Call, Constant, Expression, Variable

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


def to_source(node: Expression, operators: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Return an expression as source code.

    Args:
        node: the expression.
        operators: :data:`NUMPY` or :data:`C`.
        names: names of the variables in the code.

    >>> from symtorch_core.expressions import parse
    >>> to_source(parse("2*sin(x) - 1e-9"), C, {"x": "x[0]"})
    '((2.0 * sin(x[0])) - 1e-09)'
    """
    if isinstance(node, Constant):
        return repr(node.value) if node.value >= 0 else f"({node.value!r})"
    if isinstance(node, Variable):
        return names[node.name]
    assert isinstance(node, Call)
    return operators[node.operator].format(*(to_source(child, operators, names) for child in node.args))
