"""The reducer ``projection``: maps chosen for what the block does with its inputs, not for their variance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from symtorch_core import Moments, Reducer, Reduction, SearchError
from symtorch_core.reduction import (
    Size,
    build_linear_reduction,
    compute_kept_share,
    compute_principal_axes,
    compute_spectrum,
    compute_square_roots,
    resolve_size,
    restore_linear_reduction,
)
from symtorch_projection.directions import (
    active_directions,
    orthonormal,
    predictable_directions,
    predictive_directions,
    scaled,
)
from symtorch_projection.training import trained_maps

Method = Literal["rrr", "active", "trained"]


@final
@dataclass(frozen=True)
class ProjectionReducer(Reducer):
    """y = b + W z + U f(z), z = D (x - mean), with D chosen for what it tells about y.

    Methods:
        ``"rrr"``: reduced-rank regression, the directions that predict the outputs linearly; closed form.
        ``"active"``: the active subspace, the directions along which the block changes; needs a block that treats rows
            one by one and can be differentiated.
        ``"trained"``: D and U trained together with a small network in the place of f, which is then thrown away.

    Columns of z have unit variance. The linear part W is fitted by least squares before anything else; U spans what
    costs most of the rest (for ``"trained"``, what was learned; for ``"rrr"`` without a linear part, what is
    predictable).

    Attributes:
        method: how D is chosen.
        k_in: columns of z: a number, or a share like ``"95%"`` of what all directions together explain (not for
            ``"trained"``).
        k_out: columns of U: a number, or a share of the variance; None keeps the outputs.
        linear: whether there is a linear part.
        ridge: for linear fits, as a share of the mean variance of what they are fitted on.
        metric: what errors of the outputs cost: d_out non-negative numbers, or a symmetric (d_out, d_out) matrix, a
            Fisher information for instance; None for all alike.
        rows: rows on which the block is differentiated (``"active"``).
        probes: with more outputs than this, so many random combinations of them are differentiated for each row.
        hidden: units of each of the two hidden layers of the network (``"trained"``).
        epochs: passes over the rows at most; the best one on a tenth of the rows, held out, counts.
        learning_rate: the largest of a one-cycle schedule.

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
        if self.method not in get_args(Method):
            raise SearchError(f"method={self.method!r}: there are {', '.join(get_args(Method))}")
        if self.method == "trained" and not isinstance(self.k_in, int):
            raise SearchError(
                "method='trained' needs k_in as a number: what it explains is known only afterwards"
            )
        if min(self.rows, self.probes, self.hidden, self.epochs) < 1 or self.learning_rate <= 0:
            raise SearchError("rows, probes, hidden, epochs and learning_rate must be positive")

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
        metric = _metric(self.metric, moments.y)
        down: Tensor | None
        up: Tensor | None = None
        if self.method == "active":
            directions, values = active_directions(
                self._block(block), _some(X, self.rows, seed), moments, metric, self.probes, seed
            )
        else:
            directions, values = predictive_directions(moments, self.ridge, metric)
        if self.method == "trained":
            down, up = self._trained(X, Y, weights, moments, metric, directions, seed)
            kept: float | None = None  # nobody knows
        else:
            k_in = resolve_size("k_in", self.k_in, values)
            down, kept = None if k_in is None else directions[:k_in], compute_kept_share(values, k_in)
        if self.method == "rrr" and not self.linear and self.k_out is not None:
            up = predictable_directions(moments, self.k_out, self.ridge, metric)
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

    def _block(self, block: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
        if block is None:
            raise SearchError(
                "method='active' needs the block itself: distill a module or function that treats rows one by one, "
                "with all its outputs and without transforms; or use method='rrr' or 'trained'"
            )
        return block

    def _trained(
        self,
        X: Tensor,
        Y: Tensor,
        weights: Tensor | None,
        moments: Moments,
        metric: Tensor | None,
        directions: Tensor,
        seed: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Trained input and output directions, from where the closed forms leave off."""
        k_in = resolve_size("k_in", self.k_in, moments.x)
        assert k_in is not None
        spread = moments.xx.diagonal().sqrt()
        spread = torch.where(spread > 0, spread, 1.0)
        height = (moments.yy.trace() / len(moments.y)).sqrt()
        height = torch.where(height > 0, height, 1.0)
        start = torch.cat(
            [directions, scaled(compute_principal_axes(moments.xx, len(moments.x)).T, moments.xx)]
        )[:k_in]
        down, up = trained_maps(
            ((X.double() - moments.x) / spread).float(),
            ((Y.double() - moments.y) / height).float(),
            down=(start * spread).float(),
            up=self._first_up(moments, metric),
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
        return scaled(uncorrelated, moments.xx), None if up is None else orthonormal(up.double(), metric)

    def _first_up(self, moments: Moments, metric: Tensor | None) -> Tensor | None:
        if self.k_out is None:
            return None
        root, inverse = (None, None) if metric is None else compute_square_roots(metric)
        costs = moments.yy if root is None else root @ moments.yy @ root
        k_out = resolve_size("k_out", self.k_out, compute_spectrum(costs))
        assert k_out is not None
        axes = compute_principal_axes(costs, k_out)
        return (axes if inverse is None else inverse @ axes).float()


def _metric(given: Any, outputs: Tensor) -> Tensor | None:
    """A metric as a matrix beside the outputs' moments.

    Raises:
        SearchError: it is not one for so many outputs.
    """
    if given is None:
        return None
    metric = torch.as_tensor(given, dtype=torch.float64).to(outputs.device)
    d = len(outputs)
    if metric.shape == (d,):
        metric = torch.diag(metric)
    if metric.shape != (d, d) or not torch.allclose(metric, metric.T):
        raise SearchError(f"the metric needs {d} numbers, or a symmetric {d} x {d} matrix")
    if not bool(torch.isfinite(metric).all()) or float(torch.linalg.eigvalsh(metric)[0]) < -1e-9:
        raise SearchError("the metric must be finite, and no error may cost less than nothing")
    # Outputs that cost nothing still have a direction: a trace of cost keeps the maps well defined.
    return metric + torch.eye(d, dtype=torch.float64, device=outputs.device) * 1e-9 * metric.diagonal().mean()


def _some(X: Tensor, most: int, seed: int) -> Tensor:
    """A seeded sample of the rows."""
    if len(X) <= most:
        return X
    chosen = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:most]
    return X[chosen.sort().values.to(X.device)]
