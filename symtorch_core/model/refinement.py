"""Refinement by gradients of equations in a model: their constants, and the maps around them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import (
    check_data,
    is_pair,
    iterate_batches,
    prepare_batch,
    to_arguments,
)
from symtorch_core.activations.failures import explain_failures
from symtorch_core.activations.hooks import HookCapture
from symtorch_core.activations.rows import Activations
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import (
    check_callbacks,
    check_choice,
    check_flag,
    check_function,
    check_number,
    check_options,
    check_seed,
    check_whole,
)
from symtorch_core.errors import CaptureError, SwitchError
from symtorch_core.events import Callback, progress_bars
from symtorch_core.model.block_wrapper import BlockWrapper
from symtorch_core.model.targets import pair_batches, read_rows, refuse_idle
from symtorch_core.training.descend import allow_gradients, descend
from symtorch_core.training.relative import RelativeAdam
from symtorch_core.training.schedule import cosine_by_epochs

_STAGE = "refine"

ModelLoss = Callable[[Any, Any], Tensor]
"""Loss of the model's result on equations and its result on its blocks (None if a block was released), or targets."""

Targets = Literal["block", "data"]
"""What equations are fitted to: what the block computes, or the second part of each (x, y) pair in the data."""


@final
@dataclass(frozen=True)
class Refinement:
    """Result of a refinement.

    Attributes:
        before, after: loss on held-out data, before and after.
        epochs: number of passes over the data.
        interrupted: whether the user stopped the run; the best constants so far are kept.
        seconds: wall-clock time.
    """

    before: float
    after: float
    epochs: int
    interrupted: bool
    seconds: float

    @property
    def improvement(self) -> float:
        """Share of the held-out loss removed, 1 - after / before."""
        return 1.0 - self.after / self.before if self.before > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"held-out loss {self.before:.6g} -> {self.after:.6g} ({self.improvement:.1%} less) after {self.epochs} "
            f"epochs in {self.seconds:.1f} s{', interrupted' if self.interrupted else ''}"
        )


