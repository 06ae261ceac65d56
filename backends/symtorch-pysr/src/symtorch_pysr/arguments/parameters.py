"""The parameters of the installed PySR, read from its source, since an import of PySR would start Julia."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import final

from symtorch_core import MissingDependencyError


@final
@dataclass(frozen=True)
class Installation:
    """A version of PySR and its parameters.

    Attributes:
        version: version of its distribution.
        init: parameters of PySRRegressor with their defaults, as source text.
        fit: parameters of PySRRegressor.fit that may be given by name.
    """

    version: str
    init: Mapping[str, str]
    fit: frozenset[str]

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.partition(".")[0])

    @property
    def takes_guesses(self) -> bool:
        """Whether a search can start from equations (since 2.0)."""
        return "guesses" in self.init


def read_installed() -> Installation:
    """Return the installed PySR.

    Raises:
        MissingDependencyError: PySR is not installed, or it cannot be read.
    """
    found = importlib.util.find_spec("pysr")
    if found is None or found.origin is None:
        raise MissingDependencyError("PySR is not installed. Try: pip install pysr", name="pysr")
    version = metadata.version("pysr")
    try:
        return read_parameters(Path(found.origin).with_name("sr.py").read_text(encoding="utf-8"), version)
    except (OSError, ValueError, KeyError) as error:
        raise MissingDependencyError(
            f"PySR {version} cannot be read as 1.5 to 2.7 can ({error!r}). Try: pip install 'pysr>=1.5,<3'",
            name="pysr",
        ) from error


def read_parameters(source: str, version: str) -> Installation:
    """Return the parameters in the source of ``pysr/sr.py``."""
    (regressor,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "PySRRegressor"
    )
    functions = {node.name: node.args for node in regressor.body if isinstance(node, ast.FunctionDef)}
    init = _read_defaults(functions["__init__"])
    return Installation(version, init, frozenset(_read_defaults(functions["fit"])))


def _read_defaults(arguments: ast.arguments) -> dict[str, str]:
    positional = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    pairs = [
        *zip(positional, arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return {argument.arg: ast.unparse(default) for argument, default in pairs if default is not None}
