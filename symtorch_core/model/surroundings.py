"""What surrounds a wrapped block: whether its model, on equations, computes what they explain."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from symtorch_core.activations.rows import Source
from symtorch_core.activations.state_guard import take_turns
from symtorch_core.activations.watching import identify_thread, watch_calls
from symtorch_core.events import Callback, Event, StageFinished, StageStarted
from symtorch_core.surrogates.running import Replacement
from symtorch_core.verification.whole_model import run_model, substitute

_ROUNDING: Final = 1e-2
"""Largest difference between runs that agree, relative to the spread of the output."""


@final
@dataclass(frozen=True)
class Surroundings:
    """Findings about a block and its model.

    Attributes:
        obstacle: why the model cannot run on the equations; None if it can.
        remark: what will not run on equations although the rest does; None if there is nothing.
    """

    obstacle: str | None = None
    remark: str | None = None


@final
@dataclass
class Calls:
    """Number of calls of a block by its model.

    Attributes:
        through: calls through the wrapper.
        around: runs of the block's ``forward`` by other ways.
    """

    through: int = 0
    around: int = 0
    _inside: int = 0  # calls of the wrapper that have not returned

    def enter(self, *_: object) -> None:
        """Count a call of the wrapper."""
        self._inside += 1
        self.through += 1

    def leave(self, *_: object) -> None:
        """Note that a call of the wrapper returned."""
        self._inside -= 1

    def run(self) -> None:
        """Count a run of the block."""
        self.around += self._inside == 0


def call_after_capture(function: Callable[[], None]) -> Callback:
    """Return a callback that calls a function in this thread once the capture of a distillation is over."""
    thread = identify_thread()

    def notice(event: Event) -> None:
        finished = isinstance(event, StageFinished) and event.stage == "capture"
        later = isinstance(event, StageStarted) and event.stage != "capture"  # a capture may report nothing
        if (finished or later) and identify_thread() == thread:
            function()

    return notice


@contextmanager
def count_calls(wrapper: nn.Module, block: nn.Module) -> Iterator[Calls]:
    """Count this thread's calls of a block, also those that no hook sees because they call ``forward``.

    Two such contexts must not overlap, see :func:`take_turns`.
    """
    calls = Calls()
    with watch_calls(wrapper, calls.enter, calls.leave), _patch_forward(block, calls.run):
        yield calls


@contextmanager
def _patch_forward(block: nn.Module, notice: Callable[[], None]) -> Iterator[None]:
    if isinstance(block, torch.jit.ScriptModule):  # its forward is not Python's
        yield
        return
    forward, own = block.forward, "forward" in vars(block)
    thread = identify_thread()

    @functools.wraps(forward)
    def counted(*args: Any, **kwargs: Any) -> Any:
        if identify_thread() == thread:
            notice()
        return forward(*args, **kwargs)

    block.forward = counted
    try:
        yield
    finally:
        if own:
            block.forward = forward
        else:
            del block.forward


def inspect_source(source: Source) -> Surroundings:
    """Return what the capture alone says about a block, with no model to run."""
    if not source.changed_inputs:
        return Surroundings()
    return Surroundings(
        f"{source.block} changes its argument {', '.join(source.changed_inputs)} in place, which equations do not do; "
        "make it work on a copy (x.clone()), or distill it with parent=, so that the model shows whether this matters"
    )


def inspect_model(
    model: Callable[..., Any],
    block: nn.Module,
    calls: Calls,
    on_equations: AbstractContextManager[None],
    replacement: Replacement,
    batch: Any,
) -> Surroundings:
    """Compare a model on equations with the model on its block whose outputs are replaced by the same equations.

    The two agree unless the equations' values do not reach the model, or the block does something that the model
    needs besides returning a value.

    Args:
        model: the model, which calls the block through its wrapper.
        block: the block.
        calls: the model's calls of the block while it was captured.
        on_equations: context in which the wrapper runs on the equations.
        replacement: the equations.
        batch: a batch, prepared for the model; None skips the comparison.
    """
    if calls.through == 0:
        return Surroundings(
            f"its model never calls this wrapper ({calls.around} calls of the block go round it), so that nothing "
            "would change. Put the wrapper into the model, as st.wrap(model, path) does, and give it these equations "
            "by adopt(result); or wrap the module whose methods call forward()"
        )
    if calls.around:
        total = calls.through + calls.around
        return Surroundings(
            remark=f"{calls.around} of {total} calls by its model go round this wrapper and stay neural: they call a "
            "method of the block, or the block itself"
        )
    if batch is None:
        return Surroundings()
    with substitute(block, replacement):
        explained = run_model(model, batch)
    try:
        with on_equations:
            found = run_model(model, batch)
    except Exception as error:  # whatever the model does with what it needs and does not get
        return Surroundings(f"its model fails on them: {error}")
    if explained is None or found is None or _agree(found, explained):
        return Surroundings()
    if not _repeats(model, batch):
        return Surroundings()
    source = replacement.source
    besides = [f"changes its argument {path} in place" for path in source.changed_inputs]
    besides += [f"sets its attribute {name}" for name in source.set_attributes]
    return Surroundings(
        "with them, the model's output differs from what they explain "
        f"(by {_compare(found, explained):.2g} of its spread): {source.block} does something that the model needs "
        f"besides returning a value. {'It ' + ' and '.join(besides) + '. ' if besides else ''}"
        "Wrap the module around it, or make it return what the model needs"
    )


def _repeats(model: Callable[..., Any], batch: Any) -> bool:
    """Whether a model gives the same output twice, also from another random state."""
    first = run_model(model, batch)
    with take_turns(), torch.random.fork_rng():
        torch.rand(1)
        second = run_model(model, batch)
    return first is not None and second is not None and _agree(first, second)


def _agree(one: Tensor, other: Tensor) -> bool:
    return _compare(one, other) <= _ROUNDING


def _compare(one: Tensor, other: Tensor) -> float:
    """Return the root mean square of a difference over the spread of ``other``; infinity for different shapes."""
    if one.shape != other.shape:
        return float("inf")
    one, other = (torch.nan_to_num(part.double()) for part in (one, other))
    spread = float((other - other.mean()).square().mean().sqrt()) or float(other.abs().max()) or 1.0
    return float((one - other).square().mean().sqrt()) / spread
