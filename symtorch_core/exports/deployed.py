"""Everything that runs in a block's place, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

import torch
from torch import nn

from symtorch_core.errors import FileFormatError
from symtorch_core.expressions import Expression

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation
    from symtorch_core.surrogates.surrogate import Surrogate

Matrix = tuple[tuple[float, ...], ...]


@final
@dataclass(frozen=True)
class AffineMap:
    """The map x -> weight x + bias; ``weight`` is a tuple of its rows."""

    weight: Matrix
    bias: tuple[float, ...]

    @classmethod
    def of(cls, module: nn.Module | None) -> AffineMap | None:
        """Build the map of a module; None for a module that changes nothing.

        Raises:
            FileFormatError: the module is not linear.
        """
        if module is None or isinstance(module, nn.Identity):
            return None
        if not isinstance(module, nn.Linear):
            raise FileFormatError(
                f"a {type(module).__name__} of the reducer cannot be written as source code: export to .onnx or .pt2"
            )
        weight = module.weight.detach().double().cpu()
        bias = (
            torch.zeros(len(weight)).double() if module.bias is None else module.bias.detach().double().cpu()
        )
        return cls(tuple(map(tuple, weight.tolist())), tuple(bias.tolist()))


@final
@dataclass(frozen=True)
class Deployed:
    """The function from a block's inputs to its outputs: y = linear(z) + up(equations(z)), z = down(transforms(x)).

    Attributes:
        inputs: names of the block's inputs.
        transforms: derived variables; empty if the inputs are the variables.
        variables: names of z.
        equations: expressions in those names.
        outputs: names of the outputs.
        down, up, linear: affine maps; None for a map that changes nothing.
    """

    inputs: tuple[str, ...]
    transforms: tuple[tuple[str, Expression], ...]
    variables: tuple[str, ...]
    equations: tuple[Expression, ...]
    outputs: tuple[str, ...]
    down: AffineMap | None = None
    up: AffineMap | None = None
    linear: AffineMap | None = None

    @classmethod
    def of(cls, result: Distillation, surrogate: Surrogate | None = None) -> Self:
        """Build it from the chosen equations, or from a surrogate with its present constants.

        Raises:
            FileFormatError: a transform is a Python function, or a map of the reducer is not linear.
        """
        reduction = result.reduction if surrogate is None else surrogate.maps()
        equations: Sequence[Expression] = (
            [candidate.expression for candidate in result.chosen()]
            if surrogate is None
            else surrogate.expressions()
        )
        return cls(
            inputs=result.transforms.input_names,
            transforms=result.transforms.expressions(),
            variables=reduction.variable_names,
            equations=tuple(equations),
            outputs=result.output_names,
            down=AffineMap.of(reduction.down),
            up=AffineMap.of(reduction.up),
            linear=AffineMap.of(reduction.linear),
        )
