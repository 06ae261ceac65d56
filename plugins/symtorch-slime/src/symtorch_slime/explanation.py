"""``explain``: an equation for what a model computes near one point, and how far it is valid."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import sympy as sp
import torch
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from torch import Tensor

from symtorch_core import Activations, CaptureError, Distillation, Regressor, Surrogate, distill
from symtorch_core.reduction import Moments
from symtorch_core.search import SelectionRule
from symtorch_slime.capture import SlimeCapture
from symtorch_slime.plots import plot_explanation

_LEAST_PROBABILITY = 1e-3
_SCALES = tuple(2.0 ** (i / 2) for i in range(1, 13))
_NEGLIGIBLE = 1e-4
_LEAST_FRESH = 200
_MOST_BARS = 12


@final
@dataclass(frozen=True, eq=False)
class Explanation:
    """An equation near a point.

    Attributes:
        result: fronts and chosen equations, one for each explained output.
        local: fresh weighted samples of the neighbourhood, by which the equations are judged.
        point: the block's input at x*, shape (d,).
        value: the block's output there, for each explained output, shape (k,).
        spread: weighted standard deviation of each of the block's inputs in the neighbourhood, shape (d,).
        local_r2: weighted R2 on fresh samples of the neighbourhood, for each explained output.
        radius: how many times wider the neighbourhood may be until the equation's error has doubled, for each explained
            output; inf where it has not doubled at 64 times.
    """

    result: Distillation
    local: Activations
    point: Tensor
    value: Tensor
    spread: Tensor
    local_r2: tuple[float, ...]
    radius: tuple[float, ...]

    def equations(self) -> dict[str, sp.Expr]:
        """Return the chosen equations in sympy, by name of the output."""
        return self.result.equations()

    @property
    def gradient(self) -> Tensor:
        """Slopes of the equations at the point, shape (k, d), per unit of each input: the local importances."""
        surrogate = self.result.surrogate()
        slopes = torch.autograd.functional.jacobian(lambda x: surrogate(x[None])[0], self.point.double())
        return slopes.detach()

    @property
    def importances(self) -> Tensor:
        """Slopes times the spread of each input, shape (k, d): the change by a typical local step.

        LIME's coefficients are of this kind, since they belong to standardised inputs.
        """
        return self.gradient * self.spread.double()

    def top(self, count: int = 3, output: int | str | None = None) -> tuple[str, ...]:
        """Return the names of the most important inputs near the point, the most important first.

        Inputs without effect are left out.
        """
        sizes = self.importances[self.result.find_output(output)].abs()
        order = [i for i in sizes.argsort(descending=True, stable=True).tolist() if float(sizes[i]) > 0]
        return tuple(self.result.transforms.input_names[i] for i in order[:count])

    def __str__(self) -> str:
        lines = []
        for output, (name, candidate) in enumerate(
            zip(self.result.output_names, self.result.chosen(), strict=True)
        ):
            lines.append(f"{name} = {candidate.text()}")
            lines.append(
                f"  local R2 {self.local_r2[output]:.4f}, radius {self.radius[output]:.3g} x the neighbourhood, "
                f"{float(self.value[output]):.5g} at the point"
            )
            slopes = zip(
                self.result.transforms.input_names,
                self.gradient[output].tolist(),
                self.importances[output].abs().tolist(),
                strict=True,
            )
            ranked = sorted((entry for entry in slopes if entry[1]), key=lambda entry: -entry[2])
            shown = ", ".join(f"{variable} {slope:+.4g}" for variable, slope, _ in ranked[:_MOST_BARS])
            lines.append(f"  slopes at the point: {shown or 'none'}")
        return "\n".join(lines)

    def plot(self, output: int | str | None = None, ax: Any = None) -> Any:
        """Plot the equation among the local samples, for one or two inputs that vary; else bars of the importances.

        Args:
            output: column or name of an explained output; the first one by default.
            ax: matplotlib axes to draw on.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        return plot_explanation(self, output, ax)


