"""Capture: run a model on data and keep the inputs and outputs of its blocks."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from symtorch_core.activations.batches import (
    RowMask,
    check_data,
    count_batches,
    get_row_mask,
    iterate_batches,
    prepare_batch,
    to_arguments,
)
from symtorch_core.activations.failures import explain_failures
from symtorch_core.activations.frames import Column, check_complete, is_frame, name_variables, read_columns
from symtorch_core.activations.meta_guard import refuse_meta
from symtorch_core.activations.reservoir import Reservoir
from symtorch_core.activations.rows import Activations, check_on_nonfinite
from symtorch_core.activations.side_effects import copy_tensors, list_set_attributes, snapshot_attributes
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.activations.tensor_paths import (
    Selector,
    check_selector,
    collect_call_tensors,
    get_argument_aliases,
    holds_arrays,
    list_choices,
)
from symtorch_core.activations.watching import watch_calls
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import (
    check_callbacks,
    check_function,
    check_names,
    check_seed,
    check_whole,
)
from symtorch_core.components.options import Configurable
from symtorch_core.errors import CaptureError, find_close
from symtorch_core.events.records import (
    Callback,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Stopwatch,
    notify,
)

DEFAULT_MAX_ROWS = 20_000
"""Default number of rows kept of a block; far more than a search uses."""
_DEFAULT_MASK = "attention_mask"


class Capture(Configurable):
    """Method that collects the activations of a block; an instance holds the options of its capture."""

    @abstractmethod
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
        """Run ``parent`` (or the block itself) on the data and keep at most ``max_rows`` rows of the block.

        Args:
            block: a module, or any function of tensors or arrays.
            data: see :func:`capture`.
            parent: the model that calls the block; None feeds the data to the block itself.
            max_rows: number of rows kept, a uniform seeded sample.
            seed: same seed, same rows.
            callbacks: called with each event.

        Raises:
            CaptureError: the block gave no rows, or they are not usable.
        """


@final
@dataclass(frozen=True)
class HookCapture(Capture):
    """Capture with forward hooks on modules; functions are called directly.

    Attributes:
        select_input: the input tensors of a call: a position, the name of an argument (however the model passes it),
            a path like ``"1.0"``, or a sequence of them, concatenated along the last dimension. None: the only
            floating-point tensor.
        select_output: the output tensor of the result: a position, key or path. None: the first
            floating-point tensor.
        row_mask: the rows to keep: the key of a dict batch (an attention mask; ignored if the batch has no such key),
            or a function of the batch that returns a boolean tensor of the leading shape. None: all.

            If several blocks are captured, each of these three may be a dictionary from a block's name to its own
            choice; blocks that it leaves out have the default.
        on_nonfinite: ``"raise"``, or ``"drop"`` rows with NaN or infinite values.
        batch_size: rows per forward pass if the data are one tensor or array.
        device: device that batches are moved to; None for the device of the model's first parameter.
    """

    name: ClassVar[str] = "hooks"
    select_input: Selector | Mapping[str, Selector] = None
    select_output: Selector | Mapping[str, Selector] = None
    row_mask: RowMask | Mapping[str, RowMask] = _DEFAULT_MASK
    on_nonfinite: str = "raise"
    batch_size: int = 1024
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1, CaptureError)
        check_on_nonfinite(self.on_nonfinite)
        check_selector("select_input", self.select_input, of_call=True)
        check_selector("select_output", self.select_output, of_call=False)
        _check_row_mask(self.row_mask)
        _check_device(self.device)

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
        model = block if parent is None else parent
        name = _find_name(block, model)
        return self.collect_all(
            model, {name: block}, data, max_rows=max_rows, seed=seed, callbacks=callbacks
        )[name]

    def collect_all(
        self,
        model: Callable[..., Any],
        blocks: Mapping[str, Callable[..., Any]] | Sequence[str],
        data: Any,
        *,
        max_rows: int = DEFAULT_MAX_ROWS,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> dict[str, Activations]:
        """Capture several blocks of one model in one pass; see :func:`capture`."""
        check_whole("max_rows", max_rows, 1, CaptureError)
        check_seed(seed, CaptureError)
        callbacks = check_callbacks(callbacks, CaptureError)
        check_function("model", model, "a module or a function", CaptureError)
        check_data(data)
        if is_frame(data) and self.on_nonfinite == "raise":
            check_complete(data, "fill them in, or leave those rows out, as frame.dropna() does")
        watched = _resolve(model, blocks)
        inputs = _spread(watched, "select_input", self.select_input, None)
        outputs = _spread(watched, "select_output", self.select_output, None)
        row_masks = _spread(watched, "row_mask", self.row_mask, _DEFAULT_MASK)
        recorders = {
            name: Reservoir(
                name,
                inputs[name],
                outputs[name],
                self.on_nonfinite,
                max_rows,
                seed,
                get_argument_aliases(block),
            )
            for name, block in watched.items()
        }
        watch = Stopwatch()
        notify(callbacks, StageStarted("capture", count_batches(data, self.batch_size)))
        masks: dict[str, Tensor | None] = {}
        columns: tuple[Column, ...] = ()
        with ExitStack() as stack:
            stack.enter_context(preserve_state(model, *watched.values()))
            stack.enter_context(avoid_fused_attention(model))
            stack.enter_context(refuse_meta(model))
            functions = [name for name, block in watched.items() if not isinstance(block, nn.Module)]
            for name, block in watched.items():
                if isinstance(block, nn.Module):
                    stack.enter_context(_record_calls(block, recorders[name], masks, name))
            attributes = {name: snapshot_attributes(block) for name, block in watched.items()}
            for batch in iterate_batches(data, self.batch_size):
                columns = _read_columns(batch, columns)
                batch = prepare_batch(batch, model, self.device)
                masks.update({name: get_row_mask(batch, row_masks[name]) for name in watched})
                args, kwargs = to_arguments(model, batch)
                tensors = copy_tensors(collect_call_tensors(args, kwargs)) if functions else {}
                with explain_failures(
                    model, args, kwargs, alone=any(block is model for block in watched.values())
                ):
                    result = _run(model, args, kwargs)
                for name in functions:
                    recorders[name].arrays |= holds_arrays((args, kwargs))
                    recorders[name].add(tensors, result, masks[name], collect_call_tensors(args, kwargs))
                notify(callbacks, StageAdvanced("capture"))
            changed = {name: list_set_attributes(block, attributes[name]) for name, block in watched.items()}
        notify(callbacks, StageFinished("capture", watch.seconds()))
        found = {name: recorder.finish(changed[name]) for name, recorder in recorders.items()}
        return {
            name: _name_columns(rows, columns if watched[name] is model else ())
            for name, rows in found.items()
        }


def _read_columns(batch: Any, before: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the columns of a batch that is a data frame, or begins with one; none of another."""
    first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not is_frame(first):
        return ()
    columns = read_columns(first)
    if before and [column.label for column in columns] != [column.label for column in before]:
        raise CaptureError(
            "the data frames have different columns: give all of them the same, in the same order, as "
            "frame[names] does"
        )
    return columns


