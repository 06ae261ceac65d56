"""The reducer ``projection``: directions that matter to the block, not those in which its inputs vary most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from symtorch_core import Reducer, Reduction, SearchError
from symtorch_core.reduction import (
    BlockFunction,
    Moments,
    Size,
    build_linear_reduction,
    check_size,
    compute_kept_share,
    compute_principal_axes,
    compute_spectrum,
    compute_square_roots,
    resolve_size,
    restore_linear_reduction,
)
from symtorch_projection.directions import (
    find_active_directions,
    find_predictable_directions,
    find_predictive_directions,
    orthonormalize,
    scale_to_unit_variance,
)
from symtorch_projection.training import train_maps

"""A lower learning rate would change nothing in single precision."""

Method = Literal["rrr", "active", "trained"]


@final
@dataclass(frozen=True)
class ProjectionReducer(Reducer):
    """Reduces y(x) to y = b + W z + U f(z), z = D (x - mean), with D chosen for what it tells about y.

    Methods:
        ``"rrr"``: reduced-rank regression, the directions that predict the outputs linearly; closed form.
        ``"active"``: the active subspace, the directions along which the block changes; needs a block that treats rows
            one by one and can be differentiated.
        ``"trained"``: D and U are trained together with a small network in the place of f, which is then discarded.

    Columns of z have unit variance. The linear part W is fitted first, by least squares. U then spans the costliest
    directions of the residual (for ``"trained"``, the learned directions; for ``"rrr"`` without a linear part, the
    predictable ones).

    Attributes:
        method: the way to choose D.
        k_in: number of columns of z, or a share like ``"95%"`` of what all directions explain together (not for
            ``"trained"``).
        k_out: number of columns of U, or a share of the variance; None keeps the outputs.
        linear: whether there is a linear part.
        ridge: ridge of linear fits, as a share of the mean variance of their inputs.
        metric: the cost of errors of the outputs: d_out non-negative numbers, or a symmetric (d_out, d_out) matrix,
            for instance a Fisher information; None weighs all outputs alike.
        rows: rows on which the block is differentiated (``"active"``).
        probes: the most gradients for each row; with more outputs, random combinations of them are differentiated.
        hidden: units of each of the two hidden layers of the network (``"trained"``).
        epochs: passes over the rows (``"trained"``); the epoch with the lowest loss on a held-out tenth is kept.
        learning_rate: the highest of a one-cycle schedule (``"trained"``).

    >>> X = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    >>> Y = torch.sin(X[:, :1] + X[:, 1:2])
    >>> reduction = ProjectionReducer(k_in=1).fit(X, Y, variable_names=["a", "b", "c", "d", "e", "f"])
    >>> reduction.summary()
    "1 of 6 inputs (100.0% of what they explain), a linear part (54.6% of the outputs' variance)"
    """

    name: ClassVar[str] = "projection"

    method: Method = "rrr"
    k_in: Size = None
    k_out: Size = None
    linear: bool = True
    ridge: float = 1e-6
    metric: Any = field(default=None, compare=False)
    rows: int = 2048
    probes: int = 128
    hidden: int = 128
    epochs: int = 20
    learning_rate: float = 4e-3

    def __post_init__(self) -> None:
        self.one_of(get_args(Method), "method")
        self.at_least(1, "rows", "probes", "hidden", "epochs")
        self.at_least(0, "ridge")
        self.more_than(0, "learning_rate")
        self.flags("linear")
        if self.method == "trained" and not isinstance(self.k_in, int):
            raise SearchError(
                "method='trained' needs k_in as a number: the share that it explains is known only afterwards"
            )
        for option in ("k_in", "k_out"):
            check_size(option, getattr(self, option))
        if self.metric is not None:
            _read_metric(self.metric)

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
        moments = Moments.of(X, Y, weights)
        metric = _build_metric(self.metric, moments.y)
        down: Tensor | None
        up: Tensor | None = None
        if self.method == "active":
            directions, values = find_active_directions(
                _require_block(block), _sample_rows(X, self.rows, seed), moments, metric, self.probes, seed
            )
        else:
            directions, values = find_predictive_directions(moments, self.ridge, metric)
        if self.method == "trained":
            down, up = self._train(X, Y, weights, moments, metric, directions, seed)
            kept: float | None = None  # unknown
        else:
            k_in = resolve_size("k_in", self.k_in, values)
            down, kept = None if k_in is None else directions[:k_in], compute_kept_share(values, k_in)
        if self.method == "rrr" and not self.linear and self.k_out is not None:
            up = find_predictable_directions(moments, self.k_out, self.ridge, metric)
        return build_linear_reduction(
            moments,
            variable_names,
            X.dtype,
            down=down,
            up=up,
            k_out=self.k_out,
            linear=self.linear,
            ridge=self.ridge,
            metric=metric,
            kept_in=kept,
            kept_of="what they explain",
        )

    @classmethod
    def restore(cls, shape: Mapping[str, Any]) -> Reduction:
        return restore_linear_reduction(shape)

    def _train(
        self,
        X: Tensor,
        Y: Tensor,
        weights: Tensor | None,
        moments: Moments,
        metric: Tensor | None,
        directions: Tensor,
        seed: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Return trained input and output directions, starting from the closed forms."""
        k_in = resolve_size("k_in", self.k_in, moments.x)
        assert k_in is not None
        spread = moments.xx.diagonal().sqrt()
        spread = torch.where(spread > 0, spread, 1.0)
        height = (moments.yy.trace() / len(moments.y)).sqrt()
        height = torch.where(height > 0, height, 1.0)
        start = torch.cat(
            [
                directions,
                scale_to_unit_variance(compute_principal_axes(moments.xx, len(moments.x)).T, moments.xx),
            ]
        )[:k_in]
        down, up = train_maps(
            ((X.double() - moments.x) / spread).float(),
            ((Y.double() - moments.y) / height).float(),
            down=(start * spread).float(),
            up=self._choose_first_up(moments, metric),
            linear=self.linear,
            weights=weights,
            metric=None if metric is None else metric.float(),
            hidden=self.hidden,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            seed=seed,
        )
        learned = down.double() / spread
        uncorrelated = compute_square_roots(learned @ moments.xx @ learned.T)[1] @ learned
        return scale_to_unit_variance(uncorrelated, moments.xx), None if up is None else orthonormalize(
            up.double(), metric
        )

    def _choose_first_up(self, moments: Moments, metric: Tensor | None) -> Tensor | None:
        if self.k_out is None:
            return None
        root, inverse = (None, None) if metric is None else compute_square_roots(metric)
        costs = moments.yy if root is None else root @ moments.yy @ root
        k_out = resolve_size("k_out", self.k_out, compute_spectrum(costs))
        assert k_out is not None
        axes = compute_principal_axes(costs, k_out)
        return (axes if inverse is None else inverse @ axes).float()


