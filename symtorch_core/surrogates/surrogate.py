"""Surrogates: equations as a torch module that takes a block's place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, final, overload

import numpy as np
import torch
from torch import Tensor, nn

from symtorch_core.activations.rows import as_real_tensor
from symtorch_core.expressions import Expression, Program, constants, to_sympy, with_constants
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.surrogates.transforms import Transforms

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it

_EXACT = (torch.float32, torch.float64)


class Surrogate(nn.Module, ABC):
    """Module (..., d_in) -> (..., d_out) that computes equations."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def build(
        cls, expressions: Sequence[Expression], transforms: Transforms, reduction: Reduction
    ) -> Surrogate:
        """Build a surrogate with one equation for each reduced output.

        Args:
            expressions: k_out equations in ``reduction.variable_names``.
            transforms: maps from the block's inputs to the variables the reduction takes.
            reduction: the maps before and after the equations.
        """

    @abstractmethod
    def structure(self) -> tuple[Expression, ...]:
        """Return the equations as built; :meth:`expressions` has the present constants."""

    @abstractmethod
    def trainable(self, on: bool = True, *, maps: bool = False) -> Surrogate:
        """Let the constants (and with ``maps`` the reducer's maps) receive gradients or not; return the surrogate."""

    @abstractmethod
    def expressions(self) -> tuple[Expression, ...]:
        """Return the equations with their present constants."""

    @abstractmethod
    def maps(self) -> Reduction:
        """Return the reducer's maps around the equations, as they are now."""

    def equations(self) -> tuple[sp.Expr, ...]:
        """Return the equations with their present constants, in sympy, in plain symbols."""
        return tuple(to_sympy(expression, real=False) for expression in self.expressions())

    @overload
    def predict(self, rows: Tensor) -> Tensor: ...

    @overload
    def predict(self, rows: np.ndarray) -> np.ndarray: ...

    def predict(self, rows: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Return the outputs (..., d_out) for rows (..., d_in), without gradients; values may be non-finite.

        For an array, an array is returned.

        Raises:
            CaptureError: the array does not hold numbers.
        """
        if isinstance(rows, np.ndarray):
            device = next((p.device for p in self.parameters()), None)
            return self.predict(as_real_tensor(rows, "rows").to(device)).cpu().numpy()
        with torch.no_grad():
            outputs: Tensor = self(rows)
        return outputs


@final
class TorchSurrogate(Surrogate):
    """All equations as one fused torch program that shares common subexpressions.

    The constants of all equations are ONE parameter vector, frozen by default. It stays float64 whatever the module
    is cast to, so that no cast loses digits, and is rounded to the inputs' precision on use. Half-precision inputs
    are computed in float32 and returned in their own precision; integer inputs are computed and returned in float32.

    >>> from symtorch_core.expressions import parse
    >>> from symtorch_core.reduction.linear import IdentityReducer
    >>> reduction = IdentityReducer.restore({"variable_names": ["a", "b"]})
    >>> equations = [parse("2*a + b"), parse("a*b")]
    >>> surrogate = TorchSurrogate.build(equations, Transforms.none(["a", "b"]), reduction)
    >>> surrogate(torch.tensor([[1.0, 3.0], [2.0, 5.0]]))
    tensor([[ 5.,  3.],
            [ 9., 10.]])
    """

    name = "torch"

    def __init__(
        self, expressions: Sequence[Expression], transforms: Transforms, reduction: Reduction
    ) -> None:
        super().__init__()
        self.transforms = transforms
        self.reduction = reduction
        values = [value for expression in expressions for value in constants(expression)]
        self.constants = nn.Parameter(torch.tensor(values, dtype=torch.float64), requires_grad=False)
        self._structure = tuple(expressions)
        self._program = Program(self._structure, reduction.variable_names)

    @classmethod
    def build(
        cls, expressions: Sequence[Expression], transforms: Transforms, reduction: Reduction
    ) -> TorchSurrogate:
        return cls(expressions, transforms, reduction)

    def expressions(self) -> tuple[Expression, ...]:
        values, result = self.constants.detach().double().cpu().tolist(), []
        for expression in self._structure:
            count = len(constants(expression))
            result.append(with_constants(expression, values[:count]))
            values = values[count:]
        return tuple(result)

    def structure(self) -> tuple[Expression, ...]:
        return self._structure

    def maps(self) -> Reduction:
        return self.reduction

    def trainable(self, on: bool = True, *, maps: bool = False) -> TorchSurrogate:
        self.constants.requires_grad_(on)
        for part in (self.reduction.down, self.reduction.up, self.reduction.linear):  # project is not run
            if part is not None:
                part.requires_grad_(on and maps)
        return self

    def forward(self, x: Tensor) -> Tensor:
        work = x if x.dtype in _EXACT else x.float()
        z = self.reduction.reduce_inputs(self.transforms(work))
        f = self._program(z, self.constants.to(z.dtype))
        y = self.reduction.restore_outputs(f, z)
        return y.to(x.dtype) if x.is_floating_point() else y

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchSurrogate:
        exact = self.constants.detach().clone()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        moved = self.constants
        if moved.dtype != exact.dtype and moved.device.type != "mps":  # MPS has no float64
            moved.data = exact.to(moved.device)
            moved.grad = None if moved.grad is None else moved.grad.double()
        return self

    def extra_repr(self) -> str:
        return "\n".join(str(expression) for expression in self.expressions())
