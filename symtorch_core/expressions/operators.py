"""The operator table: one entry for every operator a search may use.

Names are PySR's. An entry holds the operator's torch function, its sympy function, its number of arguments, its
domain, and identities for the simplifier. To add an operator, add one entry here: the parser, the printer, the
complexity count, the surrogate and the tests that walk the table use it from there.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor

from symtorch_core.errors import ExpressionError, did_you_mean


@final
class _LazySympy:
    """The functions of sympy by name; the package is slow to import, so the first call of one imports it."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args: getattr(importlib.import_module("sympy"), name)(*args)


sp: Any = _LazySympy()
Interval = tuple[float, float]
REAL: Interval = (-math.inf, math.inf)
POSITIVE: Interval = (0.0, math.inf)
_FIRST, _EACH, _DIFFERENCE = ((0,),), ((0,), (1,)), ((0, 1),)


@final
@dataclass(frozen=True)
class Operator:
    """One row of the table.

    Attributes:
        name: PySR's name, e.g. ``"+"`` or ``"sin"``.
        arity: number of arguments.
        torch: elementwise function of ``arity`` tensors.
        sympy: function of ``arity`` sympy expressions.
        domain: for each argument, an open interval on which the result is real and finite.
        parity: 1 if f(-x) = f(x), -1 if f(-x) = -f(x), else 0 (unary operators only).
        degree: d if f(c x) = c**d f(x) for every c > 0, else None (unary operators only).
        switches: where the operator takes another branch: at each sign change of one of these quantities, the argument
            at a position, or the difference of the arguments at two.
    """

    name: str
    arity: int
    torch: Callable[..., Tensor]
    sympy: Callable[..., Any]
    domain: tuple[Interval, ...]
    parity: int = 0
    degree: float | None = None
    switches: tuple[tuple[int, ...], ...] = ()


def _cbrt(x: Tensor) -> Tensor:
    return torch.sign(x) * torch.abs(x) ** (1.0 / 3.0)


def _gamma(x: Tensor) -> Tensor:
    # lgamma gives log|gamma|; for negative x the sign alternates between the poles.
    negative = (x < 0) & (torch.remainder(torch.floor(x), 2) != 0)
    return torch.where(negative, -1.0, 1.0) * torch.exp(torch.lgamma(x))


def _step(condition: Tensor, like: Tensor) -> Tensor:
    return condition.to(like.dtype)


def _indicator(condition: Any) -> Any:
    return sp.Piecewise((1, condition), (0, True))


def _wrap(x: Tensor) -> Tensor:
    # Into [-1, 1), where x keeps every digit.
    return x - 2 * torch.floor((x + 1) / 2)


def _acosh_abs(x: Tensor) -> Tensor:
    # acosh(1 + |x|), without the digits that 1 + |x| would lose.
    return 2 * torch.asinh(torch.sqrt(torch.abs(x) / 2))


def _unary(
    name: str,
    torch_function: Callable[[Tensor], Tensor],
    sympy_function: Callable[[Any], Any],
    domain: Interval = REAL,
    parity: int = 0,
    degree: float | None = None,
    switches: tuple[tuple[int, ...], ...] = (),
) -> Operator:
    return Operator(name, 1, torch_function, sympy_function, (domain,), parity, degree, switches)


def _binary(
    name: str,
    torch_function: Callable[[Tensor, Tensor], Tensor],
    sympy_function: Callable[[Any, Any], Any],
    domain: tuple[Interval, Interval] = (REAL, REAL),
    switches: tuple[tuple[int, ...], ...] = (),
) -> Operator:
    return Operator(name, 2, torch_function, sympy_function, domain, switches=switches)


