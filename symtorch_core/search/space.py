"""The search space: operators, sizes, constraints, loss and time limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor

from symtorch_core.components.calls import explain_construction
from symtorch_core.components.checks import check_flag, check_names, check_number, check_whole
from symtorch_core.errors import ExpressionError, SearchError, did_you_mean
from symtorch_core.expressions import (
    ALIASES,
    OPERATORS,
    ComplexityRules,
    Definition,
    Expression,
    is_definition,
    lookup,
    parse_definition,
    satisfies_constraints,
)
from symtorch_core.search.losses import Loss, check_loss, get_loss, make_loss
from symtorch_core.search.residual_losses import read_loss
from symtorch_core.storage.functions import LostFunction


@explain_construction
@final
@dataclass(frozen=True)
class SearchSpace:
    """Operators, limits and loss of a search, in PySR's words. Defaults are the paper's (Table 3).

    Attributes:
        binary_operators: operators of two arguments, by name, or defined here as ``"mean(x, y) = (x + y)/2"`` for
            backends that support this. Equations come back with definitions expanded, and are counted that way.
        unary_operators: operators of one argument, given in the same way.
        niterations: effort; each backend says what an iteration is.
        maxsize: largest complexity of an equation.
        parsimony: added for each unit of complexity while searching, to the loss as a share of the best constant's
            loss, so that it does not depend on the units of the targets (PySR takes 0.01 for a smaller loss of
            the constant). Fronts are ranked without it.
        complexity_of_operators: complexity of each operator; 1 for operators not named.
        complexity_of_constants: complexity of a constant.
        complexity_of_variables: complexity of a variable; one number, or a number by name (1 for variables not named).
        constraints: operator -> largest complexity of each argument (-1: any). A single number needs no tuple. For
            a sum or a product, the limits hold in either order.
        nested_constraints: outer operator -> inner operator -> how often the inner may be nested in the
            outer.
        loss: ``"mse"``, ``"mae"``, ``"huber"``, a formula in the residual ``r`` = prediction - target
            (``"abs(r)^1.5"``), a torch function of it, or a loss of (prediction, target) that depends on their
            difference alone (``nn.L1Loss()``, ``F.smooth_l1_loss``); of a function, only the name is saved with
            results. It must be lowest at 0 and never fall as a residual grows.
        timeout_in_seconds: wall-clock limit for each output, from the start of its search to its front (outputs that
            are searched together share the sum of their limits); None for no limit. The step of the search that is
            under way is finished, and the start of processes and of Julia does not count.
        refine: refit the constants of every kept equation by least squares (reweighted for losses other than mse).

    Raises:
        SearchError: a field is invalid; the message says which, and what would be valid.
    """

    binary_operators: tuple[str, ...] = ("+", "*")
    unary_operators: tuple[str, ...] = ("inv", "sin", "exp")
    niterations: int = 400
    maxsize: int = 30
    parsimony: float = 0.0
    complexity_of_operators: Mapping[str, int] = field(default_factory=lambda: {"sin": 3, "exp": 3})
    complexity_of_constants: int = 1
    complexity_of_variables: int | Mapping[str, int] = 1
    constraints: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    nested_constraints: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    loss: str | Callable[..., Tensor] = "mse"
    timeout_in_seconds: float | None = None
    refine: bool = True

    def __post_init__(self) -> None:
        for name, arity in (("binary_operators", 2), ("unary_operators", 1)):
            object.__setattr__(
                self, name, tuple(dict.fromkeys(_resolve_operators(name, getattr(self, name), arity)))
            )
        arities = {entry.name: len(entry.parameters) for entry in self.definitions}
        if len(arities) < len(self.definitions):
            raise SearchError(
                f"two definitions have one name: {', '.join(entry.source for entry in self.definitions)}"
            )
        object.__setattr__(
            self,
            "complexity_of_operators",
            _resolve_keys("complexity_of_operators", self.complexity_of_operators, arities, '{"sin": 3}'),
        )
        object.__setattr__(self, "constraints", _resolve_constraints(self.constraints, arities))
        object.__setattr__(
            self, "nested_constraints", _resolve_nested_constraints(self.nested_constraints, arities)
        )
        for name in ("niterations", "maxsize"):
            check_whole(name, getattr(self, name), 1)
        check_number("parsimony", self.parsimony, 0)
        check_flag("refine", self.refine)
        if self.timeout_in_seconds is not None:
            check_number("timeout_in_seconds", self.timeout_in_seconds, 0, open_low=True)
        self._check_complexities()
        if not (isinstance(self.loss, (str, LostFunction)) or callable(self.loss)):
            raise SearchError(
                f"loss takes the name of a loss, a formula or a torch function, not {self.loss!r}"
            )
        object.__setattr__(self, "loss", read_loss(self.loss))
        if not isinstance(self.loss, LostFunction):  # of a saved search, which is not run again
            check_loss(self.loss_function)

    def _check_complexities(self) -> None:
        for name, value in self.complexity_of_operators.items():
            check_whole(f"the complexity of {name!r}", value)
        check_whole("complexity_of_constants", self.complexity_of_constants)
        of_variables = self.complexity_of_variables
        if isinstance(of_variables, Mapping):
            check_names("complexity_of_variables", list(of_variables))
            for name, value in of_variables.items():
                check_whole(f"the complexity of {name!r}", value)
        else:
            check_whole("complexity_of_variables", of_variables)
        if self.complexity_of_constants > self.maxsize:
            raise SearchError(
                f"no equation fits into maxsize={self.maxsize}: a constant alone has the complexity "
                f"{self.complexity_of_constants}"
            )

    def check_variables(self, names: Sequence[str]) -> None:
        """Check that every name in ``complexity_of_variables`` is one of these names of inputs.

        Raises:
            SearchError: one is not.
        """
        if isinstance(self.complexity_of_variables, Mapping):
            for name in self.complexity_of_variables:
                if name not in names:
                    hint = did_you_mean(name, names)
                    raise SearchError(
                        f"complexity_of_variables names {name!r}, which is no input of the equations.{hint} "
                        f"There are: {', '.join(names) or 'none'}"
                    )

    @property
    def operators(self) -> tuple[str, ...]:
        """All operators, binary first."""
        return self.binary_operators + self.unary_operators

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """The operators that are defined here."""
        return tuple(parse_definition(operator) for operator in self.operators if is_definition(operator))

    def refuse_definitions(self, backend: str) -> None:
        """Refuse operators defined in this search, for backends that know operators by name only.

        Raises:
            SearchError: an operator is defined in this search.
        """
        if self.definitions:
            source = self.definitions[0].source
            raise SearchError(f"{backend} has no operator {source!r}: it takes operators by name only")

    @property
    def rules(self) -> ComplexityRules:
        """The rules by which complexity is counted."""
        return ComplexityRules(
            self.complexity_of_operators, self.complexity_of_constants, self.complexity_of_variables
        )

    @property
    def loss_function(self) -> Loss:
        """The loss, ready to call."""
        return make_loss(self.loss) if callable(self.loss) else get_loss(self.loss)

    def admits(self, expression: Expression) -> bool:
        """Return whether an expression respects ``maxsize``, ``constraints`` and ``nested_constraints``."""
        rules = self.rules
        return rules.count(expression) <= self.maxsize and satisfies_constraints(
            expression, rules, self.constraints, self.nested_constraints
        )

    @classmethod
    def field_names(cls) -> frozenset[str]:
        """Return the names of the fields."""
        return frozenset(entry.name for entry in dataclasses.fields(cls))


def _resolve_operator(name: str, defined: Collection[str] = ()) -> str:
    try:
        return name if name in defined else lookup(name).name
    except ExpressionError as error:
        raise SearchError(str(error)) from None


def _resolve_operators(field_name: str, names: Iterable[str], arity: int) -> Iterable[str]:
    others = {1: "unary_operators", 2: "binary_operators"}
    for name in check_names(field_name, names):
        operator, takes = _resolve_name_or_definition(name)
        if takes != arity:
            raise SearchError(
                f"{name!r} does not take {arity} argument(s): it does not belong in {field_name}"
                + (f", but in {others[takes]}" if takes in others else "")
            )
        yield operator


def _resolve_name_or_definition(text: str) -> tuple[str, int]:
    """Return an operator as the search keeps it, and its arity; a defined operator of the table gives its name."""
    if not is_definition(text):
        return _resolve_operator(text), lookup(_resolve_operator(text)).arity
    try:
        definition = parse_definition(text)
    except ExpressionError as error:
        raise SearchError(str(error)) from None
    known = definition.name in OPERATORS or definition.name in ALIASES
    return lookup(definition.name).name if known else text.strip(), len(definition.parameters)


def _resolve_keys(name: str, given: Any, defined: Collection[str], example: str) -> dict[str, Any]:
    """Return a mapping from operators with the operators' names in the table; refuse anything else."""
    if not isinstance(given, Mapping):
        raise SearchError(f"{name} takes a dictionary from operators, like {example}, got {given!r}")
    return {
        _resolve_operator(key, defined): value
        for key, value in zip(check_names(name, list(given)), given.values(), strict=True)
    }


def _resolve_constraints(constraints: Any, defined: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    result = {}
    for name, limits in _resolve_keys("constraints", constraints, defined, '{"^": (-1, 1)}').items():
        arity = defined[name] if name in defined else lookup(name).arity
        as_tuple = tuple(limits) if isinstance(limits, tuple | list) else (limits,)
        for limit in as_tuple:
            check_whole(f"the constraint of {name!r} (-1: any)", limit, -1)
        if len(as_tuple) != arity:
            raise SearchError(f"the constraint of {name!r} needs {arity} number(s), got {limits!r}")
        result[name] = as_tuple
    return result


def _resolve_nested_constraints(given: Any, defined: Collection[str]) -> dict[str, dict[str, int]]:
    example = '{"sin": {"exp": 0}}'
    result = {}
    for outer, limits in _resolve_keys("nested_constraints", given, defined, example).items():
        result[outer] = _resolve_keys("nested_constraints", limits, defined, example)
        for inner, most in result[outer].items():
            check_whole(f"how often {inner!r} may be nested in {outer!r}", most)
    return result
