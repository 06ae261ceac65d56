"""Transforms: variables derived from a block's inputs before the reduction and the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from symtorch_core.components.checks import check_distinct, check_names
from symtorch_core.errors import ExpressionError, FileFormatError, SearchError
from symtorch_core.expressions import Expression, Program, constants, parse
from symtorch_core.storage.documents import Label
from symtorch_core.storage.functions import (
    FunctionRecord,
    LostFunction,
    decode_function,
    encode_function,
    name_function,
)

Transform = str | Callable[[Tensor], Tensor]
"""An expression in the input names, or a function of torch tensors: of the inputs (..., d), one column (...)."""


@final
class TransformsRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Transforms in a file."""

    input_names: list[Label]
    definitions: dict[Label, str | FunctionRecord]


def check_transforms(transforms: Any) -> None:
    """Refuse what no inputs could make right; :class:`Transforms` knows the names of the inputs.

    Raises:
        SearchError: the transforms are not a dictionary of expressions and functions by the names of variables.
    """
    if not isinstance(transforms, Mapping):
        raise SearchError(
            "transforms takes a dictionary, name of the variable -> expression or function, like "
            f"{{'r': 'sqrt(x0^2 + x1^2)'}}, not {transforms!r}"
        )
    for name, definition in transforms.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise SearchError(
                f"transforms: {name!r} cannot name a variable: use letters, digits and _ (like r_12)"
            )
        if isinstance(definition, str):
            _parse(name, definition)
        elif not callable(definition):
            raise SearchError(f"transform {name!r} must be an expression or a function of the inputs")


def _parse(name: str, definition: str, variables: Sequence[str] | None = None) -> Expression:
    try:
        return parse(definition, variables)
    except ExpressionError as error:
        raise SearchError(f"transform {name!r}: {error}") from None


