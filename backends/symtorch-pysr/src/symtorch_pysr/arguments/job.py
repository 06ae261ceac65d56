"""The job of a worker: arguments of PySRRegressor and of its fit, from a search space and the user's options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

from symtorch_core import SearchError, SearchSpace, did_you_mean
from symtorch_core.expressions import Variable
from symtorch_core.search import reserve_for_front
from symtorch_pysr.arguments.expressions import name_variable
from symtorch_pysr.arguments.losses import write_julia_loss
from symtorch_pysr.arguments.operators import JuliaOperators, translate_operators
from symtorch_pysr.arguments.parameters import Installation

_SMALLEST_MAXSIZE = 7
_MANY_ROWS = 10_000
"""Number of rows above which PySR 1 uses batches; PySR 2 decides this itself."""
_OF_FIT = frozenset({"X_units", "y_units"})
# Parameters of PySR that cannot be passed on, and what to do instead.
_INSTEAD: Mapping[str, str] = (
    MappingProxyType(
        {
            "operators": "name operators in binary_operators and unary_operators",
            "random_state": "give seed=, and deterministic=True for the same result every time",
            "warm_start": "each search runs in a separate process; give start=front to go on from equations, or "
            "resume=folder to go on after a crash",
            "guesses": "give start=, a front or a list of equations",
            "model_selection": "give select=",
            "weights": "give weights= to distill",
            "variable_names": "give variable_names= to distill",
            "Xresampled": "it is not supported",
            "progress": "progress goes to the callbacks",
            "verbosity": "progress goes to the callbacks",
            "input_stream": "press Ctrl-C to stop a search; the best equations so far are kept",
            "temp_equation_file": "files are temporary unless output_directory= or resume= is given",
            "tempdir": "files are temporary unless output_directory= or resume= is given",
            "delete_tempfiles": "files are temporary unless output_directory= or resume= is given",
        }
    )
    | dict.fromkeys(
        (
            "extra_sympy_mappings",
            "extra_torch_mappings",
            "extra_jax_mappings",
            "output_jax_format",
            "output_torch_format",
        ),
        "the core translates equations itself; custom operators need no mapping",
    )
    | dict.fromkeys(
        (
            "expression_spec",
            "type_spec",
            "logger_spec",
            "mutations",
            "default_mutations",
            "plugins",
            "default_plugins",
        ),
        "it is an object of PySR, and creating one here would start Julia in this process",
    )
)


@final
@dataclass(frozen=True)
class Arguments:
    """One job for the worker.

    Attributes:
        init: arguments of PySRRegressor, plain data.
        fit: arguments of its fit beside the arrays, plain data.
        operators: the operators in Julia.
    """

    init: Mapping[str, Any]
    fit: Mapping[str, Any]
    operators: JuliaOperators

    def to_json(self) -> str:
        """Return the job as the worker reads it."""
        return json.dumps({"init": self.init, "fit": self.fit, "defined": self.operators.defined})


def list_options(pysr: Installation) -> tuple[str, ...]:
    """Return the names of the options that can be passed on to the installed PySR."""
    return tuple(sorted((set(pysr.init) | _OF_FIT) - set(_INSTEAD) - SearchSpace.field_names()))


def check_options(options: Mapping[str, Any], pysr: Installation, *, also: Sequence[str] = ()) -> None:
    """Refuse options that the installed PySR does not take, or that are set in another way here.

    Args:
        options: options to pass on to PySR.
        pysr: the installed PySR.
        also: other names that the caller takes, for the closest match.

    Raises:
        SearchError: an option cannot be passed on; the message says what to do.
    """
    space = SearchSpace.field_names()
    known = list_options(pysr)
    for option, value in options.items():
        if option in _INSTEAD:
            raise SearchError(f"{option!r} cannot be passed to PySR here: {_INSTEAD[option]}")
        if option not in known:
            hint = did_you_mean(option, [*known, *also, *sorted(space)])
            raise SearchError(f"PySR {pysr.version} has no option {option!r}.{hint}")
        try:
            json.dumps(value)
        except TypeError:
            raise SearchError(
                f"{option}={value!r} cannot be passed to PySR, which runs in a separate process: give plain numbers, "
                "texts, lists or dictionaries"
            ) from None


def build_arguments(
    search: SearchSpace,
    pysr: Installation,
    *,
    variable_names: Sequence[str],
    rows: int,
    weighted: bool,
    outputs: int,
    elementwise_loss: str | None = None,
    seed: int | None = None,
    guesses: Sequence[Sequence[str]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Arguments:
    """Return all arguments of PySR but the arrays and the folder.

    Args:
        search: the search space.
        pysr: the installed PySR.
        variable_names: names of the inputs, for complexities by name.
        rows: number of rows.
        weighted: whether rows have weights.
        outputs: number of outputs.
        elementwise_loss: Julia code that replaces the search's loss; None for none.
        seed: seed of a deterministic, serial search; None for PySR's default.
        guesses: for each output, equations to start from, in Julia.
        options: checked options to pass on.

    Raises:
        SearchError: PySR cannot run this search.
    """
    _check_search(search)
    options = dict(options or {})
    operators = translate_operators(search, pysr.major)
    fit = {name: options.pop(name) for name in sorted(_OF_FIT & options.keys())}
    fit["variable_names"] = [name_variable(column) for column in range(len(variable_names))]
    init: dict[str, Any] = {
        "binary_operators": list(operators.binary),
        "unary_operators": list(operators.unary),
        "niterations": search.niterations,
        "maxsize": search.maxsize,
        "parsimony": search.parsimony,
        "complexity_of_operators": {
            operators.names[name]: value
            for name, value in search.complexity_of_operators.items()
            if name in operators.names
        },
        "complexity_of_constants": search.complexity_of_constants,
        "constraints": {
            operators.names[name]: limits[0] if len(limits) == 1 else limits
            for name, limits in search.constraints.items()
            if name in operators.names
        },
        "nested_constraints": _translate_nested(search, operators.names),
        "elementwise_loss": write_julia_loss(search.loss, elementwise_loss, weighted),
        # PySR's limit is for the search of all outputs, ours for the search and the front of each.
        "timeout_in_seconds": None
        if search.timeout_in_seconds is None
        else (search.timeout_in_seconds - reserve_for_front(search.timeout_in_seconds)) * outputs,
        # Progress is read from the worker's output, and it has no input.
        "progress": False,
        "verbosity": 1,
        "input_stream": "devnull",
    }
    if isinstance(search.complexity_of_variables, int):
        init["complexity_of_variables"] = search.complexity_of_variables
    else:
        rules = search.rules
        fit["complexity_of_variables"] = [rules.count(Variable(name)) for name in variable_names]
    if seed is not None:
        init |= {"random_state": seed % 2**31, "deterministic": True, "parallelism": "serial"}
    if pysr.major < 2 and rows > _MANY_ROWS:
        init["batching"] = True
    if guesses is not None:
        init["guesses"] = [list(some) for some in guesses]
    # Empty tables of constraints and complexities are left out.
    init = {name: value for name, value in init.items() if value not in (None, {}, ())}
    return Arguments(init | options, fit, operators)


def _check_search(search: SearchSpace) -> None:
    if not search.operators:
        raise SearchError("pysr needs at least one operator")
    if search.maxsize < _SMALLEST_MAXSIZE:
        raise SearchError(f"PySR needs a maxsize of at least {_SMALLEST_MAXSIZE}, got {search.maxsize}")
    for sign in ("+", "-"):
        limits = search.constraints.get(sign, ())
        if len(set(limits)) > 1:
            raise SearchError(f"PySR needs equal constraints for both sides of {sign!r}, got {limits}")


def _translate_nested(search: SearchSpace, names: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return the nested constraints between operators of the search, with their names in Julia."""
    inner = {
        outer: {names[name]: most for name, most in limits.items() if name in names}
        for outer, limits in search.nested_constraints.items()
        if outer in names
    }
    return {names[outer]: limits for outer, limits in inner.items() if limits}
