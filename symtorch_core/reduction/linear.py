"""Reductions made of linear maps: built from moments, and restored from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from symtorch_core.errors import FileFormatError, SearchError
from symtorch_core.reduction.moments import (
    Moments,
    compute_principal_axes,
    compute_spectrum,
    compute_square_roots,
)
from symtorch_core.reduction.reducer import MomentReducer, Reduction, read_variable_names

Size = int | str | None
"""How many dimensions to keep: a number, a share of the variance like ``"95%"``, or None to keep all unchanged."""


def build_linear_reduction(
    moments: Moments,
    variable_names: Sequence[str],
    dtype: torch.dtype,
    *,
    down: Tensor | None = None,
    up: Tensor | None = None,
    k_out: Size = None,
    linear: bool = False,
    ridge: float = 0.0,
    metric: Tensor | None = None,
    kept_in: float | None = None,
    kept_of: str = "the variance",
) -> Reduction:
    """Build a reduction from its input directions, with a linear part and the output directions of the remainder.

    Args:
        moments: moments of inputs and outputs.
        variable_names: d_in names of the inputs, used if all are kept; otherwise z0, z1, ...
        dtype: type of the maps.
        down: input directions, shape (k_in, d_in): z = down @ (x - mean). None keeps the inputs.
        up: output directions, shape (d_out, k_out); None takes the directions of largest variance (in the metric).
        k_out: number of output directions; None keeps the outputs.
        linear: fit y = b + W z by least squares first.
        ridge: ridge of that fit, as a share of the mean variance of z.
        metric: cost of errors of the outputs, shape (d_out, d_out), positive definite; None for the identity.
        kept_in: share that ``down`` keeps of the quantity it was chosen by, for reports; None if unknown.
        kept_of: name of that quantity.

    Raises:
        SearchError: ``k_out`` does not fit the data.
    """
    seen = moments if down is None else moments.seen_through(down)
    W = seen.linear_map(ridge) if linear else None
    rest = moments.yy if W is None else seen.rest(W)
    offset = moments.y if W is None else torch.zeros_like(moments.y)
    root, inverse = (None, None) if metric is None else compute_square_roots(metric)
    costs = rest if root is None else root @ rest @ root
    size = resolve_size("k_out", k_out, compute_spectrum(costs)) if up is None else up.shape[1]
    if up is None and size is not None:
        axes = compute_principal_axes(costs, size)
        up = axes if inverse is None else inverse @ axes
    project = None if up is None else _invert_up(up, metric)
    kept = {"out": _compute_share_kept(costs, root, up)}
    if kept_in is not None:
        kept["in"] = kept_in
    if W is not None:
        kept["linear"] = 1 - float(rest.trace() / moments.yy.trace().clamp_min(1e-300))
    k_in = None if down is None else len(down)
    reduction = restore_linear_reduction(
        {
            "variable_names": list(variable_names) if k_in is None else [f"z{i}" for i in range(k_in)],
            "d_in": len(moments.x),
            "d_out": len(moments.y),
            "k_in": k_in,
            "k_out": size,
            "linear": linear,
            "kept": kept,
            "kept_of": kept_of,
        }
    ).to(moments.x.device, dtype)
    if down is not None:
        _set_linear(reduction.down, down, -down @ moments.x)
    if up is not None and project is not None:
        _set_linear(reduction.up, up, offset)
        _set_linear(reduction.project, project, -project @ offset)
    if W is not None:
        _set_linear(reduction.linear, W, moments.y - (W @ moments.x if down is None else 0.0))
    return reduction


def _invert_up(up: Tensor, metric: Tensor | None) -> Tensor:
    """Return the map to coordinates in ``up`` that leaves out the least cost, shape (k_out, d_out)."""
    weighed = up if metric is None else metric @ up
    project: Tensor = torch.linalg.pinv(up.T @ weighed) @ weighed.T
    return project


def _compute_share_kept(costs: Tensor, root: Tensor | None, up: Tensor | None) -> float:
    """Return the share of the total cost that lies in the output directions."""
    total = float(costs.trace())
    if up is None or total <= 0:
        return 1.0
    basis = torch.linalg.qr(up if root is None else root @ up).Q
    return min(1.0, float((basis.T @ costs @ basis).trace()) / total)


def restore_linear_reduction(shape: Mapping[str, Any]) -> Reduction:
    """Build a linear reduction of this shape, without its numbers, which are loaded afterwards.

    Raises:
        FileFormatError: the shape, which comes from a file, does not describe a linear reduction.
    """
    names = read_variable_names(shape)
    d_in, d_out, k_in, k_out = (shape.get(key) for key in ("d_in", "d_out", "k_in", "k_out"))
    sizes = [d_in, d_out, *(k for k in (k_in, k_out) if k is not None)]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise FileFormatError("the saved reduction has no valid dimensions")
    if len(names) != (d_in if k_in is None else k_in):
        raise FileFormatError("the saved reduction does not have one name for each variable")
    linear, kept = shape.get("linear", False), shape.get("kept", {})
    shares = kept.values() if isinstance(kept, Mapping) else [None]
    if not isinstance(linear, bool) or not all(isinstance(share, float) for share in shares):
        raise FileFormatError("the saved reduction has invalid shares of what it keeps")
    return Reduction(
        down=_make_linear(d_in, k_in),
        up=_make_linear(k_out, d_out),
        project=_make_linear(d_out, k_out),
        variable_names=names,
        linear=_make_linear(len(names), d_out) if linear else None,
        shape=shape,
    )


def _make_linear(d_in: int | None, d_out: int | None) -> nn.Module:
    """Build a linear map without numbers, on the default device: nothing is drawn from torch's random state."""
    if d_in is None or d_out is None:
        return nn.Identity()
    made: nn.Module = nn.utils.skip_init(nn.Linear, d_in, d_out, device=torch.get_default_device())
    return made


