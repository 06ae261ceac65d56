"""Losses: in Julia for the search, and for the core, which refits and ranks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from symtorch_core import ExpressionError, SearchError
from symtorch_core.expressions import (
    OPERATORS,
    Constant,
    Expression,
    Variable,
    as_double,
    evaluate,
    parse,
    substitute,
)
from symtorch_core.search import RESIDUAL
from symtorch_pysr.arguments.expressions import format_tree

# For any precision: a literal 0.5 would convert every loss to double.
_HUBER = "symtorch_huber(p, t) = ifelse(abs(p - t) <= 1, (p - t)^2/2, abs(p - t) - one(p)/2)"
_BY_NAME: Mapping[str, str] = MappingProxyType(
    {"mse": "L2DistLoss()", "mae": "L1DistLoss()", "huber": _HUBER}
)
_OBJECT = re.compile(r"(\w+)\s*(?:\{\s*([\d.]+)\s*\})?\s*\(\s*([\d.eE+-]*)\s*\)")
_NAMED = re.compile(r"\s*(?P<name>\w+)\s*\((?P<arguments>[^()]*)\)\s*=(?!=)(?P<body>.+)", re.DOTALL)
_ANONYMOUS = re.compile(r"\s*\((?P<arguments>[^()]*)\)\s*->(?P<body>.+)", re.DOTALL)
_SAME = 1e-9


def write_julia_loss(
    loss: str | Callable[[Tensor], Tensor], elementwise_loss: str | None, weighted: bool
) -> str:
    """Return PySR's ``elementwise_loss`` for a search.

    Args:
        loss: the loss of the search.
        elementwise_loss: Julia code given by the user, or None.
        weighted: whether rows have weights. A loss of two arguments is then multiplied by the weight, since Julia
            needs three arguments.

    Raises:
        SearchError: the loss is a torch function, and there is no Julia code for it.
    """
    code = elementwise_loss
    if code is None:
        if callable(loss):
            raise SearchError(
                "Julia cannot call a torch function: give the loss as a formula in the residual, as in "
                'loss="abs(r)^1.5", or the same loss in Julia too, as elementwise_loss'
            )
        code = _BY_NAME[loss] if loss in _BY_NAME else _write_formula(loss)
    if weighted and _count_arguments(code) == 2:
        named = _NAMED.fullmatch(code)
        if named is not None:
            return f"begin\n{code}\n(p, t, w) -> w * {named['name']}(p, t)\nend"
        return f"let unweighted = {code}\n(p, t, w) -> w * unweighted(p, t)\nend"
    return code


def read_core_loss(
    loss: str | Callable[[Tensor], Tensor], elementwise_loss: str | None
) -> str | Callable[[Tensor], Tensor]:
    """Return the loss of the core for a search in which Julia minimises ``elementwise_loss``.

    It reads losses of LossFunctions.jl and functions of the residual in ordinary notation. If ``loss`` is a torch
    function, it is used without a check that both are the same.

    Args:
        loss: the loss of the search.
        elementwise_loss: Julia code given by the user, or None.

    Raises:
        SearchError: the two losses differ, or the Julia code cannot be read.
    """
    if elementwise_loss is None or callable(loss):
        return loss
    readable = _read_object(elementwise_loss) or _read_function(elementwise_loss)
    if readable is None:
        raise SearchError(
            f"the core cannot read elementwise_loss={elementwise_loss!r} as a function of the residual, and it has to "
            "refit and rank equations by it: give the same loss as a torch function of the residual "
            "(prediction - target) too, as in loss=lambda r: r.abs() ** 1.5"
        )
    if loss not in {"mse", readable}:
        raise SearchError(f"loss={loss!r} and elementwise_loss={elementwise_loss!r}: give one of them")
    return readable


def _write_formula(formula: str) -> str:
    """Return a formula of the core as a Julia function, in the precision of the data."""
    names = {**{name: name for name in OPERATORS}, RESIDUAL: "(p - t)"}
    return f"symtorch_loss(p, t) = oftype(p, {format_tree(parse(formula, [RESIDUAL]), names)})"


def _read_object(code: str) -> str | None:
    """Return a loss of LossFunctions.jl by its name or formula in the core; None if it is not one."""
    found = _OBJECT.fullmatch(code.strip())
    if found is None:
        return None
    name, power, value = found.group(1), found.group(2), found.group(3)
    match name:
        case "L2DistLoss":
            return "mse"
        case "L1DistLoss":
            return "mae"
        case "HuberLoss" if value and float(value) == 1.0:
            return "huber"
        case "HuberLoss" if value:
            return f"min(abs(r), {value})*(abs(r) - 0.5*min(abs(r), {value}))"
        case "LPDistLoss" if power:
            return f"abs(r)^{power}"
        case "LogitDistLoss":
            return f"2*log1p(exp(-abs(r))) + abs(r) - {2 * math.log(2)}"
        case "L1EpsilonInsLoss" if value:
            return f"max(abs(r) - {value}, 0)"
        case "L2EpsilonInsLoss" if value:
            return f"max(abs(r) - {value}, 0)^2"
        case "QuantileLoss" if value:
            return f"max((1 - {value})*r, -{value}*r)"
    return None


def _read_function(code: str) -> str | None:
    """Return the formula of a function of prediction and target; None if it is not one of their difference only."""
    found = _NAMED.fullmatch(code) or _ANONYMOUS.fullmatch(code)
    if found is None:
        return None
    arguments = _split_arguments(found)
    try:
        body = parse(as_double(found["body"]), arguments)
    except ExpressionError:
        return None
    if len(arguments) not in {2, 3}:
        return None
    # The core multiplies by the weights itself.
    formula = _substitute(body, arguments, (Variable(RESIDUAL), Constant(0.0), Constant(1.0)))
    p, t = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = evaluate(
        _substitute(body, arguments, (Variable("p"), Variable("t"), Constant(1.0))), {"p": p, "t": t}
    )
    same = torch.allclose(values.expand_as(p), evaluate(formula, {RESIDUAL: p - t}).expand_as(p), rtol=_SAME)
    return str(formula) if same else None


def _substitute(body: Expression, arguments: tuple[str, ...], values: tuple[Expression, ...]) -> Expression:
    return substitute(body, dict(zip(arguments, values, strict=False)))


def _count_arguments(code: str) -> int | None:
    """Return the number of arguments of a function; None for an object of LossFunctions.jl, which takes any."""
    found = _NAMED.fullmatch(code) or _ANONYMOUS.fullmatch(code)
    return None if found is None else len(_split_arguments(found))


def _split_arguments(found: re.Match[str]) -> tuple[str, ...]:
    return tuple(part.partition("::")[0].strip() for part in found["arguments"].split(","))
