"""The pipeline: capture -> transform -> reduce -> regress -> select -> surrogate -> verify.

:func:`distill` connects the rooms of the core; each arrow is a function that a user may call directly.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from symtorch_core.activations.batches import peek_batch
from symtorch_core.activations.block_function import as_row_function, warn_of_mixing
from symtorch_core.activations.estimators import as_function
from symtorch_core.activations.hooks import DEFAULT_MAX_ROWS, Capture, HookCapture, name_block
from symtorch_core.activations.rows import Activations, BlockFunction
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.registry import available, load
from symtorch_core.errors import CaptureError, SearchError
from symtorch_core.events import (
    Callback,
    StageFinished,
    StageStarted,
    StageTold,
    Stopwatch,
    notify,
    progress_bars,
)
from symtorch_core.pipeline.measures import measure_result
from symtorch_core.pipeline.request import (
    Components,
    check_arguments,
    check_held_out,
    check_truth,
    find_outputs,
    read_truth,
    resolve_components,
)
from symtorch_core.reduction.reducer import Reducer, Reduction
from symtorch_core.results.choosing import choose_by_rule
from symtorch_core.results.distillation import Distillation
from symtorch_core.results.origin import Provenance
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.run import fill_missing_fronts, regress
from symtorch_core.search.selection import HELD_OUT_RULES, SelectionRule
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.transforms import Transform, Transforms
from symtorch_core.training.descend import allow_gradients
from symtorch_core.verification.fidelity import OutputFidelity
from symtorch_core.verification.whole_model import BATCH_ROWS

_FEW: Final = 10
"""Rows below which equations say little."""


@explain_calls(extra="Measured data are one argument: distill((X, Y)).")
@allow_gradients()
def distill(
    block: Any,
    data: Any = None,
    *,
    parent: Callable[..., Any] | None = None,
    regressor: str | Regressor = "pysr",
    regressor_options: Mapping[str, Any] | None = None,
    reducer: str | Reducer = "identity",
    reducer_options: Mapping[str, Any] | None = None,
    capture: str | Capture = "hooks",
    capture_options: Mapping[str, Any] | None = None,
    surrogate: str = "torch",
    variable_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    transforms: Mapping[str, Transform] | None = None,
    outputs: Sequence[int | str] | None = None,
    weights: Any = None,
    y_true: Any = None,
    search: SearchSpace | None = None,
    select: SelectionRule = "knee",
    test_fraction: float = 0.2,
    out_of_range: bool = True,
    max_rows: int = DEFAULT_MAX_ROWS,
    seed: int = 0,
    resume: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **search_fields: Any,
) -> Distillation:
    """Fit equations to the function that a block computes.

    It may be called in several threads: they wait for each other while they run models, and search side by side.

    Args:
        block: a module or function, with ``data`` to run it on; or the data themselves: an ``(X, Y)`` pair of
            arrays or data frames, or :class:`Activations`. A fitted regressor of scikit-learn stands for its
            ``predict``. The columns of a data frame name the inputs.
        data: see :func:`symtorch_core.capture`.
        parent: the model that calls the block when it runs on ``data``, and whose own output is compared on the block
            and on the equations; None feeds the data to the block.
        regressor: name of a backend, or an instance.
        regressor_options: options of a backend given by name, such as ``{"n_jobs": 2}``.
        reducer: name of a reducer, or an instance.
        reducer_options: options of a reducer given by name, such as ``{"k_in": 8}``.
        capture: name of a capture, or an instance.
        capture_options: options of a capture given by name, such as ``{"select_input": 0}``. For rows given as
            arrays, only ``{"on_nonfinite": "drop"}`` is valid.
        surrogate: name of a surrogate.
        variable_names: a name for each input of the block; those of a data frame's columns, or x0, x1, ... by default.
        output_names: a name for each output of the block; those of Y's columns, or y0, y1, ... by default.
        transforms: derived variables that the equations are written in, instead of the inputs; see
            :class:`symtorch_core.Transforms`.
        outputs: distill only these output columns, by number or name; all by default.
        weights: a non-negative number for each captured row, times the weights from the capture.
        y_true: measurements of what the block computes, to compare the equations with: an array beside ``data`` (or
            X) that are one array; or a pair (X, Y) of the block's inputs and measured outputs. The search does not see
            them.
        search: the search space; or pass its fields as keyword arguments.
        select: the rule that chooses an equation from each front; see :meth:`ParetoFront.select`.
        test_fraction: share of the rows held out of the search, for evaluation.
        out_of_range: also evaluate block and equations on rows beyond the range of the data, if the block allows it;
            set False if each call is expensive, or inputs must be integers.
        max_rows: number of rows kept of those that pass through the block, a uniform sample; arrays are used in full.
        seed: same seed, same result.
        resume: folder where finished fronts are saved at once, and looked up before searching.
        callbacks: functions called with every :class:`symtorch_core.events.Event`.
        progress: draw progress bars in a terminal or a notebook.
        **search_fields: fields of :class:`SearchSpace`, such as ``niterations=100``.

    Returns:
        The distillation. If Ctrl-C or a failure of the backend (which is then a warning) stops the search, outputs
        that are finished, or that the backend hands over, are returned. What fails or is stopped after the search
        (a measure, a callback) is left out, and a warning says so.

    >>> X = torch.rand(200, 2)
    >>> result = distill((X, 2 * X[:, :1] + 1), regressor="operon", niterations=5)  # doctest: +SKIP

    Raises:
        CaptureError: the data do not give usable rows.
        SearchError: an option is unknown or cannot be honoured, or the same search is running in the ``resume`` folder.
        FileFormatError: a file in the ``resume`` folder is damaged.
        UnknownComponentError, MissingDependencyError: a component is unknown or cannot be imported; the message lists
            the known ones.
        SelectionError: the rule chooses nothing.
        KeyboardInterrupt, BackendError: the search was stopped before there was any front.
    """
    variable_names, output_names = _read_iterator(variable_names), _read_iterator(output_names)
    outputs, callbacks = _read_iterator(outputs), _read_iterator(callbacks)
    arguments = {**locals(), "block": as_function(block)}  # by name, as they were given
    block, was_estimator = arguments["block"], arguments["block"] is not block
    check_arguments(arguments)
    components = resolve_components(arguments)
    truth = read_truth(arguments)
    load("surrogates", surrogate)  # fail on an unknown name before the search, not after it
    with ExitStack() as stack:
        callbacks = [*callbacks, stack.enter_context(progress_bars())] if progress else list(callbacks)
        stages = _Stages(callbacks)
        # Other captures run the parent on data of their own.
        runs_parent = parent is not None and isinstance(components.capture, HookCapture)
        batch, data = peek_batch(data, BATCH_ROWS) if runs_parent else (None, data)
        if was_estimator:
            notify(callbacks, StageTold("capture", f"{name_block(block)} is distilled"))
        with stages.clock("capture"):  # a capture reports its own progress
            activations = _collect(block, data, parent, components, weights, max_rows, seed, callbacks)
            activations = _apply_names(activations, variable_names, output_names)
            function = as_row_function(block, activations) if callable(block) else None
        if function is None:
            warn_of_mixing(block, activations)
        columns = _find_columns(outputs, activations)
        check_truth(truth, activations)
        train, held_out = activations.split(test_fraction, seed)
        if held_out is None:
            check_held_out(select, len(activations), test_fraction)
        if len(activations) < _FEW:
            warnings.warn(
                f"{len(activations)} rows are so few that many equations fit them: give more, ideally hundreds",
                RuntimeWarning,
                stacklevel=2,
            )
        with stages.run("reduce"):
            derive = Transforms(activations.input_names, transforms)
            # With transforms or fewer outputs, the rows show another function than the block.
            unchanged = transforms is None and outputs is None
            reduction, Z, T = _reduce(
                components.reducer, derive, train, columns, function if unchanged else None, seed
            )
        found: dict[int, ParetoFront] = {}
        interrupted = False
        try:
            with stages.run("regress", T.shape[1]):
                found, interrupted = regress(
                    components.regressor,
                    Z,
                    T,
                    components.search,
                    reduction.variable_names,
                    weights=train.weights,
                    seed=seed,
                    callbacks=callbacks,
                    resume=resume,
                    # Equations that are outputs are numbered as the block's columns.
                    numbers=columns if reduction.keeps_outputs else None,
                )
        except KeyboardInterrupt:
            if not found:
                raise
            interrupted = True
        if reduction.keeps_outputs:
            # Equations are independent of each other, so missing ones are left out.
            columns = tuple(columns[i] for i in sorted(found))
            fronts = tuple(found[i] for i in sorted(found))
        else:
            fronts = fill_missing_fronts(found, T, components.search, train.weights)
        names = tuple(activations.output_names[column] for column in columns)
        result = Distillation(
            fronts=fronts,
            equation_names=names if reduction.keeps_outputs else tuple(f"f{i}" for i in range(len(fronts))),
            outputs=columns,
            output_names=names,
            block_outputs=activations.outputs.shape[1],
            transforms=derive,
            reduction=reduction,
            search=components.search,
            # The other rules need held-out losses, which are measured below.
            choices=choose_by_rule(fronts, "knee" if select in HELD_OUT_RULES else select),
            provenance=Provenance(
                regressor=components.regressor.name,
                reducer=components.reducer.name,
                surrogate=surrogate,
                source=activations.source,
                rows=(len(train), 0 if held_out is None else len(held_out)),
                versions=_collect_versions(components.regressor.name),
                seed=seed,
            ),
            fidelity=(OutputFidelity(),) * len(columns),  # measured below
            interrupted=interrupted,
            train=train,
            held_out=held_out,
            truth=truth,
        )
        try:
            with stages.run("verify"):
                for measured in measure_result(
                    result, select, block, parent, batch, function if out_of_range else None
                ):
                    result = measured
        except KeyboardInterrupt:
            warnings.warn(
                "the measures of the equations were stopped; the equations are all there",
                RuntimeWarning,
                stacklevel=2,
            )
            result = replace(result, interrupted=True)
    return replace(result, provenance=replace(result.provenance, seconds=stages.seconds))


def _read_iterator(value: Any) -> Any:
    """Return a tuple in place of what can be read only once, since it is checked before it is used."""
    return tuple(value) if isinstance(value, Iterator) else value


@final
class _Stages:
    """Clock of the stages of one run, which notifies the callbacks."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks
        self.seconds: dict[str, float] = {}

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        watch = Stopwatch()
        yield
        self.seconds[stage] = watch.seconds()

    @contextmanager
    def run(self, stage: str, total: int | None = None) -> Iterator[None]:
        notify(self._callbacks, StageStarted(stage, total))
        with self.clock(stage):
            yield
        notify(self._callbacks, StageFinished(stage, self.seconds[stage]))