@explain_calls()
@allow_gradients()
def refine(
    blocks: BlockWrapper | Sequence[BlockWrapper],
    data: Any,
    *,
    parent: Callable[..., Any] | None = None,
    loss: ModelLoss | None = None,
    maps: bool = False,
    epochs: int = 50,
    learning_rate: float = 1e-2,
    patience: int = 8,
    batch_size: int = 256,
    test_fraction: float = 0.2,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    max_rows: int | None = None,
    capture_options: Mapping[str, Any] | None = None,
    targets: Targets | None = None,
) -> Refinement:
    """Fine-tune the constants of equations in use, and on request the reducer's maps; their structure stays fixed.

    Without ``loss``, one block's equations are fitted to the block's own outputs (mean squared error over all
    symbolic outputs). With ``loss``, the whole model runs, on equations and on its blocks, and ``loss(on_equations,
    on_blocks)`` is minimised: a divergence of logits, anything differentiable.

    With ``targets="data"``, they are fitted to measurements instead: ``data`` is a pair (X, Y), or batches (x, y).
    Without ``parent`` and ``loss``, x are inputs of the block and y its outputs. With ``parent``, the model's result on
    x is compared with y, by ``loss(result, y)``, as ``nn.CrossEntropyLoss()``, or the mean squared error by default.

    Steps are relative: a learning rate of 0.01 moves each constant by about 1 % of its size. The best state on
    held-out data is kept, which may be the initial one.

    Args:
        blocks: wrapped blocks in symbolic mode; several at once only with ``loss``.
        data: data for ``parent`` (or the block); with ``loss``, data that can be iterated repeatedly (a tensor, a
            list of batches, a DataLoader).
        parent: the model that calls the blocks; needed if ``loss`` depends on more than the block's own output.
        loss: see above.
        maps: also tune the maps into and out of the equations.
        epochs: largest number of passes over the data.
        learning_rate: relative step (Adam, falling to zero by a cosine).
        patience: number of epochs without a lower held-out loss after which to stop.
        batch_size: rows in a step, if the data are one tensor or rows were captured.
        test_fraction: share of the data held out.
        seed: seed of the shuffles and of the held-out part.
        callbacks: called with each event.
        progress: draw a progress bar in a terminal or a notebook.
        max_rows: largest number of rows captured, without ``loss``; the default is that of
            :func:`symtorch_core.capture`.
        capture_options: options of the capture, such as ``{"select_input": 0}``; without ``loss``.
        targets: ``"data"``: see above. ``"block"``: the second part of (x, y) batches is left out. None refuses them.

    Raises:
        SwitchError: a block does not run on equations, or there is nothing to tune.
        CaptureError: the data give no rows, or too few to hold some out; or they hold targets that would be ignored.
    """
    chosen = [blocks] if isinstance(blocks, BlockWrapper) else _read_blocks(blocks)
    is_tuple_pair = isinstance(data, tuple) and is_pair(data)
    if not is_tuple_pair and not (targets == "data" and isinstance(data, tuple)):
        check_data(data)
    check_function("parent", parent, "the model that calls the blocks", SwitchError, optional=True)
    if targets is not None:
        check_choice("kind of targets", targets, get_args(Targets), SwitchError)
    measured = targets == "data"
    own = loss is None and not (measured and parent is not None)
    _check(chosen, loss, epochs, learning_rate, test_fraction, patience, batch_size, own, measured)
    check_seed(seed, SwitchError)
    for name, value in (("maps", maps), ("progress", progress)):
        check_flag(name, value, SwitchError)
    callbacks = check_callbacks(callbacks, SwitchError)
    options = _read_options(capture_options, max_rows)
    if options and (measured or not own):
        raise CaptureError(
            f"{', '.join(options)}: with loss= or targets='data' nothing is captured, so leave it out"
        )
    if targets == "block" and is_tuple_pair:
        data = data[0]
    elif targets is None:
        data = refuse_idle(data, chosen[0].get_receiver() if parent is None else parent, options)
    with ExitStack() as stack:
        callbacks = [*callbacks, *([stack.enter_context(progress_bars())] if progress else [])]
        if own:
            rows = (
                read_rows(data, chosen[0]) if measured else _capture(chosen[0], data, parent, seed, options)
            )
            cost, parts = _make_own_cost(chosen[0], rows, batch_size)
        else:
            batches = list(pair_batches(data, batch_size) if measured else iterate_batches(data, batch_size))
            cost, parts = _make_model_cost(chosen, batches, parent, loss or _mean_square, measured)
        if len(parts) < 2:
            raise CaptureError(
                f"the data are a single batch (of at most {batch_size} rows), and one more must be held out: give a "
                "smaller batch_size=, or more data"
            )
        order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(seed)).tolist()
        held = min(max(1, round(test_fraction * len(parts))), len(parts) - 1)
        fitted, held_out_parts = [parts[i] for i in order[held:]], [parts[i] for i in order[:held]]
        tuned = stack.enter_context(_make_tunable([b.surrogate for b in chosen if b.surrogate], maps))
        optimizer = RelativeAdam(tuned, learning_rate)
        shuffles = torch.Generator().manual_seed(seed)
        done = descend(
            cost,
            tuned,
            lambda epoch: [fitted[i] for i in torch.randperm(len(fitted), generator=shuffles).tolist()],
            optimizer=optimizer,
            schedule=cosine_by_epochs(optimizer, len(fitted), epochs),
            epochs=epochs,
            judge=lambda: sum(float(cost(part)) for part in held_out_parts) / len(held_out_parts),
            patience=patience,
            stage=_STAGE,
            callbacks=callbacks,
        )
        return Refinement(done.before, done.after, done.epochs, done.interrupted, done.seconds)


def _read_blocks(blocks: Any) -> list[BlockWrapper]:
    listed = list(blocks) if isinstance(blocks, Iterable) and not isinstance(blocks, nn.Module) else [blocks]
    for block in listed:
        if not isinstance(block, BlockWrapper):
            raise SwitchError(f"blocks must be wrapped blocks, as of wrap(), not a {type(block).__name__}")
    return listed


def _read_options(capture_options: Any, max_rows: int | None) -> dict[str, Any]:
    """Return the options of the capture, checked before it runs."""
    options = check_options("capture_options", capture_options, "select_input", SwitchError)
    HookCapture.with_options(options)
    if max_rows is not None:
        check_whole("max_rows", max_rows, 1, SwitchError)
        options["max_rows"] = max_rows
    return options


