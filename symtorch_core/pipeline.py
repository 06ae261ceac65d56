"""The pipeline: capture -> transform -> reduce -> regress -> select -> surrogate -> verify.

:func:`distill` strings the rooms of the core together; each arrow is a function of its own that a user may
call.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, final, get_args

import torch
from torch import Tensor

from symtorch_core.activations.block_function import as_row_function
from symtorch_core.activations.hooks import DEFAULT_MAX_ROWS, Capture
from symtorch_core.activations.rows import Activations, BlockFunction
from symtorch_core.components.registry import available, load
from symtorch_core.errors import CaptureError, SearchError, SelectionError
from symtorch_core.events.progress import progress_bars
from symtorch_core.events.records import Callback, StageFinished, StageStarted, Stopwatch, notify
from symtorch_core.reduction.reducer import Reducer, Reduction
from symtorch_core.results.distillation import Distillation
from symtorch_core.search.front import HELD_OUT_RULES, SelectionRule
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.run import fill_missing_fronts, regress
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.transforms import Transform, Transforms
from symtorch_core.verification.verify import verify


def distill(
    block: Any,
    data: Any = None,
    *,
    parent: Callable[..., Any] | None = None,
    regressor: str | Regressor = "pysr",
    reducer: str | Reducer = "identity",
    reducer_options: Mapping[str, Any] | None = None,
    capture: str | Capture = "hooks",
    surrogate: str = "torch",
    variable_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    transforms: Mapping[str, Transform] | None = None,
    outputs: Sequence[int] | None = None,
    weights: Any = None,
    search: SearchSpace | None = None,
    select: SelectionRule = "score",
    test_fraction: float = 0.2,
    out_of_range: bool = True,
    max_rows: int = DEFAULT_MAX_ROWS,
    seed: int = 0,
    resume: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> Distillation:
    """Fit equations to what a block computes.

    Args:
        block: a module or function, with ``data`` to run it on; or the data themselves: an ``(X, Y)`` pair of
            arrays, or :class:`Activations`.
        data: see :func:`symtorch_core.activations.hooks.capture`.
        parent: the model that calls the block when it runs on ``data``; None feeds the data to the block.
        regressor: name of a backend, or an instance.
        reducer: name of a reducer, or an instance.
        reducer_options: options of a reducer given by name.
        capture: name of a capture, or an instance.
        surrogate: name of the kind of surrogate.
        variable_names: a name for each input of the block; x0, x1, ... by default.
        output_names: a name for each output of the block; y0, y1, ... by default.
        transforms: derived variables that the equations are written in, instead of the inputs; see
            :class:`symtorch_core.surrogates.transforms.Transforms`.
        outputs: distill only these output columns; all by default.
        weights: a non-negative number for each captured row, times the weights that a capture gives.
        search: the search space; or give its fields as options.
        select: the rule that chooses an equation from each front; see :meth:`ParetoFront.select`.
        test_fraction: share of the rows held out of the search, to judge on.
        out_of_range: afterwards, ask a block that can be asked for rows beyond the range of the data, too, and
            judge the equations there; False where each call is dear, or numbers must be whole.
        max_rows: rows kept of what passes the block, a uniform sample; arrays are used whole.
        seed: same seed, same result.
        resume: a folder where each finished front is written at once, and looked up before searching.
        callbacks: functions told of every :class:`symtorch_core.events.records.Event`.
        progress: draw progress bars where standard error is a terminal.
        **options: fields of :class:`SearchSpace` (``niterations=100``), of the capture (``select_input=0``),
            or of the backend.

    Returns:
        The distillation. Ctrl-C during the search ends it, and so does a failure of the backend, with a warning:
        outputs that are finished, or that the backend hands over, are kept and returned.

    >>> X = torch.rand(200, 2)
    >>> result = distill((X, 2 * X[:, :1] + 1), regressor="operon", niterations=5)  # doctest: +SKIP

    Raises:
        CaptureError: the data do not give usable rows.
        SearchError: an option does not exist or cannot be honoured.
        UnknownComponentError, MissingDependencyError: a component is not there; the message says what is.
        SelectionError: the rule picks nothing.
        KeyboardInterrupt, BackendError: stopped before there was anything to keep.
    """
    _check_rule(select, test_fraction)
    parts = _Parts.sorted_from(capture, regressor, reducer, reducer_options or {}, search, options)
    load("surrogates", surrogate)  # an unknown name is better known before the search than after
    with ExitStack() as stack:
        told = [*callbacks, stack.enter_context(progress_bars())] if progress else list(callbacks)
        stages = _Stages(told)
        with stages.clock("capture"):  # a capture tells of its progress itself
            activations = _collect(block, data, parent, parts, weights, max_rows, seed, told)
            activations = _apply_names(activations, variable_names, output_names)
            function = as_row_function(block, activations) if callable(block) else None
        columns = _check_columns(outputs, activations)
        train, held_out = activations.split(test_fraction, seed)
        with stages.told("reduce"):
            derive = Transforms(activations.input_names, transforms)
            whole = (
                transforms is None and outputs is None
            )  # else the block is another function than the rows show
            reduction, Z, T = _reduce(
                parts.reducer, derive, train, columns, function if whole else None, seed
            )
        with stages.told("regress", T.shape[1]):
            found, interrupted = regress(
                parts.regressor,
                Z,
                T,
                parts.search,
                reduction.variable_names,
                weights=train.weights,
                seed=seed,
                callbacks=told,
                resume=resume,
            )
        with stages.told("verify"):
            if (
                reduction.keeps_outputs
            ):  # then each equation stands for itself, and those that are missing are left out
                columns = tuple(columns[i] for i in sorted(found))
                fronts = tuple(found[i] for i in sorted(found))
            else:
                fronts = fill_missing_fronts(found, T, parts.search, train.weights)
            names = tuple(activations.output_names[column] for column in columns)
            result = Distillation(
                fronts=fronts,
                equation_names=names
                if reduction.keeps_outputs
                else tuple(f"f{i}" for i in range(len(fronts))),
                outputs=columns,
                output_names=names,
                block_outputs=activations.outputs.shape[1],
                transforms=derive,
                reduction=reduction,
                reducer=parts.reducer.name,
                regressor=parts.regressor.name,
                surrogate_kind=surrogate,
                search=parts.search,
                select=select,
                rows=(len(train), 0 if held_out is None else len(held_out)),
                source=activations.source,
                versions=_collect_versions(parts.regressor.name),
                seed=seed,
                interrupted=interrupted,
                train=train,
                held_out=held_out,
            )
            result = verify(result, train, held_out, function if out_of_range else None)
    return replace(result, seconds=stages.seconds)


@final
class _Stages:
    """Times the stages of one run and tells the callbacks."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks
        self.seconds: dict[str, float] = {}

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        watch = Stopwatch()
        yield
        self.seconds[stage] = watch.seconds()

    @contextmanager
    def told(self, stage: str, total: int | None = None) -> Iterator[None]:
        notify(self._callbacks, StageStarted(stage, total))
        with self.clock(stage):
            yield
        notify(self._callbacks, StageFinished(stage, self.seconds[stage]))