def resolve_size(option: str, size: Size, variances: Tensor, at_most: int | None = None) -> int | None:
    """Return a size as a number of dimensions; None for all.

    Args:
        option: name of the option, for messages.
        size: value of the option.
        variances: variances of all directions, largest first, shape (d,).
        at_most: largest number allowed; the number of directions by default.

    >>> resolve_size("k_in", "90%", torch.tensor([8.0, 1.5, 0.5]))
    2

    Raises:
        SearchError: the size is invalid.
    """
    most = len(variances) if at_most is None else at_most
    if size is None:
        return None
    if isinstance(size, str):
        share = _parse_share(option, size)
        total = variances.sum()
        if total <= 0:
            return 1
        reached = variances.cumsum(0) / total >= share - 1e-12
        return min(most, int(reached.double().argmax()) + 1)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most:
        raise SearchError(
            f"{option}={size!r}: give a number from 1 to {most}, or a share of the variance like '95%'"
        )
    return size


def check_size(option: str, size: Size) -> None:
    """Refuse what is no size, whatever the data; :func:`resolve_size` knows the range.

    Raises:
        SearchError: it is not a positive whole number, a share like ``"95%"``, or None.
    """
    if isinstance(size, str):
        _parse_share(option, size)
    elif size is not None and (type(size) is not int or size < 1):
        raise SearchError(
            f"{option}={size!r}: give a whole number of at least 1, or a share of the variance like '95%'"
        )


def _parse_share(option: str, size: str) -> float:
    text = size.strip()
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not text.endswith("%") or not 0 < share <= 1:
        raise SearchError(f"{option}={size!r}: a share of the variance is written like '95%'")
    return share


def compute_kept_share(variances: Tensor, k: int | None) -> float:
    """Return the share of the variance in the k leading directions; ``variances`` has shape (d,)."""
    total = float(variances.sum())
    return 1.0 if k is None or total <= 0 else min(1.0, float(variances[:k].sum()) / total)


def _set_linear(module: nn.Module | None, weight: Tensor, bias: Tensor) -> None:
    assert isinstance(module, nn.Linear)
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)


@final
@dataclass(frozen=True)
class IdentityReducer(MomentReducer):
    """Reducer that keeps every input and every output unchanged.

    Attributes:
        linear: fit y = b + W x first, and leave the remainder to the equations.
        ridge: ridge of the linear part, as a share of the inputs' mean variance.
    """

    name: ClassVar[str] = "identity"
    linear: bool = False
    ridge: float = 1e-9

    def __post_init__(self) -> None:
        self.flags("linear")
        self.at_least(0, "ridge")

    def from_moments(self, moments: Moments, variable_names: Sequence[str], dtype: torch.dtype) -> Reduction:
        return build_linear_reduction(moments, variable_names, dtype, linear=self.linear, ridge=self.ridge)

    @classmethod
    def restore(cls, shape: Mapping[str, Any]) -> Reduction:
        names = read_variable_names(shape)  # all that is needed, where there is no linear part
        sizes = {"d_in": shape.get("d_in", len(names)), "d_out": shape.get("d_out", 1)}
        return restore_linear_reduction({**shape, **sizes})
