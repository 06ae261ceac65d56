"""Source code that needs none of this project: a numpy module, and C99."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from importlib import resources
from typing import Final

from jinja2 import Environment, StrictUndefined

from symtorch_core.components.escaping import escape_comment, shorten
from symtorch_core.errors import FileFormatError
from symtorch_core.exports.code import C99, PYTHON, C, Language, to_program
from symtorch_core.exports.deployed import AffineMap, Deployed
from symtorch_core.expressions import to_text

_TEMPLATES: Final = "symtorch_core.exports.templates"
_WORDS_OF_C: Final = (
    "auto break case char const continue default do double else enum extern for goto if inline int long main register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while floored_mod"
)
_TAKEN: Final = {"np", "math", "len", "float", *re.findall(r"[a-z]\w*", " ".join((_WORDS_OF_C, *C.values())))}
_MOST_IN_COMMENT: Final = 1000


def to_python(deployed: Deployed, name: str = "equations") -> str:
    """Return a Python module with one function ``name(X)``: (n, d_in) to (n, d_out), float64, with numpy only.

    Raises:
        FileFormatError: ``name`` cannot name a function.
    """
    return _render("equations.py.j2", deployed, name, PYTHON, "x[:, {}]", "z[:, {}]")


def to_c(deployed: Deployed, name: str = "equations") -> str:
    """Return a C99 file with one function ``void name(const double *x, double *y)``, with <math.h> only.

    Raises:
        FileFormatError: ``name`` cannot name a function.
    """
    return _render("equations.c.j2", deployed, name, C99, "x[{}]", "z[{}]")


def _render(template: str, deployed: Deployed, name: str, language: Language, x: str, z: str) -> str:
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name) or name in _TAKEN:
        raise FileFormatError(
            f"{name!r} cannot name a function: use letters, digits and _, and no word of Python or C"
        )
    inputs = {variable: x.format(column) for column, variable in enumerate(deployed.inputs)}
    variables = {variable: z.format(column) for column, variable in enumerate(deployed.variables)}
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["comment"] = escape_comment
    text = resources.files(_TEMPLATES).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(
        name=name,
        deployed=deployed,
        transforms=to_program([expression for _, expression in deployed.transforms], language, inputs, "u"),
        equations=to_program(deployed.equations, language, variables),
        readable=[
            shorten(to_text(expression, digits=6), _MOST_IN_COMMENT) for expression in deployed.equations
        ],
        maps=list(_collect_maps(deployed)),
    )


def _collect_maps(deployed: Deployed) -> Iterator[tuple[str, AffineMap]]:
    for name, numbers in (("down", deployed.down), ("up", deployed.up), ("linear", deployed.linear)):
        if numbers is not None:
            yield name, numbers