def _require_block(block: BlockFunction | None) -> BlockFunction:
    if block is None:
        raise SearchError(
            "method='active' needs the block itself: distill a module or function that treats rows one by one, "
            "with all its outputs and without transforms; or use method='rrr' or 'trained'"
        )
    return block


def _read_metric(given: Any) -> Tensor:
    """Return a metric as a symmetric matrix, shape (d, d), of float64.

    Raises:
        SearchError: it is not one.
    """
    try:
        metric = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise SearchError(
            f"the metric must be d_out numbers or a matrix of numbers, not a {type(given).__name__}"
        ) from None
    if metric.ndim == 1:
        metric = torch.diag(metric)
    if not bool(torch.isfinite(metric).all()):
        raise SearchError("the metric must be finite")
    if metric.ndim != 2 or len(metric) != metric.shape[1] or not torch.allclose(metric, metric.T, atol=0.0):
        raise SearchError(
            f"the metric must be d_out numbers or a symmetric d_out x d_out matrix, got shape {tuple(metric.shape)}"
        )
    costs = torch.linalg.eigvalsh(metric)
    if float(costs[0]) < -1e-9 * float(costs.abs().max()):
        raise SearchError("the metric must be non-negative: no error may have a negative cost")
    return metric


def _build_metric(given: Any, outputs: Tensor) -> Tensor | None:
    """Return the metric beside the outputs' moments, shape (d_out, d_out), positive definite; None where none is given.

    Raises:
        SearchError: it is for another number of outputs.
    """
    if given is None:
        return None
    metric, d = _read_metric(given).to(outputs.device), len(outputs)
    if len(metric) != d:
        raise SearchError(f"the metric needs {d} numbers, or a symmetric {d} x {d} matrix")
    # Outputs that cost nothing still have a direction: a trace of cost keeps the maps well defined.
    return metric + torch.eye(d, dtype=torch.float64, device=outputs.device) * 1e-9 * metric.diagonal().mean()


def _sample_rows(X: Tensor, most: int, seed: int) -> Tensor:
    """Return a seeded sample of at most ``most`` rows, in their order."""
    if len(X) <= most:
        return X
    chosen = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:most]
    return X[chosen.sort().values.to(X.device)]
