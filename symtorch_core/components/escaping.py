r"""Names as text, in every language that something is written in: no name ends a comment, starts a formula or hides.

Names of outputs, blocks and titles are any text. Nothing here refuses one; each function returns what shows it.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, marks of direction, halves of characters and separators of lines."""
_LATEX: Final = {c: f"\\{c}" for c in "&%$#_{}"}
_LATEX_TEXT: Final = str.maketrans(
    {**_LATEX, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
_LATEX_MATH: Final = str.maketrans(
    {**_LATEX, "\\": r"\backslash{}", "~": r"\sim{}", "^": r"\wedge{}", "'": r"{\prime}", " ": r"\ "}
)
_FORMULA: Final = ("=", "+", "-", "@")


def show_hidden(text: str, keep: str = "") -> str:
    r"""Return text for the terminal: controls, line breaks and marks of direction are written as escapes.

    Args:
        text: any text.
        keep: characters that stay.

    >>> print(show_hidden("a\x1b[31m\nα"))
    a\x1b[31m\nα
    """
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _HIDDEN and c not in keep else c
        for c in text
    )


def escape_comment(text: str) -> str:
    """Return text for a comment of Python (behind ``#``) or of C, which it cannot end.

    >>> escape_comment("a*/b")
    'a* /b'
    """
    return re.sub(
        r"(?<=\*)/|(?<=/)(?=\*)|(?<=\?)(?=\?)", lambda found: f" {found.group()}", show_hidden(text)
    )


def escape_latex_text(text: str) -> str:
    r"""Return text for LaTeX outside of formulas.

    >>> print(escape_latex_text(r"50% \input{x}"))
    50\% \textbackslash{}input\{x\}
    """
    return show_hidden(text).translate(_LATEX_TEXT)


def escape_latex_math(text: str) -> str:
    r"""Return text for LaTeX inside of formulas, as notebooks show them too.

    >>> print(escape_latex_math(r"\xi_1"))
    \mathtt{\backslash{}xi\_1}
    """
    return rf"\mathtt{{{show_hidden(text).translate(_LATEX_MATH)}}}"


def escape_html(value: object) -> object:
    """Return a value for a page that escapes text: hidden characters are shown, and markup is left alone.

    Templates use it for every value they print (jinja's ``finalize``).
    """
    return value if isinstance(value, Markup) else show_hidden(str(value), keep="\n\t")


def escape_csv(text: str) -> str:
    """Return a cell of a CSV file that no spreadsheet takes for a formula; numbers stay numbers.

    >>> escape_csv("=1+1"), escape_csv("-0.5")
    ("'=1+1", '-0.5')
    """
    shown = show_hidden(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?(\d+(\.\d*)?|\.\d+|inf|nan)([eE][+-]?\d+)?%?\s*", text) is not None


def escape_plot(text: str, most: int = 60) -> str:
    """Return a label for matplotlib, which takes ``$`` for mathematics and leaves labels with a leading _ out.

    It has at most this many characters, since a longer one leaves no room for the plot.

    >>> escape_plot("$x$")
    '\\\\$x\\\\$'
    """
    shown = show_hidden(shorten(text, most)).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def shorten(text: str, most: int) -> str:
    """Return text of at most this many characters, with dots in place of the rest."""
    return text if len(text) <= most else text[: most - 1] + "…"


def make_python_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return an identifier of Python for each name, all different, none a keyword, and none of those taken.

    >>> make_python_names(["x", "lambda", "np"], taken=["np"])
    {'x': 'x', 'lambda': 'lambda_', 'np': 'np_'}
    """
    used = set(taken)
    chosen: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name)  # as Python reads it
        while plain in used or keyword.iskeyword(plain):
            plain += "_"
        used.add(plain)
        chosen[name] = plain
    return chosen


def make_variable_names(names: Iterable[str], taken: Iterable[str] = ()) -> tuple[str, ...]:
    """Return a name of a variable for each of any names, all different, and none of those taken.

    Identifiers stay as they are. Of others, letters, digits and _ stay, behind an x if a digit would come first.

    >>> make_variable_names(["mass (kg)", "2nd", "m²", "%", "mass [kg]", "exp"], taken=["exp"])
    ('mass_kg', 'x2nd', 'm2', 'x', 'mass_kg_2', 'exp_')
    """
    given, reserved = tuple(names), frozenset(taken)
    chosen: dict[str, None] = {}  # in order
    for name in given:
        first = _make_identifier(name)
        number, first = 1, f"{first}_" if first in reserved else first
        plain = first
        # What another one is called from the beginning stays with that one.
        while plain in chosen or plain in reserved or (plain != name and plain in given):
            number += 1
            plain = f"{first}_{number}"
        chosen[plain] = None
    return tuple(chosen)


def _make_identifier(name: str) -> str:
    if name.isidentifier():
        return name
    normal = unicodedata.normalize("NFKC", name)
    plain = re.sub("_+", "_", "".join(c if f"x{c}".isidentifier() else "_" for c in normal)).strip("_")
    return plain if plain.isidentifier() else f"x{plain}"
