"""What a search is asked: operators, sizes, constraints, loss, time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from symtorch_core.errors import ExpressionError, SearchError
from symtorch_core.expression import ComplexityRules, Expression, lookup, within_constraints
from symtorch_core.losses import Loss, check_loss, custom_loss, loss_named


@final
@dataclass(frozen=True)
class SearchSpace:
    """What a search may use and what it should minimise, in PySR's words. Defaults are the paper's (Table 3).

    Attributes:
        binary_operators: operators of two arguments.
        unary_operators: operators of one argument.
        niterations: effort; each backend says what an iteration is.
        maxsize: largest complexity of an equation.
        parsimony: added to the loss for each unit of complexity while searching.
        complexity_of_operators: complexity by operator; 1 where not named.
        complexity_of_constants: complexity of a constant.
        complexity_of_variables: complexity of a variable, one number or by name.
        constraints: operator -> largest complexity of each argument (-1: any); one number may stand without a
            tuple.
        nested_constraints: outer operator -> inner operator -> how often the inner may be nested in the
            outer.
        loss: ``"mse"``, ``"mae"``, ``"huber"``, or an elementwise torch function of the residual (prediction -
            target); with a function, results can be used but not saved.
        timeout_in_seconds: wall-clock limit for the search of one output; None for no limit.
        refine: refit the constants of every kept equation by least squares (or its like for other losses).

    Raises:
        SearchError: a field cannot be honoured; the message says which and what would do.
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
    loss: str | Callable[[Tensor], Tensor] = "mse"
    timeout_in_seconds: float | None = None
    refine: bool = True

    def __post_init__(self) -> None:
        for name, arity in (("binary_operators", 2), ("unary_operators", 1)):
            object.__setattr__(self, name, tuple(dict.fromkeys(_operators(name, getattr(self, name), arity))))
        canonical = {_operator(name): value for name, value in self.complexity_of_operators.items()}
        object.__setattr__(self, "complexity_of_operators", canonical)
        object.__setattr__(self, "constraints", _constraints(self.constraints))
        nested = {
            _operator(outer): {_operator(name): most for name, most in inner.items()}
            for outer, inner in self.nested_constraints.items()
        }
        object.__setattr__(self, "nested_constraints", nested)
        if self.niterations < 1 or self.maxsize < 1:
            raise SearchError("niterations and maxsize must be at least 1")
        if self.parsimony < 0:
            raise SearchError("parsimony must not be negative")
        if self.timeout_in_seconds is not None and self.timeout_in_seconds <= 0:
            raise SearchError("timeout_in_seconds must be positive, or None for no limit")
        check_loss(self.loss_function)

    @property
    def operators(self) -> tuple[str, ...]:
        """All operators, binary first."""
        return self.binary_operators + self.unary_operators

    @property
    def rules(self) -> ComplexityRules:
        """How complexity is counted."""
        return ComplexityRules(
            self.complexity_of_operators, self.complexity_of_constants, self.complexity_of_variables
        )

    @property
    def loss_function(self) -> Loss:
        """The loss, ready to call."""
        return custom_loss(self.loss) if callable(self.loss) else loss_named(self.loss)

    def admits(self, expression: Expression) -> bool:
        """Whether an expression respects ``maxsize``, ``constraints`` and ``nested_constraints``."""
        rules = self.rules
        return rules.count(expression) <= self.maxsize and within_constraints(
            expression, rules, self.constraints, self.nested_constraints
        )

    @classmethod
    def field_names(cls) -> frozenset[str]:
        """Names of the fields."""
        return frozenset(entry.name for entry in dataclasses.fields(cls))


def _operator(name: str) -> str:
    try:
        return lookup(name).name
    except ExpressionError as error:
        raise SearchError(str(error)) from None


def _operators(field_name: str, names: Iterable[str], arity: int) -> Iterable[str]:
    if isinstance(names, str):
        raise SearchError(f"{field_name} takes a list of names, like ({names!r},)")
    for name in names:
        if lookup(_operator(name)).arity != arity:
            raise SearchError(
                f"{name!r} does not take {arity} argument(s): it does not belong in {field_name}"
            )
        yield _operator(name)


def _constraints(constraints: Mapping[str, int | tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    result = {}
    for name, limits in constraints.items():
        operator = lookup(_operator(name))
        as_tuple = (limits,) if isinstance(limits, int) else tuple(limits)
        if len(as_tuple) != operator.arity:
            raise SearchError(f"the constraint of {name!r} needs {operator.arity} number(s), got {limits!r}")
        result[operator.name] = as_tuple
    return result