@final
@dataclass(frozen=True)
class _Parts:
    """The components of one run, with their options sorted in."""

    capture: Capture
    capture_options: Mapping[str, Any]
    regressor: Regressor
    reducer: Reducer
    search: SearchSpace

    @classmethod
    def sorted_from(
        cls,
        capture: str | Capture,
        regressor: str | Regressor,
        reducer: str | Reducer,
        reducer_options: Mapping[str, Any],
        search: SearchSpace | None,
        options: Mapping[str, Any],
    ) -> _Parts:
        """The free options go to the search space, the capture and the backend, in this order."""
        of_space = SearchSpace.field_names()
        kind: type[Capture] = type(capture) if isinstance(capture, Capture) else load("captures", capture)
        of_capture = frozenset(kind.option_names()) - of_space
        for_space = {name: value for name, value in options.items() if name in of_space}
        for_capture = {name: value for name, value in options.items() if name in of_capture}
        for_backend = {name: value for name, value in options.items() if name not in of_space | of_capture}
        if search is not None and for_space:
            raise SearchError(f"give search= or its fields, not both: {', '.join(for_space)}")
        engine = _resolve_component(
            "regressors", regressor, Regressor, for_backend, sorted(of_space | of_capture)
        )
        return cls(
            capture=_resolve_component("captures", capture, Capture, for_capture),
            capture_options=for_capture,
            regressor=engine,
            reducer=_resolve_component("reducers", reducer, Reducer, reducer_options),
            search=engine.resolve_search(search or SearchSpace(**for_space)),
        )