_ROWS = (
    _binary("+", torch.add, lambda x, y: x + y),
    _binary("-", torch.sub, lambda x, y: x - y),
    _binary("*", torch.mul, lambda x, y: x * y),
    _binary("/", torch.div, lambda x, y: x / y, (REAL, POSITIVE)),
    _binary("^", torch.pow, lambda x, y: x**y, (POSITIVE, REAL)),
    _binary("pow_abs", lambda x, y: torch.pow(torch.abs(x), y), lambda x, y: abs(x) ** y, (POSITIVE, REAL)),
    _binary("max", torch.maximum, sp.Max, switches=_DIFFERENCE),
    _binary("min", torch.minimum, sp.Min, switches=_DIFFERENCE),
    _binary("mod", torch.remainder, sp.Mod, (REAL, POSITIVE)),
    _binary("atan2", torch.atan2, sp.atan2, (REAL, POSITIVE)),
    _binary("greater", lambda x, y: _step(x > y, x), lambda x, y: _indicator(x > y), switches=_DIFFERENCE),
    _binary("less", lambda x, y: _step(x < y, x), lambda x, y: _indicator(x < y), switches=_DIFFERENCE),
    _binary(
        "greater_equal", lambda x, y: _step(x >= y, x), lambda x, y: _indicator(x >= y), switches=_DIFFERENCE
    ),
    _binary(
        "less_equal", lambda x, y: _step(x <= y, x), lambda x, y: _indicator(x <= y), switches=_DIFFERENCE
    ),
    _binary(
        "cond",
        lambda x, y: torch.where(x > 0, y, torch.zeros_like(y)),
        lambda x, y: sp.Piecewise((y, x > 0), (0, True)),
        switches=_FIRST,
    ),
    _binary(
        "logical_or",
        lambda x, y: _step((x > 0) | (y > 0), x),
        lambda x, y: _indicator(sp.Or(x > 0, y > 0)),
        switches=_EACH,
    ),
    _binary(
        "logical_and",
        lambda x, y: _step((x > 0) & (y > 0), x),
        lambda x, y: _indicator(sp.And(x > 0, y > 0)),
        switches=_EACH,
    ),
    Operator(
        "clamp",
        3,
        lambda x, low, high: torch.where(x < low, low, torch.where(x > high, high, x)),
        lambda x, low, high: sp.Piecewise((low, x < low), (high, x > high), (x, True)),
        (REAL, (-1.0, 0.0), (0.0, 1.0)),
        switches=((0, 1), (0, 2)),
    ),
    _unary("neg", torch.neg, lambda x: -x, parity=-1, degree=1),
    _unary("inv", torch.reciprocal, lambda x: 1 / x, POSITIVE, parity=-1, degree=-1),
    _unary("square", torch.square, lambda x: x**2, parity=1, degree=2),
    _unary("cube", lambda x: x * x * x, lambda x: x**3, parity=-1, degree=3),
    _unary("sqrt", torch.sqrt, sp.sqrt, POSITIVE, degree=0.5),
    _unary("sqrt_abs", lambda x: torch.sqrt(torch.abs(x)), lambda x: sp.sqrt(abs(x)), parity=1, degree=0.5),
    _unary("cbrt", _cbrt, lambda x: sp.sign(x) * sp.cbrt(abs(x)), parity=-1, degree=1.0 / 3.0),
    _unary("abs", torch.abs, sp.Abs, parity=1, degree=1),
    _unary("sign", torch.sign, sp.sign, parity=-1, degree=0, switches=_FIRST),
    _unary("relu", lambda x: torch.relu(x), lambda x: sp.Max(x, 0), degree=1, switches=_FIRST),
    _unary("exp", torch.exp, sp.exp),
    _unary("log", torch.log, sp.log, POSITIVE),
    _unary("log2", torch.log2, lambda x: sp.log(x) / sp.log(2), POSITIVE),
    _unary("log10", torch.log10, lambda x: sp.log(x) / sp.log(10), POSITIVE),
    _unary("log1p", torch.log1p, lambda x: sp.log(x + 1), (-1.0, math.inf)),
    _unary("log_abs", lambda x: torch.log(torch.abs(x)), lambda x: sp.log(abs(x)), POSITIVE, parity=1),
    _unary(
        "log2_abs",
        lambda x: torch.log2(torch.abs(x)),
        lambda x: sp.log(abs(x)) / sp.log(2),
        POSITIVE,
        parity=1,
    ),
    _unary(
        "log10_abs",
        lambda x: torch.log10(torch.abs(x)),
        lambda x: sp.log(abs(x)) / sp.log(10),
        POSITIVE,
        parity=1,
    ),
    _unary("log1p_abs", lambda x: torch.log1p(torch.abs(x)), lambda x: sp.log(abs(x) + 1), parity=1),
    _unary("sin", torch.sin, sp.sin, parity=-1),
    _unary("cos", torch.cos, sp.cos, parity=1),
    _unary("tan", torch.tan, sp.tan, (-1.5, 1.5), parity=-1),
    _unary("asin", torch.asin, sp.asin, (-1.0, 1.0), parity=-1),
    _unary("acos", torch.acos, sp.acos, (-1.0, 1.0)),
    _unary("atan", torch.atan, sp.atan, parity=-1),
    _unary("sinh", torch.sinh, sp.sinh, parity=-1),
    _unary("cosh", torch.cosh, sp.cosh, parity=1),
    _unary("tanh", torch.tanh, sp.tanh, parity=-1),
    _unary("asinh", torch.asinh, sp.asinh, parity=-1),
    _unary("acosh", torch.acosh, sp.acosh, (1.0, math.inf)),
    _unary("acosh_abs", _acosh_abs, lambda x: sp.acosh(abs(x) + 1), parity=1),
    _unary("atanh", torch.atanh, sp.atanh, (-1.0, 1.0), parity=-1),
    _unary(
        "atanh_clip", lambda x: torch.atanh(_wrap(x)), lambda x: sp.atanh(sp.Mod(x + 1, 2) - 1), (-1.0, 1.0)
    ),
    _unary("sigmoid", torch.sigmoid, lambda x: 1 / (1 + sp.exp(-x))),
    _unary("erf", torch.erf, sp.erf, parity=-1),
    _unary("erfc", torch.erfc, sp.erfc),
    _unary("gamma", _gamma, sp.gamma, POSITIVE),
    _unary("floor", torch.floor, sp.floor),
    _unary("ceil", torch.ceil, sp.ceiling),
    # Halves go to the even neighbour in torch and Julia; ceiling(x - 1/2) differs there and nowhere else.
    _unary("round", torch.round, lambda x: sp.ceiling(x - sp.Rational(1, 2))),
)

