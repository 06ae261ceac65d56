"""The capture ``slime``: a block's inputs and outputs around one point of the model's input space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import DEFAULT_MAX_ROWS, Activations, Capture, CaptureError, HookCapture, Selector
from symtorch_core.events import Callback
from symtorch_slime.neighbours import Array, Metric, Neighbourhood, check_point, neighbourhood

_BATCH = 1024


@final
@dataclass(frozen=True, eq=False)
class SlimeCapture(Capture):
    """Weighted activations around a point (SymTorch paper, 3.2); see :func:`symtorch_slime.neighbourhood`.

    The data are rows of the model's input space, as one tensor or array of any shape after the first dimension; the
    model gets rows of the same kind. The point is also in the model's input space, even where the block is hidden.
    Every row that the block gets for an input row has that row's weight.

    Attributes:
        x_star: the point, of the shape of one row.
        neighbours, samples, neighbour_weight, variance, sigma, bandwidth, metric, categorical, data_weights: of the
            neighbourhood.
        select_input, select_output: which tensors are the block's inputs and output, as for ``"hooks"``.

    >>> X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    >>> near = SlimeCapture(x_star=[0.5, -1.0], samples=500).collect(torch.sin, X)
    >>> near.inputs.shape, near.weights.shape
    (torch.Size([550, 2]), torch.Size([550]))
    """

    name: ClassVar[str] = "slime"
    x_star: Any = None
    neighbours: int = 50
    samples: int = 1000
    neighbour_weight: float = 1.0
    variance: float | Sequence[float] | None = None
    sigma: float | None = None
    bandwidth: float = 1.0
    metric: Metric = "euclidean"
    categorical: Sequence[int] = ()
    data_weights: Any = None
    select_input: Selector = None
    select_output: Selector = None

    def __post_init__(self) -> None:
        if self.x_star is None:
            raise CaptureError("slime explains a point: give x_star=, one row of the model's input space")

    def rows(self, data: Any, seed: int) -> Neighbourhood:
        """Return the neighbourhood in the model's input space, each row flat.

        Raises:
            CaptureError: the data, the point or a setting is invalid.
        """
        X = _flatten(data)
        weights = (
            None if self.data_weights is None else _to_numbers(self.data_weights, "data_weights").ravel()
        )
        if weights is not None and (
            weights.shape != (len(X),) or not np.isfinite(weights).all() or (weights < 0).any()
        ):
            raise CaptureError(
                f"data_weights must be {len(X)} finite numbers, not negative: one for each row"
            )
        return neighbourhood(
            X,
            _to_numbers(self.x_star, "x_star").ravel(),
            neighbours=self.neighbours,
            samples=self.samples,
            neighbour_weight=self.neighbour_weight,
            variance=self.variance,
            sigma=self.sigma,
            bandwidth=self.bandwidth,
            metric=self.metric,
            categorical=self.categorical,
            data_weights=weights,
            seed=seed,
        )

    def collect(
        self,
        block: Callable[..., Any],
        data: Any,
        *,
        parent: Callable[..., Any] | None = None,
        max_rows: int = DEFAULT_MAX_ROWS,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> Activations:
        near = self.rows(data, seed)
        fed = restore_form(near.rows, data)
        hooks = HookCapture(self.select_input, self.select_output, row_mask=None, batch_size=_BATCH)
        most = np.iinfo(np.int64).max  # all rows, so that they stay aligned with their weights
        found = hooks.collect(block, fed, parent=parent, max_rows=int(most), seed=seed, callbacks=callbacks)
        each, rest = divmod(len(found), len(near.rows))
        if rest or found.source.calls != math.ceil(len(fed) / _BATCH):
            raise CaptureError(
                f"{found.source.block} ran {found.source.calls} times on {len(near.rows)} input rows and saw "
                f"{len(found)} rows: only a block that runs once on every input row can be explained near one of them"
            )
        weights = torch.from_numpy(near.weights).repeat_interleave(each)
        # Half precision would round small weights to nothing.
        found = replace(found, weights=weights.to(torch.promote_types(found.inputs.dtype, torch.float32)))
        if len(found) > max_rows:
            chosen = np.random.default_rng(seed).choice(len(found), max_rows, replace=False)
            found = found.rows(torch.from_numpy(np.sort(chosen)))
        return found

    def collect_at_point(
        self, block: Callable[..., Any], data: Any, parent: Callable[..., Any] | None
    ) -> Activations:
        """Return the block's input and output at the point itself.

        Raises:
            CaptureError: the block gets several rows there.
        """
        flat = _to_numbers(self.x_star, "x_star").ravel()
        check_point(flat, _flatten(data).shape[1])
        point = restore_form(flat[None], data)
        hooks = HookCapture(self.select_input, self.select_output, row_mask=None)
        found = hooks.collect(block, point, parent=parent)
        if len(found) != 1:
            raise CaptureError(
                f"{found.source.block} sees {len(found)} rows for one input row: an explanation needs a block that "
                "sees one"
            )
        return found


def restore_form(rows: Array, data: Any) -> Any:
    """Return flat rows in the form of the data: a tensor or array of the same type and row shape."""
    if isinstance(data, Tensor):
        dtype = data.dtype if data.is_floating_point() else torch.get_default_dtype()
        return torch.from_numpy(rows).to(data.device, dtype).reshape(-1, *data.shape[1:])
    array = np.asarray(data)
    kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    return rows.astype(kind).reshape(-1, *array.shape[1:])


def _flatten(data: Any) -> Array:
    array = _to_numbers(data, "the data around x_star")
    if array.ndim < 2:
        raise CaptureError("give the data around x_star as rows, shape (n, d)")
    return array.reshape(len(array), -1)


def _to_numbers(values: Any, what: str) -> Array:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        if values.is_floating_point():  # numpy has no bfloat16
            values = values.double()
    try:
        return np.asarray(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise CaptureError(
            f"{what} must be one array of numbers ({error}); encode categories as numbers"
        ) from None