@final
class Transforms(nn.Module):
    """Map from inputs (..., d_in) to the derived variables (..., d_new) that equations are written in.

    Without transforms, the inputs themselves are the variables. With transforms, ONLY the derived variables are:
    list an input as ``{"x0": "x0"}`` to keep it.

    Args:
        input_names: names of the inputs, in column order.
        definitions: new variable -> :data:`Transform`.

    >>> polar = Transforms(["x", "y"], {"r": "sqrt(x^2 + y^2)"})
    >>> polar(torch.tensor([3.0, 4.0]))
    tensor([5.])

    Raises:
        SearchError: a transform is not an expression in the input names.
        ExpressionError: rows that are passed through do not have one number for each input.
    """

    def __init__(
        self, input_names: Sequence[str], definitions: Mapping[str, Transform] | None = None
    ) -> None:
        super().__init__()
        self.input_names = check_names("input_names", input_names)
        check_distinct("input_names", self.input_names)
        if definitions is not None:
            check_transforms(definitions)
        self.definitions: dict[str, Transform] = dict(definitions or {})
        self._trees: dict[str, Expression] = {
            name: _parse(name, definition, self.input_names)
            for name, definition in self.definitions.items()
            if isinstance(definition, str)
        }
        self._program = Program(list(self._trees.values()), self.input_names)
        self._numbers = tuple(value for tree in self._trees.values() for value in constants(tree))

    @classmethod
    def none(cls, input_names: Sequence[str]) -> Transforms:
        """Build the identity: the inputs are the variables."""
        return cls(input_names)

    @property
    def variable_names(self) -> tuple[str, ...]:
        """Names of the derived columns."""
        return tuple(self.definitions) or self.input_names

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 0 or x.shape[-1] != len(self.input_names):
            raise ExpressionError(
                f"the equations take {len(self.input_names)} inputs ({', '.join(self.input_names)}), "
                + (f"got {x.shape[-1]} columns" if x.ndim else "got a single number")
            )
        if not self.definitions:
            return x
        derived: dict[str, Tensor] = {}
        if self._trees:
            numbers = torch.tensor(self._numbers, dtype=x.dtype, device=x.device)
            derived = dict(zip(self._trees, self._program(x, numbers).unbind(-1), strict=True))
        columns = [
            derived[name] if name in derived else self._call_function(name, x) for name in self.definitions
        ]
        return torch.stack(columns, dim=-1)

    def _call_function(self, name: str, x: Tensor) -> Tensor:
        function = self.definitions[name]
        assert not isinstance(function, str)
        column = function(x)
        if isinstance(column, np.ndarray):
            raise SearchError(self._explain(name, "it returns a numpy array"))
        if not isinstance(column, Tensor) or column.shape != x.shape[:-1]:
            raise SearchError(
                f"transform {name!r} must map a tensor (..., {x.shape[-1]}) to one of shape (...): write "
                "lambda x: x[..., 0] - x[..., 1], say"
            )
        return column

    def check_functions(self, x: Tensor) -> None:
        """Refuse, before a search, functions that only compute where no gradients are needed: numpy's.

        Args:
            x: some rows, shape (n, d_in).

        Raises:
            SearchError: a function fails on tensors that need gradients.
        """
        with torch.enable_grad():
            tracked = x.clone().requires_grad_() * 1.0
            for name in self.functions():
                try:
                    self._call_function(name, tracked)
                except (AttributeError, RuntimeError, TypeError) as error:
                    raise SearchError(self._explain(name, str(error))) from error

    def _explain(self, name: str, problem: str) -> str:
        return (
            f"transform {name!r} must be a function of torch tensors, through which gradients pass ({problem}): write "
            "it with torch's functions, like torch.hypot(x[..., 0], x[..., 1]), or as an expression"
        )

    def extra_repr(self) -> str:
        return "\n".join(f"{name} = {text}" for name, text in self.texts().items())

    def texts(self) -> dict[str, str]:
        """Return the derived variables by name, as text; a Python function by its name."""
        return {
            name: definition if isinstance(definition, str) else f"{name_function(definition)}(...)"
            for name, definition in self.definitions.items()
        }

    def functions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the transforms that are Python functions, by name."""
        return {name: d for name, d in self.definitions.items() if not isinstance(d, str)}

    def lost(self) -> tuple[str, ...]:
        """Return the names of transforms whose Python functions are not in the file these come from."""
        return tuple(name for name, d in self.definitions.items() if isinstance(d, LostFunction))

    def with_functions(self, functions: Mapping[str, Callable[[Tensor], Tensor]]) -> Transforms:
        """Return the transforms with functions in place of lost ones of the same name."""
        found = {name: functions[name] for name in self.lost() if name in functions}
        return Transforms(self.input_names, {**self.definitions, **found}) if found else self

    def expressions(self) -> tuple[tuple[str, Expression], ...]:
        """Return the derived variables by name, as expressions in the input names; empty if there are none.

        Raises:
            FileFormatError: a transform is a Python function.
        """
        for name in self.functions():
            raise FileFormatError(
                f"transform {name!r} is a Python function, which cannot be written as source code: write it as an "
                f"expression in {', '.join(self.input_names)}"
            )
        return tuple(self._trees.items())

    def to_json(self) -> dict[str, object]:
        """Return input names and definitions as JSON data; of a Python function, its name."""
        return {
            "input_names": list(self.input_names),
            "definitions": {
                name: str(self._trees[name]) if isinstance(definition, str) else encode_function(definition)
                for name, definition in self.definitions.items()
            },
        }

    @classmethod
    def from_record(cls, record: TransformsRecord) -> Transforms:
        """Build transforms from their record, with placeholders of Python functions.

        Raises:
            FileFormatError: the names or the expressions are invalid.
        """
        read = {
            name: decode_function(entry, f"transform {name!r}") for name, entry in record.definitions.items()
        }
        try:
            return cls(record.input_names, read)
        except SearchError as error:
            raise FileFormatError(f"the saved transforms cannot be used: {error}") from error
