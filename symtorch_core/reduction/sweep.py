"""Sweeps: many reducers at many sizes, measured before any search (SymTorch paper, figure 4)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from symtorch_core.activations.block_function import as_row_function
from symtorch_core.activations.estimators import as_function
from symtorch_core.activations.frames import import_pandas
from symtorch_core.activations.hooks import DEFAULT_MAX_ROWS, HookCapture
from symtorch_core.activations.rows import Activations, BlockFunction
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import (
    check_callbacks,
    check_flag,
    check_function,
    check_number,
    check_seed,
    check_whole,
)
from symtorch_core.components.registry import load
from symtorch_core.errors import CaptureError, SearchError
from symtorch_core.events.progress import progress_bars
from symtorch_core.events.records import (
    Callback,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Stopwatch,
    notify,
)
from symtorch_core.reduction.linear import Size, check_size
from symtorch_core.reduction.moments import Moments
from symtorch_core.reduction.reducer import Reducer, Reduction
from symtorch_core.training.descend import allow_gradients

_RIDGE = 1e-9
_HIDDEN = (128, 128)
_STAGE = "sweep"


@final
@dataclass(frozen=True)
class SweepRow:
    """Figures of one reducer at one size; all R2 are on held-out rows, over all outputs together.

    Attributes:
        reducer: name of the reducer.
        k_in, k_out: sizes; None if all are kept.
        r2: R2 of the block itself between the maps: inputs reduced and restored by their best linear guess, outputs
            reduced and restored by the maps. A perfect equation of the block would reach it.
        r2_linear: R2 of the best linear map of the reduced inputs; equations have to beat it.
        r2_network: R2 of a small network between the maps, which need not copy the block; None if not requested.
        seconds: time taken to learn the maps.
        note: the reason if there are no figures.
    """

    reducer: str
    k_in: Size
    k_out: Size
    r2: float = math.nan
    r2_linear: float = math.nan
    r2_network: float | None = None
    seconds: float = 0.0
    note: str = ""


@final
@dataclass(frozen=True)
class Sweep:
    """Result of a sweep.

    Attributes:
        rows: a row for each reducer and size, in the order of the arguments.
        fitted: number of rows of data the maps were learned on.
        held_out: number of rows of data they were evaluated on.
    """

    rows: tuple[SweepRow, ...]
    fitted: int
    held_out: int

    def to_frame(self) -> Any:
        """Return a pandas DataFrame (needs pandas), a row for each reducer and size."""
        return import_pandas().DataFrame([asdict(row) for row in self.rows])

    def plot(self, value: str = "r2", ax: Any = None) -> Any:
        """Plot unexplained variance over k_in: a line for each reducer and k_out (needs matplotlib).

        Args:
            value: ``"r2"``, ``"r2_linear"`` or ``"r2_network"``.
            ax: matplotlib axes to draw on; new ones by default.

        Returns:
            The axes.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        from symtorch_core.views.plots import plot_sweep

        return plot_sweep(self, value, ax)

    def __str__(self) -> str:
        from symtorch_core.views.terminal import render_sweep

        return render_sweep(self)


