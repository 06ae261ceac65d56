"""Residuals of differential equations for an equation: exact derivatives, then numbers (SymTorch paper, 4.3.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.activations.rows import as_real_tensor, as_rows
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import check_names, check_number
from symtorch_core.errors import ExpressionError
from symtorch_core.expressions import (
    Call,
    Constant,
    Expression,
    Variable,
    evaluate,
    from_sympy,
    parse,
    to_sympy,
    variables,
)
from symtorch_core.search.front import Candidate

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it


@final
@dataclass(frozen=True)
class Residual:
    """The residual of a differential equation for an equation.

    Attributes:
        residual: exact expression in the variables.
        rms: root mean square on the points.
        max_abs: largest absolute value on the points.
        relative: ``rms`` over the root mean square of the sum of the terms' absolute values, independent of units: 0
            for a solution, near 1 for unrelated terms.
        rows: number of points.
    """

    residual: sp.Expr
    rms: float
    max_abs: float
    relative: float
    rows: int


@explain_calls()
def residual_check(
    equation: Candidate | Expression | sp.Expr | str,
    differential_equation: str,
    points: Any,
    *,
    variable_names: Sequence[str],
    unknown: str = "u",
    constants: Mapping[str, float] | None = None,
) -> Residual:
    """Insert an equation into a differential equation, and measure the residual.

    Derivatives are exact (sympy's); only the values on the points are numerical, in float64. A boundary or initial
    condition is a differential equation without derivatives, on points of that boundary.

    Args:
        equation: expression of the unknown in the variables.
        differential_equation: expression that should be zero, as text: ``"u_t - 0.2*u_xx"``. A derivative is the
            unknown, ``_``, and the variables to differentiate by in order; if a name has several characters, all are
            separated by ``_``: ``u_x0_x0``.
        points: points to evaluate at, shape (n, d).
        variable_names: d names, one for each column of the points.
        unknown: name of the unknown.
        constants: values of other names in the differential equation.

    >>> x = torch.rand(100, 2, dtype=torch.float64)
    >>> heat = residual_check("exp(-0.2*pi^2*t)*sin(pi*x)", "u_t - 0.2*u_xx", x, variable_names=["x", "t"])
    >>> heat.relative < 1e-12
    True
    >>> wrong = residual_check("exp(-t)*sin(pi*x)", "u_t - a*u_xx", x, variable_names=["x", "t"], constants={"a": 0.2})
    >>> round(wrong.relative, 3)
    0.327

    Raises:
        ExpressionError: the differential equation is invalid or contains an unknown name, or a derivative cannot be
            computed.
        CaptureError: the points are not numbers.
    """
    import sympy as sp

    names = _check_texts(differential_equation, variable_names, unknown)
    numbers = {} if constants is None else _check_constants("constants", constants)
    columns, rows = _to_columns(points, names)
    solution = to_sympy(_to_tree(equation, names))
    terms = _split_terms(differential_equation, solution, names, unknown, numbers)
    term_values = [_evaluate_on(term, columns, rows) for term in terms]
    left = torch.stack(term_values).sum(0)
    size = _compute_rms(torch.stack(term_values).abs().sum(0))
    rms = _compute_rms(left)
    return Residual(
        residual=sp.Add(*terms),
        rms=rms,
        max_abs=float(left.abs().max()),
        relative=0.0 if rms == 0 else rms / size,
        rows=rows,
    )


@explain_calls()
def identify_constants(
    equation: Candidate | Expression | sp.Expr | str,
    differential_equation: str,
    points: Any,
    *,
    variable_names: Sequence[str],
    start: Mapping[str, float],
    unknown: str = "u",
) -> dict[str, float]:
    """Find the constants of a differential equation for which an equation solves it best.

    The residual is minimised over the constants by least squares with exact derivatives: an inverse problem whose
    data are a closed form. (SymTorch paper, 4.3.1, reads the constants off the equation by eye.)

    Args:
        equation, differential_equation, points, variable_names, unknown: as in :func:`residual_check`.
        start: a first guess for each constant.

    >>> x = torch.rand(100, 2, dtype=torch.float64)
    >>> solution = "exp(-1.97*t)*sin(3.14*x)"
    >>> found = identify_constants(solution, "u_t - a*u_xx", x, variable_names=["x", "t"], start={"a": 1.0})
    >>> round(found["a"], 4)
    0.1998

    Raises:
        ExpressionError: as for :func:`residual_check`, or the residual is not finite at the first guess.
    """
    import sympy as sp
    from scipy.optimize import least_squares

    names = _check_texts(differential_equation, variable_names, unknown)
    wanted = tuple(_check_constants("start", start))
    columns, rows = _to_columns(points, names)
    solution = to_sympy(_to_tree(equation, names))
    symbols = {name: sp.Symbol(name, real=True) for name in wanted}
    left = sp.Add(*_split_terms(differential_equation, solution, names, unknown, symbols))
    slopes = [sp.diff(left, symbol) for symbol in symbols.values()]

    def on(expression: sp.Expr, values: np.ndarray) -> np.ndarray:
        numbers = dict(zip(wanted, torch.from_numpy(values), strict=True))
        result: np.ndarray = _evaluate_on(expression, {**columns, **numbers}, rows).numpy()
        return result

    if not wanted:
        return {}
    first = np.array([float(start[name]) for name in wanted])
    if not np.isfinite(on(left, first)).all():
        raise ExpressionError(f"{differential_equation!r} is not finite on every point at {dict(start)}")
    solved = least_squares(
        lambda values: on(left, values),
        first,
        lambda values: np.stack([on(slope, values) for slope in slopes], axis=1),
        x_scale="jac",
    )
    return dict(zip(wanted, map(float, solved.x), strict=True))


def _check_texts(differential_equation: Any, variable_names: Any, unknown: Any) -> tuple[str, ...]:
    """Return the names of the variables; refuse what is no text."""
    names = check_names("variable_names", variable_names, ExpressionError)
    if not isinstance(differential_equation, str):
        raise ExpressionError(
            f"differential_equation must be a text, like 'u_t - u_xx', not {differential_equation!r}"
        )
    if not isinstance(unknown, str) or not unknown.isidentifier():
        raise ExpressionError(f"unknown must be a name, like 'u', not {unknown!r}")
    return names


def _check_constants(name: str, constants: Any) -> Mapping[str, float]:
    if not isinstance(constants, Mapping):
        raise ExpressionError(f"{name} takes a dictionary, name -> number, not {constants!r}")
    for key, value in constants.items():
        if not isinstance(key, str):
            raise ExpressionError(f"{name} takes a dictionary, name -> number; {key!r} is no name")
        check_number(f"{name}: {key}", value, error=ExpressionError)
    return constants


def parse_derivative(name: str, unknown: str, variable_names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the variables of a derivative, in order; () for the unknown itself, None for any other name.

    >>> parse_derivative("u_xx", "u", ["x", "t"]), parse_derivative("u", "u", ["x"])
    (('x', 'x'), ())
    >>> parse_derivative("alpha", "u", ["x"]) is None
    True
    """
    if name == unknown:
        return ()
    by = name.removeprefix(f"{unknown}_")
    if by != name:
        for pieces in (tuple(by.split("_")), tuple(by)):
            if all(piece in variable_names for piece in pieces):
                return pieces
    return None


def _to_columns(points: Any, names: Sequence[str]) -> tuple[dict[str, Tensor], int]:
    rows = as_rows(as_real_tensor(points, "points")).double()
    if rows.shape[1] != len(names):
        raise ExpressionError(f"the points have {rows.shape[1]} columns for {len(names)} variables")
    return dict(zip(names, rows.unbind(1), strict=True)), len(rows)


def _split_terms(
    differential_equation: str,
    solution: sp.Expr,
    names: Sequence[str],
    unknown: str,
    constants: Mapping[str, float | sp.Symbol],
) -> list[sp.Expr]:
    """Return the terms of the differential equation with the solution inserted."""
    import sympy as sp

    parsed = parse(differential_equation)
    values = {
        sp.Symbol(name, real=True): _evaluate_sympy(name, solution, names, unknown, constants)
        for name in variables(parsed)
        if name not in names
    }
    return [term.subs(values) for term in sp.Add.make_args(to_sympy(parsed))]


def _to_tree(equation: Candidate | Expression | sp.Expr | str, names: Sequence[str]) -> Expression:
    import sympy as sp

    if isinstance(equation, Candidate):
        return equation.expression
    if isinstance(equation, str):
        return parse(equation, names)
    if isinstance(equation, sp.Basic):
        return from_sympy(equation)
    if not isinstance(equation, (Call, Constant, Variable)):
        raise ExpressionError(
            f"equation must be a candidate, an expression, a sympy expression or a text, not {equation!r}"
        )
    return equation


def _evaluate_sympy(
    name: str,
    solution: sp.Expr,
    names: Sequence[str],
    unknown: str,
    constants: Mapping[str, float | sp.Symbol],
) -> Any:
    """Return the value of a name in the differential equation: the unknown, a derivative of it, or a constant."""
    import sympy as sp

    if name in constants:
        value = constants[name]
        return value if isinstance(value, sp.Symbol) else sp.Float(repr(float(value)), 17)
    by = parse_derivative(name, unknown, names)
    if by is not None:
        return sp.diff(solution, *(sp.Symbol(piece, real=True) for piece in by)) if by else solution
    raise ExpressionError(
        f"{name!r} in the differential equation is neither a variable ({', '.join(names)}), nor {unknown!r} or a "
        f"derivative of it (like {unknown}_{names[0]}), nor one of the given constants"
    )


def _evaluate_on(term: sp.Expr, columns: Mapping[str, Tensor], rows: int) -> Tensor:
    return evaluate(from_sympy(term), columns).double().expand(rows)


def _compute_rms(values: Tensor) -> float:
    size = float(values.square().mean().sqrt())
    return size if math.isfinite(size) else math.inf
