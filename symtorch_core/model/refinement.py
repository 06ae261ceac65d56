"""Refinement by gradients of equations in a model: their constants, and the maps around them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import check_data, iterate_batches, prepare_batch, to_arguments
from symtorch_core.activations.hooks import HookCapture
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.components.checks import (
    check_callbacks,
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
from symtorch_core.training.descend import allow_gradients, descend
from symtorch_core.training.schedule import cosine_by_epochs

_STAGE = "refine"
_SMALLEST_STEP = 1e-2
"""Constants far smaller than the largest move as if they were this share of it."""

ModelLoss = Callable[[Any, Any], Tensor]
"""Loss of the model's result on equations and its result on its blocks (None if a block was released)."""


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
) -> Refinement:
    """Fine-tune the constants of equations in use, and on request the reducer's maps; their structure stays fixed.

    Without ``loss``, one block's equations are fitted to the block's own outputs (mean squared error over all
    symbolic outputs). With ``loss``, the whole model runs, on equations and on its blocks, and ``loss(on_equations,
    on_blocks)`` is minimised: a divergence of logits, a loss with labels, anything differentiable.

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

    Raises:
        SwitchError: a block does not run on equations, or there is nothing to tune.
        CaptureError: the data give no rows, or too few to hold some out.
    """
    chosen = [blocks] if isinstance(blocks, BlockWrapper) else _read_blocks(blocks)
    check_data(data)
    check_function("parent", parent, "the model that calls the blocks", SwitchError, optional=True)
    _check(chosen, loss, epochs, learning_rate, test_fraction, patience, batch_size)
    check_seed(seed, SwitchError)
    for name, value in (("maps", maps), ("progress", progress)):
        check_flag(name, value, SwitchError)
    callbacks = check_callbacks(callbacks, SwitchError)
    options = _read_options(capture_options, max_rows)
    with ExitStack() as stack:
        callbacks = [*callbacks, *([stack.enter_context(progress_bars())] if progress else [])]
        if loss is None:
            cost, parts = _make_own_cost(chosen[0], data, parent, batch_size, seed, options)
        else:
            cost, parts = _make_model_cost(chosen, data, parent, loss, batch_size, options)
        if len(parts) < 2:
            raise CaptureError("the data are a single batch: give at least two, so that one can be held out")
        order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(seed)).tolist()
        held = min(max(1, round(test_fraction * len(parts))), len(parts) - 1)
        fitted, held_out_parts = [parts[i] for i in order[held:]], [parts[i] for i in order[:held]]
        tuned = stack.enter_context(_make_tunable([b.surrogate for b in chosen if b.surrogate], maps))
        optimizer = _RelativeAdam(tuned, learning_rate)
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
) -> None:
    if not blocks:
        raise SwitchError("give at least one wrapped block to refine")
    check_function("loss", loss, "a function of the model's two results", SwitchError, optional=True)
    for block in blocks:
        if block.mode != "symbolic":
            raise SwitchError(f"{block.name} does not run on equations: call switch_to_symbolic() first")
    if loss is None and len(blocks) > 1:
        raise SwitchError(
            "several blocks are refined together only under a loss of the whole model: give loss="
        )
    if loss is None and blocks[0].released:
        raise SwitchError(
            f"{blocks[0].name} was released: give loss=, since there is no block to compare with"
        )
    for name, value in (("epochs", epochs), ("patience", patience), ("batch_size", batch_size)):
        check_whole(name, value, 1, SwitchError)
    check_number("learning_rate", learning_rate, 0, open_low=True, error=SwitchError)
    check_number("test_fraction", test_fraction, 0, 1, open_low=True, open_high=True, error=SwitchError)


def _make_own_cost(
    block: BlockWrapper,
    data: Any,
    parent: Callable[..., Any] | None,
    batch_size: int,
    seed: int,
    options: dict[str, Any],
) -> tuple[Callable[[Tensor], Tensor], Sequence[Tensor]]:
    """Return the mean squared error against the block's own outputs, and batches of captured rows for it."""
    source = block.distillation.provenance.source
    chosen = {"select_input": source.select_input, "select_output": source.select_output} | options
    activations = block.capture(data, parent=parent, seed=seed, **chosen)
    surrogate = block.surrogate
    assert surrogate is not None
    device = next(surrogate.parameters()).device
    X = activations.inputs.to(device)
    Y = activations.outputs[:, list(block.distillation.outputs)].to(device)
    positions = [block.distillation.outputs.index(column) for column in block.symbolic_outputs]

    def cost(rows: Tensor) -> Tensor:
        error = surrogate(X[rows])[:, positions] - Y[rows][:, positions]
        mean: Tensor = error.double().square().mean()
        return mean

    return cost, torch.arange(len(X), device=device).split(batch_size)


def _make_model_cost(
    blocks: Sequence[BlockWrapper],
    data: Any,
    parent: Callable[..., Any] | None,
    loss: ModelLoss,
    batch_size: int,
    options: dict[str, Any],
) -> tuple[Callable[[Any], Tensor], Sequence[Any]]:
    """Return the user's loss of the whole model, and batches of its data."""
    if options:
        raise CaptureError(f"{', '.join(options)}: with loss= nothing is captured, so leave it out")
    model, takes = (blocks[0], blocks[0].get_receiver()) if parent is None else (parent, parent)
    neural = not any(block.released for block in blocks)

    def cost(batch: Any) -> Tensor:
        args, kwargs = to_arguments(takes, prepare_batch(batch, takes, None))
        reference = None
        if neural:
            with torch.no_grad(), ExitStack() as stack:
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

    return guarded_cost, list(iterate_batches(data, batch_size))


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


@final
class _RelativeAdam(torch.optim.Adam):
    """Adam on the relative change of every number, so that one learning rate suits all."""

    def __init__(self, parameters: Sequence[nn.Parameter], learning_rate: float) -> None:
        self._tuned = list(parameters)
        self._start = [parameter.detach().clone() for parameter in parameters]
        self._sizes = [_compute_sizes(value) for value in self._start]
        moves = [torch.zeros_like(value, requires_grad=True) for value in self._start]
        super().__init__(moves, lr=learning_rate)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self._tuned:
            parameter.grad = None

    def step(self, closure: Any = None) -> Any:
        loss = closure()
        moves = self.param_groups[0]["params"]
        for move, parameter, size in zip(moves, self._tuned, self._sizes, strict=True):
            slope = parameter.grad
            move.grad = torch.zeros_like(move) if slope is None else torch.nan_to_num(slope * size)
        super().step()
        with torch.no_grad():
            for parameter, start, size, move in zip(
                self._tuned, self._start, self._sizes, moves, strict=True
            ):
                parameter.copy_(start + size * move)
        return loss


def _compute_sizes(value: Tensor) -> Tensor:
    """Return how far each number moves at a step of one: a constant by its size, a map by the rms of its entries."""
    if value.ndim > 1:
        return torch.full_like(value, float(value.square().mean().sqrt()) or 1.0)
    largest = float(value.abs().max()) or 1.0
    return value.abs().clamp_min(_SMALLEST_STEP * largest)