def _collect(
    block: Any,
    data: Any,
    parent: Callable[..., Any] | None,
    components: Components,
    weights: Any,
    max_rows: int,
    seed: int,
    callbacks: Sequence[Callback],
) -> Activations:
    if callable(block):
        activations = components.capture.collect(
            block, data, parent=parent, max_rows=max_rows, seed=seed, callbacks=callbacks
        )
        activations = activations if weights is None else activations.with_weights(weights)
    else:
        activations = _take_rows(block, components.capture_options, weights)
    if len(activations) < 2:
        raise CaptureError(
            f"{len(activations)} row is too few to fit anything: give at least 2, ideally hundreds"
        )
    return activations


def _take_rows(block: Any, options: Mapping[str, Any], weights: Any) -> Activations:
    """Return activations given as such, or as an (X, Y) pair of arrays."""
    idle = set(options) - (set() if isinstance(block, Activations) else {"on_nonfinite"})
    if idle:
        raise SearchError(
            f"{', '.join(sorted(idle))}: the rows are given, so nothing is captured; leave it out"
        )
    if isinstance(block, Activations):
        return block if weights is None else block.with_weights(weights)
    return Activations.of(*block, weights=weights, **options)


def _apply_names(
    activations: Activations, variable_names: Sequence[str] | None, output_names: Sequence[str] | None
) -> Activations:
    return replace(
        activations,
        input_names=activations.input_names if variable_names is None else tuple(variable_names),
        output_names=activations.output_names if output_names is None else tuple(output_names),
    )


