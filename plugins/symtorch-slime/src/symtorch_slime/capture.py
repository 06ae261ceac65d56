"""The capture ``slime``: a block's inputs and outputs around one point of the model's input space."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
import torch

from symtorch_core import (
    DEFAULT_MAX_ROWS,
    Activations,
    Capture,
    CaptureError,
    HookCapture,
    Selector,
    as_real_tensor,
    did_you_mean,
    restore_form,
)
from symtorch_core.events import Callback
from symtorch_slime.neighbours import Array, Metric, Neighbourhood, check_point, neighbourhood

_BATCH = 1024


@final
@dataclass(frozen=True, eq=False)
class SlimeCapture(Capture):
    """Weighted activations around a point (SymTorch paper, 3.2); see :func:`symtorch_slime.neighbourhood`.

    The data are rows of the model's input space, as one data frame, or one tensor or array of any shape after the first
    dimension; the model gets rows of the same kind. The point is also in the model's input space, even where the block
    is hidden. Every row that the block gets for an input row has that row's weight.

    Attributes:
        x_star: the point, of the shape of one row; a row of a data frame is read by its names.
        neighbours, samples, neighbour_weight, variance, sigma, bandwidth, metric, categorical, data_weights: of the
            neighbourhood; columns that are categorical may be given by their names in a data frame.
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
    categorical: Sequence[int | str] = ()
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
            _read_point(self.x_star, data),
            neighbours=self.neighbours,
            samples=self.samples,
            neighbour_weight=self.neighbour_weight,
            variance=self.variance,
            sigma=self.sigma,
            bandwidth=self.bandwidth,
            metric=self.metric,
            categorical=_find_columns(self.categorical, data),
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
        flat = _read_point(self.x_star, data)
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


def _flatten(data: Any) -> Array:
    array = _to_numbers(data, "the data around x_star")
    if array.ndim < 2:
        raise CaptureError("give the data around x_star as rows, shape (n, d)")
    return array.reshape(len(array), -1)


def _to_numbers(values: Any, what: str) -> Array:
    return np.asarray(as_real_tensor(values, what), dtype=np.float64)


def _is_frame(data: Any) -> bool:
    pandas = sys.modules.get("pandas")  # whoever has a data frame has imported it
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _read_point(point: Any, data: Any) -> Array:
    """Return the numbers of a point, shape (d,); if point and data have named columns, in the order of the data."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(point, (pandas.DataFrame, pandas.Series)):
        return _to_numbers(point, "x_star").ravel()
    try:
        named = point[list(data.columns)] if _is_frame(data) else point
        return np.asarray(named).astype(np.float64).ravel()  # a row of a frame may hold objects
    except KeyError as error:
        raise CaptureError(f"x_star is no row of the data: {error.args[0]}") from None
    except (TypeError, ValueError) as error:
        raise CaptureError(f"x_star must be numbers: {error}") from None


def _find_columns(columns: Sequence[int | str], data: Any) -> list[int]:
    """Return the numbers of columns that may be given by their names in a data frame."""
    names = data.columns.tolist() if _is_frame(data) else []
    for column in columns:
        if isinstance(column, str) and column not in names:
            raise CaptureError(
                f"categorical names {column!r}, which is no column of the data.{did_you_mean(column, map(str, names))}"
            )
    return [names.index(column) if isinstance(column, str) else column for column in columns]