def _resolve_component(
    kind: str, given: Any, base: Any, options: Mapping[str, Any], also: Sequence[str] = ()
) -> Any:
    if isinstance(given, base):
        if options:
            raise SearchError(f"{', '.join(options)}: give options to the {given.name} instance itself")
        return given
    if not isinstance(given, str):
        raise SearchError(
            f"{kind} are given by name or as an instance of {base.__name__}, not {type(given).__name__}"
        )
    return load(kind, given).with_options(options, also=also)


def _check_rule(select: str, test_fraction: float) -> None:
    if select not in get_args(SelectionRule):
        raise SelectionError(f"unknown rule {select!r}; there are: {', '.join(get_args(SelectionRule))}")
    if not 0 <= test_fraction < 1:
        raise CaptureError(f"test_fraction must be at least 0 and less than 1, got {test_fraction}")
    if select in HELD_OUT_RULES and test_fraction == 0:
        raise SelectionError(f'the rule "{select}" needs rows held out of the search: give test_fraction > 0')


def _collect(
    block: Any,
    data: Any,
    parent: Callable[..., Any] | None,
    parts: _Parts,
    weights: Any,
    max_rows: int,
    seed: int,
    callbacks: Sequence[Callback],
) -> Activations:
    if callable(block):
        if data is None:
            raise CaptureError("give the data to run the block on: distill(block, data, parent=model)")
        activations = parts.capture.collect(
            block, data, parent=parent, max_rows=max_rows, seed=seed, callbacks=callbacks
        )
        activations = activations if weights is None else activations.with_weights(weights)
    else:
        activations = _take_rows(block, data, parent, parts.capture_options, weights)
    if len(activations) < 2:
        raise CaptureError(
            f"{len(activations)} row is too few to fit anything: give at least 2, better hundreds"
        )
    return activations


def _take_rows(block: Any, data: Any, parent: Any, options: Mapping[str, Any], weights: Any) -> Activations:
    """Activations that came as such, or as an (X, Y) pair of arrays."""
    pair = isinstance(block, (tuple, list)) and len(block) == 2
    if not pair and not isinstance(block, Activations):
        raise CaptureError(
            f"cannot distill a {type(block).__name__}: give a module or function with data, an (X, Y) pair, "
            "or Activations"
        )
    if data is not None or parent is not None:
        raise CaptureError("the rows are given, so there is nothing to run: leave out data and parent")
    idle = set(options) - ({"on_nonfinite"} if pair else set())
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


def _check_columns(outputs: Sequence[int] | None, activations: Activations) -> tuple[int, ...]:
    count = activations.outputs.shape[1]
    if outputs is None:
        return tuple(range(count))
    columns = tuple(int(column) for column in outputs)
    if not columns or len(set(columns)) != len(columns) or any(not 0 <= column < count for column in columns):
        raise SearchError(f"outputs={list(columns)}: give different numbers from 0 to {count - 1}")
    return columns


def _derive(transforms: Transforms, activations: Activations) -> Tensor:
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
    """What the reducer learned, and what is left for the search: inputs and targets of the equations."""
    derived, wanted = _derive(transforms, train), train.outputs[:, list(columns)]
    reduction = reducer.fit(
        derived,
        wanted,
        variable_names=transforms.variable_names,
        weights=train.weights,
        block=function,
        seed=seed,
    )
    Z = reduction.reduce_inputs(derived)
    return reduction, Z, reduction.reduce_targets(wanted, Z)


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