OPERATORS = MappingProxyType({row.name: row for row in _ROWS})
"""All operators by name."""

ALIASES = MappingProxyType(
    {
        "plus": "+",
        "add": "+",
        "sub": "-",
        "mult": "*",
        "mul": "*",
        "div": "/",
        "pow": "^",
        "**": "^",
        "Abs": "abs",
        "ceiling": "ceil",
        "Max": "max",
        "Min": "min",
        "Mod": "mod",
        "ln": "log",
        "subtract": "-",
        "minus": "-",
        "multiply": "*",
        "times": "*",
        "divide": "/",
        "power": "^",
        "fmax": "max",
        "maximum": "max",
        "fmin": "min",
        "minimum": "min",
        "negative": "neg",
        "inverse": "inv",
        "reciprocal": "inv",
        "sqr": "square",
        "fabs": "abs",
        "sgn": "sign",
        "arcsin": "asin",
        "arccos": "acos",
        "arctan": "atan",
        "arctan2": "atan2",
        "arcsinh": "asinh",
        "arccosh": "acosh",
        "arctanh": "atanh",
        "logistic": "sigmoid",
        "logabs": "log_abs",
        "sqrtabs": "sqrt_abs",
        "powabs": "pow_abs",
    }
)
"""Other names of operators, in PySR, gplearn, operon, sympy, numpy and common use."""

_NOT_ONE = "It is no operator: searches find constants and variables themselves."
_DEFINED = "Define it, for backends that take definitions."
_MEANT = MappingProxyType(
    dict.fromkeys(("x^2", "x**2", "^2", "pow2", "x*x"), "Did you mean 'square'?")
    | dict.fromkeys(("x^3", "x**3", "^3", "pow3"), "Did you mean 'cube'?")
    | dict.fromkeys(("1/x", "x^-1"), "Did you mean 'inv'?")
    | dict.fromkeys(("pi", "e", "const", "constant", "constants", "variable", "variables"), _NOT_ONE)
    | dict.fromkeys(
        ("gaussian", "gauss", "softplus", "swish", "silu", "gelu", "sinc", "exp2", "aq"), _DEFINED
    )
    | dict.fromkeys(("heaviside", "step"), "Did you mean 'greater'?")
    | {"sine": "Did you mean 'sin'?", "cosine": "Did you mean 'cos'?", "tg": "Did you mean 'tan'?"}
    | {"logarithm": "Did you mean 'log'?"}
)
"""What is meant by texts that are no names of operators."""


def lookup(name: str) -> Operator:
    """Return the table's entry for an operator name or alias.

    >>> lookup("pow").name
    '^'

    Raises:
        ExpressionError: the operator is unknown; the message lists the table and the closest match.
    """
    found = OPERATORS.get(ALIASES.get(name, name))
    if found is not None:
        return found
    raise ExpressionError(
        f"unknown operator {name!r}.{_find_meant(name)} Known operators: {', '.join(OPERATORS)}; some backends take "
        "definitions too, like 'gauss(x) = exp(-x^2)'"
    )


def _find_meant(name: str) -> str:
    if "," in name:
        return f" Give each as an entry of its own: {[part.strip() for part in name.split(',')]}."
    meant = _MEANT.get(name.lower().replace(" ", ""))
    return did_you_mean(name, [*OPERATORS, *ALIASES]) if meant is None else f" {meant}"