def _check(
    blocks: Sequence[BlockWrapper],
    loss: ModelLoss | None,
    epochs: int,
    learning_rate: float,
    test_fraction: float,
    patience: int,
    batch_size: int,
    own: bool,
    measured: bool,
) -> None:
    if not blocks:
        raise SwitchError("give at least one wrapped block to refine")
    check_function("loss", loss, "a function of the model's two results", SwitchError, optional=True)
    for block in blocks:
        if block.mode != "symbolic":
            raise SwitchError(f"{block.name} does not run on equations: call switch_to_symbolic() first")
    if own and len(blocks) > 1:
        raise SwitchError(
            "several blocks are refined together only under a loss of the whole model: give loss="
        )
    if own and not measured and blocks[0].released:
        raise SwitchError(
            f"{blocks[0].name} was released: give loss= or targets='data', since there is no block to compare with"
        )
    for name, value in (("epochs", epochs), ("patience", patience), ("batch_size", batch_size)):
        check_whole(name, value, 1, SwitchError)
    check_number("learning_rate", learning_rate, 0, open_low=True, error=SwitchError)
    check_number("test_fraction", test_fraction, 0, 1, open_low=True, open_high=True, error=SwitchError)


def _capture(
    block: BlockWrapper, data: Any, parent: Callable[..., Any] | None, seed: int, options: dict[str, Any]
) -> Activations:
    """Return rows of the block, of the tensors that were distilled."""
    source = block.distillation.provenance.source
    chosen = {"select_input": source.select_input, "select_output": source.select_output} | options
    return block.capture(data, parent=parent, seed=seed, **chosen)


def _make_own_cost(
    block: BlockWrapper, rows: Activations, batch_size: int
) -> tuple[Callable[[Tensor], Tensor], Sequence[Tensor]]:
    """Return the mean squared error against the outputs of these rows, and batches of their numbers for it."""
    surrogate = block.surrogate
    assert surrogate is not None
    device = next(surrogate.parameters()).device
    X = rows.inputs.to(device)
    Y = rows.outputs[:, list(block.distillation.outputs)].to(device)
    positions = [block.distillation.outputs.index(column) for column in block.symbolic_outputs]

    def cost(part: Tensor) -> Tensor:
        return _mean_square(surrogate(X[part])[:, positions], Y[part][:, positions])

    return cost, torch.arange(len(X), device=device).split(batch_size)


def _mean_square(result: Any, target: Any) -> Tensor:
    if not isinstance(result, Tensor) or result.shape != target.shape:
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise CaptureError(
            f"the model gives {shape}, the targets have shape {tuple(target.shape)}: give targets of the same shape, "
            "or a loss of both"
        )
    mean: Tensor = (result - target).double().square().mean()
    return mean


def _make_model_cost(
    blocks: Sequence[BlockWrapper],
    batches: Sequence[Any],
    parent: Callable[..., Any] | None,
    loss: ModelLoss,
    measured: bool,
) -> tuple[Callable[[Any], Tensor], Sequence[Any]]:
    """Return the user's loss of the whole model, against its blocks or the targets in the batches, and the batches."""
    model, takes = (blocks[0], blocks[0].get_receiver()) if parent is None else (parent, parent)
    neural = not measured and not any(block.released for block in blocks)

    def cost(batch: Any) -> Tensor:
        inputs, reference = batch if measured else (batch, None)
        args, kwargs = to_arguments(takes, prepare_batch(inputs, takes, None))
        if measured:
            reference = prepare_batch(reference, takes, None)
        if neural:
            with torch.no_grad(), ExitStack() as stack:
                stack.enter_context(explain_failures(takes, args, kwargs, alone=parent is None))
                for block in blocks:
                    stack.enter_context(block.running("block"))
                reference = model(*args, **kwargs)
        value = loss(model(*args, **kwargs), reference)
        if not isinstance(value, Tensor) or value.ndim != 0:
            raise CaptureError("the loss must give a tensor of one number")
        return value

    def guarded_cost(batch: Any) -> Tensor:
        with preserve_state(model, gradients=torch.is_grad_enabled()):
            return cost(batch)

    return guarded_cost, batches


@contextmanager
def _make_tunable(surrogates: Sequence[Any], maps: bool) -> Iterator[list[nn.Parameter]]:
    """Yield the parameters to tune, which receive gradients inside the context; flags are restored afterwards."""
    parameters = list(itertools.chain.from_iterable(surrogate.parameters() for surrogate in surrogates))
    flags = [parameter.requires_grad for parameter in parameters]
    try:
        for surrogate in surrogates:
            surrogate.trainable(True, maps=maps)
        tuned = [parameter for parameter in parameters if parameter.requires_grad and parameter.numel()]
        if not tuned:
            raise SwitchError(
                "these equations have no constants to tune; maps=True tunes the maps around them"
            )
        yield tuned
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = None
