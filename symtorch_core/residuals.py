"""Whether an equation solves a differential equation: exact derivatives, then numbers (SymTorch paper, 4.3.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import sympy as sp
import torch
from torch import Tensor

from symtorch_core.activations import as_real_tensor, as_rows
from symtorch_core.errors import ExpressionError
from symtorch_core.expression import Expression, evaluate, from_sympy, parse, to_sympy, variables
from symtorch_core.front import Candidate


@final
@dataclass(frozen=True)
class Residual:
    """What is left of a differential equation when an equation is put in.

    Attributes:
        residual: as an expression of the variables, exact.
        rms: root mean square on the points.
        max_abs: largest absolute value on the points.
        relative: ``rms`` over the root mean square of the sum of the terms' absolute values, whatever the units: 0 for
            a solution, near 1 for terms that have nothing to do with each other.
        rows: number of points.
    """

    residual: sp.Expr
    rms: float
    max_abs: float
    relative: float
    rows: int


def residual_check(
    equation: Candidate | Expression | sp.Expr | str,
    differential_equation: str,
    points: Any,
    *,
    variable_names: Sequence[str],
    unknown: str = "u",
    constants: Mapping[str, float] | None = None,
) -> Residual:
    """Put an equation into a differential equation, and measure what is left.

    Derivatives are exact (sympy's); only the values on the points are numbers, in float64. A boundary or initial
    condition is a differential equation without derivatives, on points of that boundary.

    Args:
        equation: for the unknown, in the variables.
        differential_equation: what should be zero, as text: ``"u_t - 0.2*u_xx"``. A derivative is the unknown, ``_``,
            and the variables to differentiate by, one after the other; where a name has several characters, with ``_``
            between them all: ``u_x0_x0``.
        points: where to measure, shape (n, d).
        variable_names: d names, one for each column of the points.
        unknown: what the equation is for.
        constants: numbers for other names in the differential equation.

    >>> x = torch.rand(100, 2, dtype=torch.float64)
    >>> heat = residual_check("exp(-0.2*pi^2*t)*sin(pi*x)", "u_t - 0.2*u_xx", x, variable_names=["x", "t"])
    >>> heat.relative < 1e-12
    True
    >>> wrong = residual_check("exp(-t)*sin(pi*x)", "u_t - a*u_xx", x, variable_names=["x", "t"], constants={"a": 0.2})
    >>> round(wrong.relative, 3)
    0.327

    Raises:
        ExpressionError: the differential equation is none, names what nobody knows, or a derivative cannot be computed.
        CaptureError: the points are no numbers.
    """
    names = tuple(variable_names)
    rows = as_rows(as_real_tensor(points, "points")).double()
    if rows.shape[1] != len(names):
        raise ExpressionError(f"the points have {rows.shape[1]} columns for {len(names)} variables")
    numbers = dict(constants or {})
    solution = to_sympy(_tree(equation, names))
    parsed = parse(differential_equation)
    values: dict[sp.Symbol, Any] = {}
    for name in variables(parsed):
        if name not in names:
            values[sp.Symbol(name, real=True)] = _value(name, solution, names, unknown, numbers)
    terms = [term.subs(values) for term in sp.Add.make_args(to_sympy(parsed))]
    columns = dict(zip(names, rows.unbind(1), strict=True))
    measured = [_on(term, columns, len(rows)) for term in terms]
    left = torch.stack(measured).sum(0)
    size = _rms(torch.stack(measured).abs().sum(0))
    rms = _rms(left)
    return Residual(
        residual=sp.Add(*terms),
        rms=rms,
        max_abs=float(left.abs().max()),
        relative=0.0 if rms == 0 else rms / size,
        rows=len(rows),
    )


def _tree(equation: Candidate | Expression | sp.Expr | str, names: Sequence[str]) -> Expression:
    if isinstance(equation, Candidate):
        return equation.expression
    if isinstance(equation, str):
        return parse(equation, names)
    return from_sympy(equation) if isinstance(equation, sp.Basic) else equation


def _value(
    name: str, solution: sp.Expr, names: Sequence[str], unknown: str, numbers: Mapping[str, float]
) -> Any:
    """What a name in the differential equation stands for: the unknown, a derivative of it, or a number."""
    if name in numbers:
        return sp.Float(repr(float(numbers[name])), 17)
    if name == unknown:
        return solution
    by = name.removeprefix(f"{unknown}_")
    if by != name:
        for pieces in (by.split("_"), list(by)):
            if all(piece in names for piece in pieces):
                return sp.diff(solution, *(sp.Symbol(piece, real=True) for piece in pieces))
    raise ExpressionError(
        f"{name!r} in the differential equation is neither a variable ({', '.join(names)}), nor {unknown!r} or a "
        f"derivative of it (like {unknown}_{names[0]}), nor among constants="
    )


def _on(term: sp.Expr, columns: Mapping[str, Tensor], rows: int) -> Tensor:
    return evaluate(from_sympy(term), columns).double().expand(rows)


def _rms(values: Tensor) -> float:
    size = float(values.square().mean().sqrt())
    return size if math.isfinite(size) else math.inf
