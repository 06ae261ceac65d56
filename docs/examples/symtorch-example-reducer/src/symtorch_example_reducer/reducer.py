"""A reducer that keeps the input columns of largest variance, and every output as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from symtorch_core import FileFormatError, Reducer, Reduction, SearchError
from symtorch_core.reduction import read_variable_names


@final
class KeepColumns(nn.Module):
    """Picks columns of the last dimension.

    >>> keep = KeepColumns(2)
    >>> keep.columns.copy_(torch.tensor([0, 2]))
    tensor([0, 2])
    >>> keep(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 3.]])
    """

    columns: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        # A buffer, so that the choice moves to the model's device and is saved in its state_dict.
        self.register_buffer("columns", torch.zeros(k, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Return the chosen columns of x, shape (..., k)."""
        return x.index_select(-1, self.columns)


@final
@dataclass(frozen=True)
class VarianceReducer(Reducer):
    """Keeps the ``k`` input columns of largest variance, in their order.

    The fields of the dataclass are the options that a user may set.

    Attributes:
        k: number of columns.

    >>> X = torch.tensor([[0.0, 5.0, 1.0], [9.0, 5.0, 3.0], [4.0, 5.0, 2.0]])
    >>> reduction = VarianceReducer(k=2).fit(X, X[:, :1], variable_names=["a", "b", "c"])
    >>> reduction.variable_names
    ('a', 'c')
    """

    name: ClassVar[str] = "variance"

    k: int = 3

    def __post_init__(self) -> None:
        # Checks that need no data belong here, so that a wrong option is refused before any work.
        self.at_least(1, "k")

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
        width = X.shape[-1]
        if self.k > width:
            raise SearchError(f"k is {self.k}, but the block has {width} inputs; set k between 1 and {width}")
        spread = _compute_variances(X.double(), weights)
        # Stable: of equal columns the first are kept, on any machine.
        columns = spread.argsort(descending=True, stable=True)[: self.k].sort().values
        reduction = self.restore({"variable_names": [variable_names[column] for column in columns.tolist()]})
        reduction.down.load_state_dict({"columns": columns})
        return reduction

    @classmethod
    def restore(cls, shape: Mapping[str, Any]) -> Reduction:
        """Return modules of the right shapes; the chosen columns are loaded with the state_dict."""
        names = read_variable_names(shape)
        if not names:
            raise FileFormatError(
                "the saved reduction keeps no column, but a variance reduction must keep at least one"
            )
        return Reduction(
            down=KeepColumns(len(names)),
            up=nn.Identity(),
            project=nn.Identity(),
            variable_names=names,
            shape=shape,
        )


def _compute_variances(X: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weighted variance of each column of X, shape (d,)."""
    share = torch.ones(len(X), dtype=X.dtype, device=X.device) if weights is None else weights.to(X)
    share = share / share.sum()
    mean = share @ X
    return share @ (X - mean).square()
