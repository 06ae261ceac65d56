"""Source code that needs none of this project: a numpy module, and C99."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from symtorch_core.errors import FileFormatError
from symtorch_core.exports.code import NUMPY, C, to_source
from symtorch_core.exports.deployed import AffineMap, Deployed
from symtorch_core.expressions import to_text

_TEMPLATES = "symtorch_core.exports.templates"


def to_python(deployed: Deployed, name: str = "equations") -> str:
    """Return a Python module with one function ``name(X)``: (n, d_in) to (n, d_out), float64, with numpy only.

    Raises:
        FileFormatError: ``name`` cannot name a function.
    """
    return _render("equations.py.j2", deployed, name, NUMPY, "x[:, {}]", "z[:, {}]")


def to_c(deployed: Deployed, name: str = "equations") -> str:
    """Return a C99 file with one function ``void name(const double *x, double *y)``, with <math.h> only.

    Raises:
        FileFormatError: ``name`` cannot name a function.
    """
    return _render("equations.c.j2", deployed, name, C, "x[{}]", "z[{}]")


def _render(template: str, deployed: Deployed, name: str, operators: Any, x: str, z: str) -> str:
    if not (name.isidentifier() and name.isascii()):
        raise FileFormatError(f"{name!r} cannot name a function: use letters, digits and _")
    inputs = {variable: x.format(column) for column, variable in enumerate(deployed.inputs)}
    variables = {variable: z.format(column) for column, variable in enumerate(deployed.variables)}
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["comment"] = _to_comment
    text = resources.files(_TEMPLATES).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(
        name=name,
        deployed=deployed,
        transforms=[to_source(expression, operators, inputs) for _, expression in deployed.transforms],
        equations=[to_source(expression, operators, variables) for expression in deployed.equations],
        readable=[to_text(expression, digits=6) for expression in deployed.equations],
        maps=list(_collect_maps(deployed)),
    )


def _collect_maps(deployed: Deployed) -> Iterator[tuple[str, AffineMap]]:
    for name, numbers in (("down", deployed.down), ("up", deployed.up), ("linear", deployed.linear)):
        if numbers is not None:
            yield name, numbers


def _to_comment(names: Sequence[str]) -> str:
    """Return names for a comment, without characters that could end it."""
    return (
        ", ".join(names)
        .encode("ascii", "backslashreplace")
        .decode()
        .translate(str.maketrans('*"\n\r', "...."))
    )
