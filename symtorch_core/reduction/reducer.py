"""Reducers: maps that make a wide block narrow enough for a search, and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core.components.options import Configurable
from symtorch_core.errors import FileFormatError
from symtorch_core.reduction.moments import Moments

_HALF = (torch.float16, torch.bfloat16)


@final
class Reduction(nn.Module):
    """The maps that a reducer learned: y = linear(z) + up(f(z)), z = down(x), where f is left to the search.

    The maps become part of the surrogate: they move, save and compile with it. Their parameters are frozen.

    Args:
        down: maps (..., d_in) to (..., k_in).
        up: maps (..., k_out) to (..., d_out).
        project: maps targets (..., d_out) to (..., k_out), so that up(project(y)) is the best approximation of y
            that the maps allow.
        variable_names: k_in names for the columns of z.
        linear: maps z (..., k_in) to (..., d_out), the part that f need not explain; None for no linear part.
        shape: JSON data from which the reducer's ``restore`` rebuilds modules of the same shapes.
    """

    def __init__(
        self,
        *,
        down: nn.Module,
        up: nn.Module,
        project: nn.Module,
        variable_names: Sequence[str],
        linear: nn.Module | None = None,
        shape: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.project = project
        self.linear = linear
        self.variable_names = tuple(variable_names)
        self.shape = dict(shape)
        self.requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Reduction:
        """Cast and move, but never to half precision: surrogates compute these maps in single precision."""

        def to_full(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in _HALF else moved

        super()._apply(to_full, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load numbers in the precision they were saved in, whatever the present precision."""
        mine = (value.dtype for key, value in state_dict.items() if key.startswith(prefix))
        saved = {dtype for dtype in mine if dtype.is_floating_point} - set(_HALF)
        if len(saved) == 1:
            self.to(*saved)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def summary(self) -> str:
        """Return a description of what is kept; empty if everything is."""
        kept = self.shape.get("kept", {})
        parts = []
        for side in ("in", "out"):
            k = self.shape.get(f"k_{side}")
            if k is not None:
                share = kept.get(side)
                of = "" if share is None else f" ({share:.1%} of {self._kept_of(side)})"
                parts.append(f"{k} of {self.shape.get(f'd_{side}')} {side}puts{of}")
        if self.linear is not None:
            share = kept.get("linear")
            parts.append(
                "a linear part" + ("" if share is None else f" ({share:.1%} of the outputs' variance)")
            )
        return ", ".join(parts)

    def _kept_of(self, side: str) -> str:
        return str(self.shape.get("kept_of", "the variance")) if side == "in" else "the variance"

    @property
    def keeps_outputs(self) -> bool:
        """Whether equation i is output i unchanged, so that each works without the others."""
        return isinstance(self.up, nn.Identity) and self.linear is None

    def reduce_inputs(self, X: Tensor) -> Tensor:
        """Return z for inputs: (..., d_in) to (..., k_in)."""
        reduced: Tensor = self.down(X)
        return reduced

    def reduce_targets(self, Y: Tensor, Z: Tensor) -> Tensor:
        """Return the targets of f(z): (..., d_out) to (..., k_out), without the linear part."""
        rest = Y if self.linear is None else Y - self.linear(Z)
        targets: Tensor = self.project(rest)
        return targets

    def restore_outputs(self, F: Tensor, Z: Tensor) -> Tensor:
        """Return the block's outputs from f(z): (..., k_out) to (..., d_out)."""
        outputs: Tensor = self.up(F)
        return outputs if self.linear is None else outputs + self.linear(Z)


def are_equal(one: Reduction, other: Reduction) -> bool:
    """Return whether two reductions have the same variables and the same numbers."""
    ours, theirs = one.state_dict(), other.state_dict()
    same_form = one.variable_names == other.variable_names and ours.keys() == theirs.keys()
    return same_form and all(torch.equal(value, theirs[key].to(value)) for key, value in ours.items())


class Reducer(Configurable):
    """Method that learns a :class:`Reduction` from activations; an instance holds the options of its reducer."""

    @abstractmethod
    def fit(
        self,
        X: Tensor,
        Y: Tensor,
        *,
        variable_names: Sequence[str],
        weights: Tensor | None = None,
        block: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> Reduction:
        """Learn the maps from inputs and outputs.

        Args:
            X: inputs, shape (n, d_in).
            Y: outputs, shape (n, d_out).
            variable_names: d_in names for the columns of X.
            weights: shape (n,), non-negative; None weighs all rows equally.
            block: the function from rows of X to rows of Y, for reducers that use its Jacobian; None if
                unknown.
            seed: same seed, same maps.

        Raises:
            SearchError: the options do not fit the data; the message says what would.
        """

    @classmethod
    @abstractmethod
    def restore(cls, shape: Mapping[str, Any]) -> Reduction:
        """Build a reduction of the same shapes; its numbers are loaded from a state_dict afterwards.

        Args:
            shape: content of :attr:`Reduction.shape`; it comes from a file, so it is checked and never trusted.

        Raises:
            FileFormatError: the shape does not describe a reduction of this kind.
        """


def read_variable_names(shape: Mapping[str, Any]) -> list[str]:
    """Return the variable names in a reduction's saved shape.

    Raises:
            FileFormatError: they are missing or not a list of strings.
    """
    names = shape.get("variable_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FileFormatError("the saved reduction has no list of variable names")
    return names


class MomentReducer(Reducer):
    """Reducer that needs only means and covariances, so that rows can come batch by batch."""

    @abstractmethod
    def from_moments(self, moments: Moments, variable_names: Sequence[str], dtype: torch.dtype) -> Reduction:
        """Learn the maps from moments.

        Args:
            moments: moments of inputs and outputs.
            variable_names: d_in names of the inputs.
            dtype: type of the maps.

        Raises:
            SearchError: the options do not fit the data.
        """

    @final
    def fit(
        self,
        X: Tensor,
        Y: Tensor,
        *,
        variable_names: Sequence[str],
        weights: Tensor | None = None,
        block: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> Reduction:
        return self.from_moments(Moments.of(X, Y, weights), variable_names, X.dtype)

    @final
    def fit_batches(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        variable_names: Sequence[str],
        dtype: torch.dtype = torch.float32,
    ) -> Reduction:
        """Learn the maps from a stream of batches (X, Y), none of which is kept.

        Raises:
            SearchError: there are no rows, or the options do not fit the data.
        """
        return self.from_moments(
            Moments.from_batches((X, Y, None) for X, Y in batches), variable_names, dtype
        )