def _run(model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return model(*args, **kwargs)
    except Exception as error:
        if any(map(is_frame, args)):
            error.add_note(
                "The function was given a data frame, as the data are one. If it takes arrays, give frame.to_numpy()"
            )
        raise


def _name_columns(rows: Activations, columns: tuple[Column, ...]) -> Activations:
    """Return rows with the names of the columns that they are, if they are these columns."""
    if rows.source.select_input != ("0",) or rows.inputs.shape[1] != len(columns):
        return rows
    return replace(rows, input_names=name_variables(columns), source=replace(rows.source, columns=columns))


def _spread(blocks: Iterable[str], option: str, value: Any, default: Any) -> dict[str, Any]:
    """Return an option's value for each block; a mapping has values of its own for some of them."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(blocks, value)
    names = list(blocks)
    for name in value:
        if name not in names:
            raise CaptureError(
                f"{option} names the block {name!r}, which is not captured; these are: {', '.join(names)}"
            )
    return {name: value.get(name, default) for name in names}


@explain_calls(also=HookCapture.option_names())
def capture(
    model: Callable[..., Any],
    blocks: Mapping[str, Callable[..., Any]] | Sequence[str],
    data: Any,
    *,
    max_rows: int = DEFAULT_MAX_ROWS,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> dict[str, Activations]:
    """Return the activations of several blocks of one model from ONE pass over the data.

    The model runs without gradients and in evaluation mode, and is left exactly as it was: training flags,
    hooks, gradients, buffers, and the random state of torch, numpy and Python. Every call of a block counts,
    and any leading shape is flattened to rows.

    Captures in several threads take turns, whatever their models: evaluation mode and random states belong to all
    threads. Other threads may call the model meanwhile (they see it in evaluation mode; their calls give no rows),
    but not train it. A callback or an iterable of data must not wait for another thread's capture.

    Args:
        model: a module or function that runs the blocks.
        blocks: modules by a name of your choice, or paths like ``"layers.7.mlp"`` into the model.
        data: a tensor, array or data frame, a DataLoader, or any iterable of batches; a batch is a tensor, array or
            data frame (the one argument), a tuple or list (positional arguments) or a dict (keyword arguments).
            Arguments that the model's ``forward`` does not have (the labels of a DataLoader) are left out. If it has
            one that must not be filled, give a generator: ``(x for x, y in loader)``. A module is given the numbers of
            a data frame, a function the data frame itself; its columns name the inputs.
        max_rows: number of rows kept of each block, a uniform sample of all rows; it does not depend on how the
            data are cut into batches.
        seed: seed of that sample.
        callbacks: called with each event.
        **options: fields of :class:`HookCapture`.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> capture(net, ["1"], torch.ones(10, 3))["1"].outputs.shape
    torch.Size([10, 4])

    Raises:
        CaptureError: the data are empty, or a block was never called, or gave no usable tensors or non-finite
            values.
        ArgumentError: an option is unknown.
    """
    hooks = HookCapture.with_options(options)
    return hooks.collect_all(model, blocks, data, max_rows=max_rows, seed=seed, callbacks=callbacks)


def _check_row_mask(row_mask: Any) -> None:
    for mask in list_choices("row_mask", row_mask):
        if not isinstance(mask, str):
            what = "the key of a mask in a batch, or a function of the batch"
            check_function("row_mask", mask, what, CaptureError, optional=True)


def _check_device(device: Any) -> None:
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (
        AssertionError,
        RuntimeError,
        TypeError,
    ) as error:  # an assertion where torch was built without it
        raise CaptureError(f"device={device!r} names no device: {error}") from None


def _resolve(
    model: Callable[..., Any], blocks: Mapping[str, Callable[..., Any]] | Sequence[str]
) -> dict[str, Callable[..., Any]]:
    if isinstance(blocks, str) or not isinstance(blocks, Iterable):
        raise CaptureError(f"blocks takes a list of paths, like [{blocks!r}], or a dict of modules")
    if isinstance(blocks, Mapping):
        resolved = dict(blocks)
    elif isinstance(model, nn.Module):
        resolved = {path: find_block(model, path) for path in check_names("blocks", blocks, CaptureError)}
    else:
        raise CaptureError(
            "paths name submodules of a module: give blocks as a dict of modules for a function"
        )
    if not resolved:
        raise CaptureError("blocks names no block to capture")
    for name, block in resolved.items():
        check_function(f"block {name!r}", block, "a module", CaptureError)
        if not isinstance(block, nn.Module) and block is not model:
            raise CaptureError(
                f"block {name!r} is a plain function: only a module can be watched inside a model"
            )
        check_runs(block, name)
    return resolved


@explain_calls()
def find_block(model: nn.Module, path: str) -> nn.Module:
    """Return the submodule at a dotted path.

    Raises:
        CaptureError: there is no such submodule; the message lists the closest paths.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"model must be a module, whose submodules have paths, not a {type(model).__name__}"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    if not isinstance(path, str):
        raise CaptureError(f"path must be the dotted path of a submodule, {_find_meant(modules, path)}")
    if path in modules:
        found: nn.Module = modules[path]
        return found
    close = find_close(path, modules, most=5, cutoff=0.3) or [p for p in modules if p][:10]
    raise CaptureError(f"the model has no submodule {path!r}. Close: {', '.join(close)}")


def _find_meant(modules: Mapping[str, nn.Module], given: Any) -> str:
    """Return the end of a message about what is no path: the path that is meant."""
    if isinstance(given, nn.Module):
        kind = type(given).__name__
        path = next((path for path, module in modules.items() if module is given and path), None)
        return f"not a {kind}, which the model does not have" if path is None else f"of this {kind}: {path!r}"
    return f"as text: {str(given)!r}" if str(given) in modules else f"like 'layers.0', not {given!r}"


def check_runs(block: Callable[..., Any], name: str, error: type[Exception] = CaptureError) -> None:
    """Refuse a module that has no ``forward``, such as a ModuleList, whose entries are called one by one."""
    if isinstance(block, nn.Module) and getattr(type(block), "forward", None) is nn.Module.forward:
        entries = [f"{name}.{key}" for key, _ in block.named_children()]
        raise error(
            f"{name} is a {type(block).__name__}, which is never called itself: the model calls its entries. Take one "
            f"of them: {', '.join(entries[:5]) or 'it has none'}{', ...' if len(entries) > 5 else ''}"
        )


def _find_name(block: Callable[..., Any], model: Callable[..., Any]) -> str:
    """Return the block's path in the model, or a name of its own."""
    paths = model.named_modules() if isinstance(model, nn.Module) else ()
    return next((path for path, module in paths if module is block and path), name_block(block))


def name_block(block: Callable[..., Any]) -> str:
    """Return the type of a module; the name of a function or method, that of its owner before a method's."""
    if inspect.ismethod(block):
        owner = block.__self__ if inspect.isclass(block.__self__) else type(block.__self__)
        return f"{owner.__name__}.{block.__name__}"
    if inspect.isroutine(block):
        return "function" if block.__name__ == "<lambda>" else block.__name__
    return type(block).__name__


def avoid_fused_attention(model: Callable[..., Any]) -> AbstractContextManager[object]:
    """Return a context without PyTorch's fused attention, which uses its children's weights without calling them."""
    fused = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
    none = isinstance(model, nn.Module) and not any(isinstance(m, fused) for m in model.modules())
    return nullcontext() if none else _Overriding()


@final
class _Overriding(TorchFunctionMode):
    """Context in which operations may be overridden, in this thread: torch then leaves out what is fused."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def _record_calls(
    block: nn.Module, recorder: Reservoir, masks: Mapping[str, Tensor | None], name: str
) -> AbstractContextManager[None]:
    entered: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # a stack: a block may call itself

    def before(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder.arrays |= holds_arrays((args, kwargs))
        given = collect_call_tensors(args, kwargs)
        entered.append((copy_tensors(given), given))

    def after(result: Any) -> None:
        copies, given = entered.pop()
        recorder.add(copies, result, masks[name], given)

    return watch_calls(block, before, after)