def explain(
    f: Callable[..., Any],
    X: Any,
    x_star: Any,
    *,
    parent: Callable[..., Any] | None = None,
    regressor: str | Regressor = "pysr",
    outputs: Sequence[int | str] | None = None,
    select: SelectionRule = "best",
    seed: int = 0,
    **options: Any,
) -> Explanation:
    """Explain what a model, or a block in it, computes near a point by an equation (SLIME; SymTorch paper, 3.2).

    Args:
        f: a module; a function of tensors, arrays or data frames (of the kind of X); a regressor of scikit-learn, or
            its ``predict``; ``model.predict_proba``, whose probabilities are explained as logits, clipped at 0.001 and
            0.999; or a hidden block, with ``parent``.
        X: data of the model, rows around the point: a tensor, array or data frame, shape (n, d).
        x_star: the point, in the model's input space, shape (d,).
        parent: the model that calls the block ``f``.
        regressor: name of a backend, or an instance.
        outputs: output columns. By default all; of class probabilities, the class likeliest at the point.
        select: the rule that chooses the equation. The default is ``"best"``: near a point there is often no law, and
            the loss falls slowly.
        seed: of samples and search.
        **options: fields of :class:`SlimeCapture` (``neighbours=100``), and every option of
            :func:`symtorch_core.distill`.

    >>> X = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> near = explain(lambda x: x[:, :1] * x[:, 1:], X, [1.0, 2.0], regressor="sparse", progress=False)
    >>> near.equations()["y0"], near.gradient
    (x0*x1, tensor([[2., 1.]], dtype=torch.float64))

    Raises:
        CaptureError: the data, the point or a setting is invalid, or the block gets several rows for one input row.
        SearchError: an option does not exist.
    """
    near = {name: options.pop(name) for name in SlimeCapture.option_names() if name in options}
    capture = SlimeCapture.with_options({**near, "x_star": x_star})
    box, probabilities = _wrap_classifier(f)
    there = capture.collect_at_point(box, X, parent)
    if outputs is None and probabilities:
        outputs = [int(there.outputs[0].argmax())]
    result = distill(
        box,
        X,
        parent=parent,
        regressor=regressor,
        capture=capture,
        outputs=outputs,
        select=select,
        seed=seed,
        **options,
    )
    # The spread is computed once, because it takes a search for neighbours.
    spread = capture.rows(X, seed).spread / capture.bandwidth
    synthetic_only = replace(
        capture,
        neighbour_weight=0.0,
        samples=max(capture.samples, _LEAST_FRESH),
        variance=tuple((spread**2).tolist()),
    )

    def sample(scale: float, number: int) -> Activations:
        fresh = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        return replace(synthetic_only, bandwidth=scale * capture.bandwidth).collect(
            box, X, parent=parent, seed=fresh
        )

    fresh = sample(1.0, 0)
    columns = list(result.outputs)
    surrogate = result.surrogate()
    return Explanation(
        result=result,
        local=fresh,
        point=there.inputs[0],
        value=there.outputs[0, columns],
        spread=_measure_spread(fresh),
        local_r2=tuple(entry.r2 for entry in result.judge(fresh)),
        radius=_measure_radius(surrogate, sample, fresh, columns),
    )


def _wrap_classifier(f: Callable[..., Any]) -> tuple[Callable[..., Any], bool]:
    """Return the function to explain, and whether it gives class probabilities; these become logits."""
    if isinstance(f, BaseEstimator) and is_regressor(f):
        return f.predict, False
    if isinstance(f, BaseEstimator) and is_classifier(f):
        raise CaptureError("class labels cannot be explained: give the classifier's predict_proba")
    if not inspect.ismethod(f) or not is_classifier(f.__self__):
        return f, False
    if f.__name__ == "predict":
        raise CaptureError("class labels cannot be explained: give the classifier's predict_proba")
    if f.__name__ != "predict_proba":
        return f, False
    method: Callable[[Any], Any] = f

    def logits(rows: Any) -> Any:
        given = rows.numpy() if isinstance(rows, Tensor) else rows
        p = np.clip(np.asarray(method(given)), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        return np.log(p / (1 - p))

    return logits, True


def _measure_spread(local: Activations) -> Tensor:
    assert local.weights is not None
    inputs = local.inputs
    spread = Moments.of(inputs, inputs[:, :0], local.weights).xx.diagonal().sqrt()
    # The spread of a column that does not vary is rounding noise.
    return spread.where(inputs.amax(0) > inputs.amin(0), torch.zeros_like(spread))


def _measure_radius(
    surrogate: Surrogate,
    sample: Callable[[float, int], Activations],
    fresh: Activations,
    columns: list[int],
) -> tuple[float, ...]:
    """Return how far the neighbourhood may grow until the root mean square error has doubled."""

    def errors(rows: Activations) -> list[float]:
        assert rows.weights is not None
        share = (rows.weights / rows.weights.sum()).double()[:, None]
        missed = surrogate.predict(rows.inputs).double() - rows.outputs[:, columns].double()
        size = (share * missed.square()).sum(0).sqrt()
        # What rounding of the outputs explains is no error.
        rounding = torch.finfo(rows.outputs.dtype).eps * rows.outputs[:, columns].double().abs().amax(0)
        return size.where(~(size <= rounding), 0.0).nan_to_num(math.inf, math.inf).tolist()

    wanted = fresh.outputs[:, columns].double().std(0, correction=0).tolist()
    limits = [
        2 * max(error, _NEGLIGIBLE * spread, sys.float_info.min)
        for error, spread in zip(errors(fresh), wanted, strict=True)
    ]
    radius = [math.inf] * len(columns)
    before, last = 1.0, [limit / 2 for limit in limits]
    for number, scale in enumerate(_SCALES, start=1):
        now = errors(sample(scale, number))
        for output, (limit, error) in enumerate(zip(limits, now, strict=True)):
            if math.isinf(radius[output]) and error > limit:
                # Between two scales the error is assumed to follow a power law.
                low = min(last[output] or limit / 2, limit)
                rise = math.log(error / low) if math.isfinite(error) else math.inf
                radius[output] = before * (scale / before) ** (math.log(limit / low) / rise)
        if all(map(math.isfinite, radius)):
            break
        before, last = scale, now
    return tuple(radius)