def _find_columns(outputs: Sequence[int | str] | None, activations: Activations) -> tuple[int, ...]:
    names = activations.output_names
    return tuple(range(len(names))) if outputs is None else find_outputs(outputs, names)


def _apply_transforms(transforms: Transforms, activations: Activations) -> Tensor:
    transforms.check_functions(activations.inputs[:2])
    derived: Tensor = transforms(activations.inputs)
    for name, column in zip(transforms.variable_names, derived.unbind(-1), strict=True):
        bad = int((~torch.isfinite(column)).sum())
        if bad:
            raise SearchError(
                f"transform {name!r} is not finite on {bad} of {len(derived)} rows: restrict its domain"
            )
    return derived


def _reduce(
    reducer: Reducer,
    transforms: Transforms,
    train: Activations,
    columns: Sequence[int],
    function: BlockFunction | None,
    seed: int,
) -> tuple[Reduction, Tensor, Tensor]:
    """Return the reduction, and inputs Z (n, k_in) and targets T (n, k_out) of the equations."""
    derived, targets = _apply_transforms(transforms, train), train.outputs[:, list(columns)]
    reduction = reducer.fit(
        derived,
        targets,
        variable_names=transforms.variable_names,
        weights=train.weights,
        block=function,
        seed=seed,
    )
    Z = reduction.reduce_inputs(derived)
    return reduction, Z, reduction.reduce_targets(targets, Z)


def _collect_versions(regressor: str) -> dict[str, str]:
    names = ["symtorch-core", "torch", "numpy", "sympy", "scikit-learn"]
    names += [
        entry.distribution
        for entry in available("regressors")
        if entry.component.name == regressor and entry.distribution
    ]
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree
            continue
    return versions
