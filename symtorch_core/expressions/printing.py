"""Printing of trees as text: exact for the parser, or with few digits for people."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from symtorch_core.components.escaping import escape_latex_math
from symtorch_core.expressions.sympy_bridge import to_sympy
from symtorch_core.expressions.tree import Call, Constant, Expression, count_nodes, write_infix

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it

_MOST_TYPESET = 400
"""An expression of more nodes, which no reader could take in, is not typeset but written as text."""
_PLAIN_NAME = re.compile(r"[^\W_]+(_[^\W_]+)*")
_WORD = re.compile(r"(?<![\\\w])(?=\w*[^\W\d_])[^\W_]{2,}")


def to_text(expression: Expression, digits: int | None = None) -> str:
    """Return infix text with as few brackets as the grammar allows.

    Args:
        expression: the expression to print.
        digits: significant digits of the constants, for people: squares, cubes and inverses are then written as
            powers and quotients. With None, :func:`parse` reads the text back to an equal tree.

    >>> from symtorch_core.expressions import parse
    >>> to_text(parse("(x - (square(y) - 1)) * 3.14159265"), digits=4)
    '(x - (y^2 - 1))*3.142'
    """
    if digits is None:
        return write_infix(expression, repr)

    def show(value: float) -> str:
        return f"{value:.{digits}g}"

    return write_infix(_use_common_notation(expression, show), show)


def to_latex(expression: Expression, digits: int = 4) -> str:
    r"""Return an expression as LaTeX for a formula; one that is too large to be typeset, as text.

    >>> from symtorch_core.expressions import parse
    >>> print(to_latex(parse("2.00001*x_1^2")))
    2 x_{1}^{2}
    """
    import sympy as sp

    def show(part: sp.Expr) -> str:
        names = {symbol: name_to_latex(symbol.name) for symbol in part.free_symbols}
        has_words = any(name.startswith(r"\math") for name in names.values())
        return str(sp.latex(part, symbol_names=names, mul_symbol=r" \, " if has_words else None))

    typeset = typeset_with(show, expression, digits)
    return escape_latex_math(to_text(expression, digits)) if typeset is None else typeset


def typeset_with(write: Callable[[Any], str], expression: Expression, digits: int | None) -> str | None:
    """Return what one of sympy's printers makes of an expression; None if the expression is too large for it."""
    if count_nodes(expression) > _MOST_TYPESET:
        return None
    try:
        return write(to_sympy(expression, digits))
    except RecursionError:  # how many calls a printer needs for each level is not known
        return None


def name_to_latex(name: str) -> str:
    r"""Return a name as LaTeX for a formula: with subscripts and Greek letters where it has that form, else as text.

    >>> print(name_to_latex("x_12"), name_to_latex("alpha"), name_to_latex("θ"), name_to_latex("v_max"))
    x_{12} \alpha \theta v_{\mathrm{max}}
    >>> print(name_to_latex("what"), name_to_latex("50%"))
    \mathtt{what} \mathtt{50\%}
    """
    import sympy as sp

    symbol = name_to_symbol(name)
    if symbol is None:
        return escape_latex_math(name)
    return _WORD.sub(lambda word: rf"\mathrm{{{word.group()}}}", str(sp.latex(symbol)))


def name_to_symbol(name: str) -> sp.Symbol | None:
    """Return the symbol that sympy's printers show as this name; None if they would show another."""
    import sympy as sp

    if not _PLAIN_NAME.fullmatch(name):
        return None
    spelled = "_".join(map(_spell_greek, name.split("_")))
    letters = re.sub(r"[\\{}_ ]", "", str(sp.latex(sp.Symbol(spelled))))
    # sympy reads accents into names: what is not a w with a hat.
    return sp.Symbol(spelled) if letters == spelled.replace("_", "") else None


def _spell_greek(part: str) -> str:
    """Return the English name of a Greek letter, and any other text as it is."""
    kind, _, letter = unicodedata.name(part, "").partition(" LETTER ") if len(part) == 1 else ("", "", "")
    english = letter.replace("LAMDA", "LAMBDA")
    spelled = {"GREEK SMALL": english.lower(), "GREEK CAPITAL": english.capitalize()}.get(kind, part)
    return spelled if spelled.isalpha() else part


def _use_common_notation(node: Expression, show: Callable[[float], str]) -> Expression:
    """Return the same value in common notation."""
    if not isinstance(node, Call):
        return node
    args = [_use_common_notation(child, show) for child in node.args]
    match node.operator:
        case "^" if isinstance(args[1], Constant) and not args[1].value.is_integer():
            # Rounded here: an exponent that rounds to an integer is written as an integer.
            rounded = float(show(args[1].value))
            return Call("^", args[0], Constant(rounded) if math.isfinite(rounded) else args[1])
        case "square":
            return Call("^", args[0], Constant(2))
        case "cube":
            return Call("^", args[0], Constant(3))
        case "inv":
            return Call("/", Constant(1), args[0])
    return Call(node.operator, *args)
