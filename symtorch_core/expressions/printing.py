"""Printing of trees as text: exact for the parser, or with few digits for people."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from symtorch_core.components.escaping import escape_latex_math
from symtorch_core.expressions.sympy_bridge import to_sympy
from symtorch_core.expressions.tree import (
    Call,
    Constant,
    Expression,
    Variable,
    constants,
    count_nodes,
    replace_constants,
    variables,
    write_infix,
)

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it

_MOST_TYPESET = 400
"""An expression of more nodes, which no reader could take in, is not typeset but written as text."""
_FINEST = 1e-12
"""Smaller errors, as a share of their number, are not written."""
_PLAIN_EXPONENTS = 5
"""Numbers of up to this many digits are written without a power of ten."""
_MARK = re.compile(r"\bc_+\d+\b")
_PLAIN_NAME = re.compile(r"[^\W_]+(_[^\W_]+)*")
_WORD = re.compile(r"(?<![\\\w])(?=\w*[^\W\d_])[^\W_]{2,}")


def to_text(
    expression: Expression, digits: int | None = None, errors: Sequence[float | None] | None = None
) -> str:
    """Return infix text with as few brackets as the grammar allows.

    Args:
        expression: the expression to print.
        digits: significant digits of the constants, for people: squares, cubes and inverses are then written as
            powers and quotients. With None, :func:`parse` reads the text back to an equal tree.
        errors: an error for each of ``constants(expression)``, which is then written as in ``(9.79 ± 0.01)*x``; None
            for a constant without one.

    >>> from symtorch_core.expressions import parse
    >>> to_text(parse("(x - (square(y) - 1)) * 3.14159265"), digits=4)
    '(x - (y^2 - 1))*3.142'
    """
    if errors is not None:
        marked, marks = _mark_constants(expression, errors)
        written = {mark: _write_text(*number) for mark, number in marks.items()}
        return _MARK.sub(lambda found: written.get(found.group(), found.group()), to_text(marked, digits))
    if digits is None:
        return write_infix(expression, repr)

    def show(value: float) -> str:
        return f"{value:.{digits}g}"

    return write_infix(_use_common_notation(expression, show), show)


def to_latex(expression: Expression, digits: int = 4, errors: Sequence[float | None] | None = None) -> str:
    r"""Return an expression as LaTeX for a formula, perhaps with errors of its constants; a very large one, as text.

    >>> from symtorch_core.expressions import parse
    >>> print(to_latex(parse("2.00001*x_1^2")))
    2 x_{1}^{2}
    """
    import sympy as sp

    marked, marks = _mark_constants(expression, errors or ())
    written = {f"0{mark}": _write_latex(*number) for mark, number in marks.items()}

    def show(part: sp.Expr) -> str:
        # Numbers come first in a product: so do their marks, by names that come before all others.
        part = part.xreplace(
            {symbol: sp.Symbol(f"0{symbol.name}") for symbol in part.free_symbols if symbol.name in marks}
        )
        names = {
            symbol: written.get(symbol.name) or name_to_latex(symbol.name) for symbol in part.free_symbols
        }
        has_words = any(name.startswith(r"\math") for name in names.values())
        return str(sp.latex(part, symbol_names=names, mul_symbol=r" \, " if has_words else None))

    typeset = typeset_with(show, marked, digits)
    return escape_latex_math(to_text(expression, digits, errors)) if typeset is None else typeset


def _mark_constants(
    expression: Expression, errors: Sequence[float | None]
) -> tuple[Expression, dict[str, tuple[float, float]]]:
    """Return the expression with variables in place of constants that have errors; value and error by variable."""
    stem = "c_"
    while any(name.startswith(stem) for name in variables(expression)):
        stem += "_"
    parts: list[Expression] = []
    marks: dict[str, tuple[float, float]] = {}
    for value, error in itertools.zip_longest(constants(expression), errors):
        if error is None or error <= _FINEST * abs(value):
            parts.append(Constant(value))
        else:
            marks[f"{stem}{len(parts)}"] = (value, error)
            parts.append(Variable(f"{stem}{len(parts)}"))
    return replace_constants(expression, parts), marks


def format_with_error(value: float, error: float) -> tuple[str, str, int]:
    """Return a number and its error, to two digits of the error, and the power of ten that multiplies both.

    >>> format_with_error(9.79123, 0.01187), format_with_error(31234.0, 871.0), format_with_error(2.5e-9, 3e-11)
    (('9.791', '0.012', 0), ('31230', '870', 0), ('2.500', '0.030', -9))
    """
    size = _find_exponent(max(abs(value), error))
    power = 0 if -_PLAIN_EXPONENTS <= size < _PLAIN_EXPONENTS else size
    last = _find_exponent(error) - 1 - power  # the place of the error's second digit
    scaled = (round(Decimal(number).scaleb(-power), -last) for number in (value, error))
    shown, deviation = (f"{number:.{max(0, -last)}f}" for number in scaled)
    return shown, deviation, power


def _find_exponent(value: float) -> int:
    return int(f"{value:.1e}".partition("e")[2])


def _write_text(value: float, error: float) -> str:
    shown, deviation, power = format_with_error(value, error)
    return f"({shown} ± {deviation})" + (f"e{power:+03d}" if power else "")


def _write_latex(value: float, error: float) -> str:
    shown, deviation, power = format_with_error(value, error)
    scale = rf" \cdot 10^{{{power}}}" if power else ""
    return rf"\left({shown}{scale} \pm {deviation}{scale}\right)"


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