def measure_overall_r2(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
    """Return the share of the variance of all outputs together that is explained.

    Args:
        prediction: shape (n, k).
        target: shape (n, k).
        weights: shape (n,), non-negative, or None.

    >>> measure_overall_r2(torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([[-1.0, 0.0], [1.0, 2.0]]))
    0.5
    """
    prediction, target = prediction.double(), target.double()
    share = torch.ones(len(target), dtype=torch.float64) if weights is None else weights.double()
    share = (share / share.sum())[:, None]
    spread = (share * (target - (share * target).sum(0)).square()).sum()
    return 1.0 - float((share * (prediction - target).square()).sum() / spread)


@explain_calls(also=HookCapture.option_names())
@allow_gradients()
def sweep_reducers(
    block: Callable[..., Any],
    data: Any,
    *,
    reducers: Sequence[str | Reducer] | Mapping[str, Reducer] = ("pca",),
    k_in: Sequence[Size] = (4, 8, 16),
    k_out: Sequence[Size] = (None,),
    parent: Callable[..., Any] | None = None,
    network: bool = False,
    test_fraction: float = 0.2,
    max_rows: int = DEFAULT_MAX_ROWS,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> Sweep:
    """Learn the maps of several reducers at several sizes, and measure what is lost between them.

    Args:
        block: a module or function that treats rows one by one.
        data: data for the block (or ``parent``), see :func:`symtorch_core.capture`; or
            :class:`Activations` of the block.
        reducers: names or instances; or a dict of instances by their names in the table. Their k_in and k_out are
            set here.
        k_in: sizes of the reduced inputs: numbers, shares of the variance (``"95%"``), None for all.
        k_out: sizes of the reduced outputs, given in the same way.
        parent: the model that calls the block.
        network: also train a small network between the maps (slower).
        test_fraction: share of the rows to hold out for evaluation.
        max_rows: number of rows kept of those that pass through the block.
        seed: same seed, same figures.
        callbacks: called with each event.
        progress: draw progress bars in a terminal or a notebook.
        **options: options of the capture, such as ``select_input=0``.

    >>> mlp = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    >>> sweep = sweep_reducers(mlp, torch.randn(500, 8), reducers=["pca"], k_in=[2, 8])
    >>> sweep.rows[1].r2 > 0.999
    True

    Raises:
        CaptureError: the data give no usable rows, or the block mixes rows, so that it cannot be put between maps.
        SearchError: an option of a reducer does not exist.
        UnknownComponentError, MissingDependencyError: a reducer is unknown or cannot be imported.
    """
    block = as_function(block)
    check_function("block", block, "a module or a function", CaptureError)
    check_function("parent", parent, "the model that calls the block", CaptureError, optional=True)
    check_number("test_fraction", test_fraction, 0, 1, open_low=True, open_high=True, error=CaptureError)
    check_whole("max_rows", max_rows, 2, CaptureError)
    check_seed(seed)
    for name, value in (("network", network), ("progress", progress)):
        check_flag(name, value)
    callbacks = check_callbacks(callbacks)
    k_in, k_out = _read_sizes("k_in", k_in), _read_sizes("k_out", k_out)
    chosen = _name_reducers(reducers)
    activations = (
        data
        if isinstance(data, Activations)
        else HookCapture.with_options(options).collect(
            block, data, parent=parent, max_rows=max_rows, seed=seed, callbacks=callbacks
        )
    )
    if activations.source.select_input is None:  # from arrays: all columns are the block's input
        activations = replace(activations, source=replace(activations.source, select_input=("0",)))
    function = as_row_function(block, activations)
    if function is None:
        raise CaptureError(
            "the block cannot be called row by row (it mixes rows, or takes several tensors), so it cannot be put "
            "between maps"
        )
    fitted, held_out = activations.split(test_fraction, seed)
    if held_out is None:
        raise CaptureError(
            f"{len(activations)} rows are too few to hold some out: give more data or a larger test_fraction"
        )
    grid = [(name, reducer, a, b) for name, reducer in chosen.items() for a in k_in for b in k_out]
    rows = []
    with progress_bars() as bars:
        listeners = [*callbacks, bars] if progress else list(callbacks)
        watch = Stopwatch()
        notify(listeners, StageStarted(_STAGE, len(grid)))
        for name, reducer, a, b in grid:
            sized = replace(reducer, k_in=a, k_out=b)  # type: ignore[type-var]
            row = SweepRow(name, a, b)
            rows.append(_evaluate(row, sized, fitted, held_out, function, network, seed))
            notify(listeners, StageAdvanced(_STAGE))
        notify(listeners, StageFinished(_STAGE, watch.seconds()))
    return Sweep(tuple(rows), len(fitted), len(held_out))


def _read_sizes(name: str, sizes: Any) -> tuple[Size, ...]:
    if isinstance(sizes, (str, Mapping, Set)) or not isinstance(sizes, Iterable):
        raise SearchError(f"{name} takes a list of sizes, like [4, '95%'], not {sizes!r}")
    listed = tuple(sizes)
    for size in listed:
        check_size(name, size)
        if isinstance(size, int):
            check_whole(name, size, 1)
    if not listed:
        raise SearchError(f"{name} takes a list of sizes, like [4, '95%']; it is empty")
    return listed


def _name_reducers(reducers: Any) -> dict[str, Reducer]:
    wanted = "reducers takes a list of names or instances, like ['pca']"
    if isinstance(reducers, str) or not isinstance(reducers, Iterable):
        raise SearchError(f"{wanted}, not {reducers!r}")
    reducers = reducers if isinstance(reducers, Mapping) else tuple(reducers)
    if not reducers:
        raise SearchError(f"{wanted}; it is empty")
    for item in reducers.values() if isinstance(reducers, Mapping) else reducers:
        if not isinstance(item, Reducer) and (isinstance(reducers, Mapping) or not isinstance(item, str)):
            raise SearchError(f"{wanted}; {item!r} is neither")
    if isinstance(reducers, Mapping):
        by_name = dict(reducers)
    else:
        made = [load("reducers", item)() if isinstance(item, str) else item for item in reducers]
        by_name = dict(zip(_make_distinct([reducer.name for reducer in made]), made, strict=True))
    for name, reducer in by_name.items():
        if not {"k_in", "k_out"} <= set(reducer.option_names()):
            raise SearchError(f"reducer {name!r} has no k_in and k_out to sweep over")
    return by_name


def _make_distinct(names: Sequence[str]) -> Iterator[str]:
    for position, name in enumerate(names):
        before = list(names[:position]).count(name)
        yield name if before == 0 else f"{name} {before + 1}"


def _evaluate(
    row: SweepRow,
    reducer: Reducer,
    fitted: Activations,
    held_out: Activations,
    function: BlockFunction,
    network: bool,
    seed: int,
) -> SweepRow:
    watch = Stopwatch()
    try:
        reduction = reducer.fit(
            fitted.inputs,
            fitted.outputs,
            variable_names=fitted.input_names,
            weights=fitted.weights,
            block=function,
            seed=seed,
        )
    except SearchError as error:  # a size that does not fit this reducer is no reason to lose the others
        return replace(row, note=str(error))
    seconds = watch.seconds()
    Z, far = reduction.reduce_inputs(fitted.inputs), reduction.reduce_inputs(held_out.inputs)
    widened = _fit_linear_guess(Z, fitted.inputs, fitted.weights, far).to(held_out.inputs)
    with torch.no_grad():
        exact = function(widened)
    linear = _fit_linear_guess(Z, fitted.outputs, fitted.weights, far)
    between = reduction.restore_outputs(reduction.reduce_targets(exact, far), far)

    def r2(prediction: Tensor) -> float:
        return measure_overall_r2(prediction, held_out.outputs, held_out.weights)

    learned = _fit_network(reduction, Z, fitted, far, seed) if network else None
    return replace(
        row,
        r2=r2(between),
        r2_linear=r2(linear),
        r2_network=None if learned is None else r2(learned),
        seconds=seconds,
    )


def _fit_linear_guess(Z: Tensor, Y: Tensor, weights: Tensor | None, far: Tensor) -> Tensor:
    """Return the best linear guess of Y from Z, at other rows."""
    moments = Moments.of(Z, Y, weights)
    return moments.y + (far.double() - moments.x) @ moments.linear_map(_RIDGE).T


def _fit_network(reduction: Reduction, Z: Tensor, fitted: Activations, far: Tensor, seed: int) -> Tensor:
    """Train a small network between the maps, and return its predictions at other rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor  # slow to import, and rarely used
    from sklearn.preprocessing import StandardScaler

    T = reduction.reduce_targets(fitted.outputs, Z)
    inputs, targets = StandardScaler().fit(Z.numpy()), StandardScaler().fit(T.numpy())
    model = MLPRegressor(
        hidden_layer_sizes=_HIDDEN,
        early_stopping=True,
        max_iter=60,
        batch_size=min(512, len(Z) // 2),
        random_state=seed,
    )
    scaled = targets.transform(T.numpy())
    with warnings.catch_warnings():  # the number of epochs is fixed: training need not converge
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs.transform(Z.numpy()), scaled[:, 0] if scaled.shape[1] == 1 else scaled)
    predicted = model.predict(inputs.transform(far.numpy())).reshape(len(far), -1)
    return reduction.restore_outputs(torch.from_numpy(targets.inverse_transform(predicted)).to(far), far)
