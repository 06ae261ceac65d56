"""Pruning of a block's outputs during training, until few are left to explain (SymTorch paper, 4.2 and E.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import check_data, iterate_batches, prepare_batch, to_arguments
from symtorch_core.activations.hooks import PlainAttention
from symtorch_core.activations.rows import as_feature_rows
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.activations.tensor_paths import flatten_tensors, pick_tensor, replace_tensor
from symtorch_core.activations.watching import watch_calls
from symtorch_core.components.checks import (
    check_choice,
    check_function,
    check_number,
    check_seed,
    check_whole,
)
from symtorch_core.errors import CaptureError, FileFormatError, SearchError, SymTorchError
from symtorch_core.model.block_wrapper import BlockWrapper
from symtorch_core.reduction.moments import Moments
from symtorch_core.training.descend import allow_gradients

Schedule = Literal["cosine", "exponential", "linear"]
Importance = Callable[[Tensor], Tensor]
"""Function from outputs of a block, shape (n, d), to their importance, shape (d,): larger is kept longer."""

# From 1 at the start to 0 at the end; exponential means equal factors, not equal steps.
_SCHEDULES: Mapping[str, Callable[[float, int, int], float]] = MappingProxyType(
    {
        "cosine": lambda p, start, end: end + (start - end) * 0.5 * (1 + math.cos(math.pi * p)),
        "exponential": lambda p, start, end: start * (end / start) ** p,
        "linear": lambda p, start, end: start + (end - start) * p,
    }
)
_EXPLAINED = 0.95
_WHOLE = 1e-9


def count_active_outputs(
    step: int,
    outputs: int,
    target_dim: int,
    total_steps: int,
    schedule: str = "cosine",
    end_fraction: float = 0.65,
) -> int:
    """Return the number of active outputs after ``step`` steps.

    Args:
        step: number of steps taken, from 0.
        outputs: number of outputs.
        target_dim: number of outputs active at the end.
        total_steps: number of steps of the training.
        schedule: ``"cosine"``, ``"exponential"`` or ``"linear"``.
        end_fraction: share of the training after which ``target_dim`` is reached, 0..1.

    >>> [count_active_outputs(step, 32, 2, 100) for step in (0, 20, 40, 64, 65, 100)]
    [32, 26, 12, 3, 2, 2]
    """
    last = max(1, math.ceil(end_fraction * total_steps))
    if step >= last:
        return target_dim
    share = _SCHEDULES[schedule](step / last, outputs, target_dim)
    return min(outputs, max(target_dim, math.ceil(share - _WHOLE)))


def measure_spread(outputs: Tensor) -> Tensor:
    """Return the standard deviation of each output, shape (d,), of rows (n, d): the paper's importance."""
    return outputs.double().std(dim=0, correction=0)


def measure_principal_share(outputs: Tensor) -> Tensor:
    """Return each output's share of the variance in the leading principal components, shape (d,), of rows (n, d).

    As many components count as explain 95 % of the variance, so an output with noise of its own counts little,
    however large the noise.
    """
    covariance = Moments.of(outputs, outputs).xx
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1)
    total = values.sum().clamp_min(1e-300)
    count = int((values.cumsum(0) / total < _EXPLAINED - _WHOLE).sum()) + 1
    shares: Tensor = (vectors[:, :count].square() * values[:count]).sum(1) / total
    return shares


_IMPORTANCES: Mapping[str, Importance] = MappingProxyType(
    {"std": measure_spread, "pca": measure_principal_share}
)


def _get_importance(by: str | Importance, names: Iterable[str]) -> Importance:
    """Return an importance by name, or the given function; ``names`` are the names the caller accepts."""
    measure = _IMPORTANCES.get(by) if isinstance(by, str) else by
    if not callable(measure):
        known = ", ".join(map(repr, names))
        raise SearchError(f"unknown importance {by!r}: give {known}, or a function of outputs (n, d)")
    return measure


def _measure(importance: Importance, outputs: Tensor) -> Tensor:
    measured = importance(outputs)
    shape = (outputs.shape[1],)
    if (
        not isinstance(measured, Tensor)
        or measured.shape != shape
        or not bool(torch.isfinite(measured).all())
    ):
        raise CaptureError(
            f"the importance must give a tensor of {shape[0]} finite numbers, one for each output"
        )
    return measured


def _check_wrapped(block: Any) -> None:
    if not isinstance(block, BlockWrapper):
        raise SearchError(f"block must be a wrapped block, as of wrap(), not a {type(block).__name__}")


_STATE = ("steps_taken", "target_dim", "total_steps", "schedule", "end_fraction")


def _check_plan(
    target_dim: int,
    total_steps: int,
    schedule: str,
    end_fraction: float,
    error: type[SymTorchError] = SearchError,
) -> None:
    check_choice("schedule", schedule, _SCHEDULES, error)
    check_whole("target_dim", target_dim, 1, error)
    check_whole("total_steps", total_steps, 1, error)
    check_number("end_fraction", end_fraction, 0, 1, open_low=True, error=error)


@final
class OutputPruner:
    """Pruner that zeroes a block's least important outputs step by step, until ``target_dim`` are left.

    Call :meth:`step` once for each training step, with a sample of the block's inputs, or of those of the model around
    it. The mask lives in the block (:attr:`SymbolicModel.output_mask`): it moves, saves and compiles with it, and a
    pruned output is exactly zero, in symbolic mode too. A pruned output stays pruned. :meth:`state_dict` has what a
    training needs to continue besides.

    Args:
        block: the wrapped block, in block mode.
        target_dim: number of outputs left at the end.
        total_steps: number of steps of the training.
        schedule: decrease of the number: ``"cosine"``, ``"exponential"`` or ``"linear"``.
        end_fraction: share of the training after which ``target_dim`` is reached.
        importance: ``"std"``, ``"pca"``, or a function of outputs (n, d) that returns (d,).

    >>> from symtorch_core import SymbolicModel
    >>> block = SymbolicModel(nn.Linear(3, 8))
    >>> pruner = OutputPruner(block, target_dim=2, total_steps=10)
    >>> for _ in range(10):
    ...     pruner.step(torch.randn(50, 3))
    >>> pruner.active, int((block(torch.randn(5, 3)) != 0).any(0).sum())
    (2, 2)

    Raises:
        SearchError: a setting is invalid.
    """

    def __init__(
        self,
        block: BlockWrapper,
        target_dim: int,
        total_steps: int,
        schedule: Schedule = "cosine",
        end_fraction: float = 0.65,
        importance: str | Importance = "std",
    ) -> None:
        _check_wrapped(block)
        _check_plan(target_dim, total_steps, schedule, end_fraction)
        self.block, self.target_dim, self.total_steps = block, target_dim, total_steps
        self.schedule, self.end_fraction = schedule, end_fraction
        self._importance = _get_importance(importance, _IMPORTANCES)
        self.steps_taken = 0

    @property
    def active(self) -> int | None:
        """Number of active outputs; None before the first step, when the number of outputs is unknown."""
        mask = self.block.output_mask
        return None if mask is None else int(mask.sum())

    @property
    def done(self) -> bool:
        """Whether only ``target_dim`` outputs are left."""
        return self.active == self.target_dim

    def state_dict(self) -> dict[str, Any]:
        """Return the steps taken and the plan, as plain data; the mask is in the block's own state_dict."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`: all of it, or nothing changes. Load the block's state as well.

        The importance stays that of this pruner.

        Raises:
            FileFormatError: the state is not of a pruner, or damaged.
        """
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(_STATE):
            raise FileFormatError(f"the state of a pruner has the entries {', '.join(_STATE)}")
        state = dict(state_dict)
        steps_taken = state.pop("steps_taken")
        _check_plan(**state, error=FileFormatError)
        check_whole("steps_taken", steps_taken, 0, FileFormatError)
        vars(self).update(state, steps_taken=steps_taken)

    def step(self, sample: Any, *, parent: Callable[..., Any] | None = None) -> None:
        """Take one step of the schedule.

        Args:
            sample: input of the block (or of ``parent``), as its one argument, a tuple of arguments, or a dict of
                keyword arguments; any leading shape. Ranking runs the block on it in evaluation mode, without
                gradients or side effects.
            parent: the model that calls the block.

        Raises:
            CaptureError: the outputs cannot be ranked (fewer than two rows, or not finite), or the parent never calls
                the block; nothing is pruned then.
            SearchError: the block has fewer outputs than ``target_dim``.
        """
        check_function("parent", parent, "the model that calls the block", optional=True)
        several = isinstance(sample, (tuple, list, Mapping))
        if (several and not sample) or not (several or isinstance(sample, (Tensor, np.ndarray))):
            raise CaptureError(
                f"sample must be an input of the block, as a tensor, a tuple or a dict, not {sample!r}"
            )
        outputs = self._compute_outputs(sample, parent)
        mask = self.block.output_mask
        if mask is None:
            mask = torch.ones(outputs.shape[1], dtype=torch.bool, device=outputs.device)
        if self.target_dim > len(mask):
            raise SearchError(f"target_dim is {self.target_dim}, but the block has {len(mask)} outputs")
        target = count_active_outputs(
            self.steps_taken + 1,
            len(mask),
            self.target_dim,
            self.total_steps,
            self.schedule,
            self.end_fraction,
        )
        if target < int(mask.sum()) or self.block.output_mask is None:
            importance = _measure(self._importance, outputs).to(mask.device)
            # Outputs already pruned come last, whatever their importance.
            ranked = importance.double().masked_fill(~mask, -torch.inf)
            kept = torch.zeros_like(mask)
            kept[ranked.argsort(descending=True, stable=True)[: min(target, int(mask.sum()))]] = True
            self.block.prune_outputs(kept)
        self.steps_taken += 1

    def _compute_outputs(self, sample: Any, parent: Callable[..., Any] | None) -> Tensor:
        block, seen = self.block.block, []
        model = block if parent is None else parent

        def keep(result: Any) -> None:
            _, tensor = pick_tensor(flatten_tensors(result), None, f"the result of {self.block.name}")
            seen.append(as_feature_rows(tensor).clone())  # before the model changes it in place

        with (
            self.block.running("block"),
            preserve_state(model, self.block),
            PlainAttention(),
            watch_calls(block, lambda args, kwargs: None, keep),
        ):
            args, kwargs = to_arguments(model, prepare_batch(sample, model, None))
            model(*args, **kwargs)
        if not seen:
            raise CaptureError(f"parent never called {self.block.name}: pass the model that calls it")
        rows = torch.cat(seen)
        if len(rows) < 2:
            raise CaptureError(
                f"{len(rows)} row is too few to rank outputs: give a sample of at least 2, ideally hundreds"
            )
        if not bool(torch.isfinite(rows).all()):
            raise CaptureError("the block's outputs are not finite on this sample, so they cannot be ranked")
        return rows


@final
@dataclass(frozen=True)
class Ranking:
    """Ranking of a block's outputs by importance.

    Attributes:
        order: output columns, the most important first, without pruned ones.
        importance: importance of each output, in column order, shape (d,).
    """

    order: tuple[int, ...]
    importance: Tensor


@allow_gradients()
def rank_outputs(
    block: BlockWrapper,
    data: Any,
    by: str | Importance = "std",
    *,
    parent: Callable[..., Any] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    max_rows: int = 20_000,
    seed: int = 0,
    batch_size: int = 1024,
) -> Ranking:
    """Rank the outputs of a block by importance.

    Args:
        block: a wrapped block.
        data: data for ``parent`` (or the block).
        by: ``"std"``, the standard deviation (the paper's); ``"pca"``, the share in the leading principal components;
            ``"gradient"``, the mean of |output x slope of the task loss|, which is to first order the loss incurred
            without the output; or a function of outputs (n, d).
        parent: the model that calls the block.
        loss: for ``"gradient"``: function from the result of ``parent`` to a tensor of one number.
        max_rows, seed: size and seed of the sample of rows.
        batch_size: rows per forward pass if the data are one tensor.

    Raises:
        SearchError: the importance is unknown, or ``loss`` is missing.
        CaptureError: the data give no usable rows.
    """
    _check_wrapped(block)
    check_data(data)
    check_function("parent", parent, "the model that calls the block", optional=True)
    check_function("loss", loss, "a function from the model's result to one number", optional=True)
    check_whole("max_rows", max_rows, 1)
    check_seed(seed)
    check_whole("batch_size", batch_size, 1)
    if isinstance(by, str) and by == "gradient":
        if loss is None:
            raise SearchError("by='gradient' needs loss=, from the model's result to one number")
        importance = _measure_slopes(block, data, parent, loss, batch_size)
    else:
        measure = _get_importance(by, [*_IMPORTANCES, "gradient"])
        rows = block.capture(data, parent=parent, max_rows=max_rows, seed=seed)
        importance = _measure(measure, rows.outputs)
    importance = importance.detach().cpu()
    pruned = set(block.pruned_outputs)
    order = importance.argsort(descending=True, stable=True).tolist()
    return Ranking(tuple(column for column in order if column not in pruned), importance)


def _measure_slopes(
    block: BlockWrapper,
    data: Any,
    parent: Callable[..., Any] | None,
    loss: Callable[[Any], Tensor],
    batch_size: int,
) -> Tensor:
    """Return the mean over rows of |output x slope of the loss|, for each output, shape (d,)."""
    model, takes = (block, block.get_receiver()) if parent is None else (parent, parent)
    total: Tensor | None = None
    rows = 0
    with block.running("block"), preserve_state(model, gradients=True), _watch_outputs(block.block) as seen:
        for batch in iterate_batches(data, batch_size):
            seen.clear()
            args, kwargs = to_arguments(takes, prepare_batch(batch, takes, None))
            value = loss(model(*args, **kwargs))
            if not seen:
                raise CaptureError(f"{block.name} was never called: pass the model that calls it as parent=")
            slopes = torch.autograd.grad(value, seen, allow_unused=True)
            for output, slope in zip(seen, slopes, strict=True):
                share = torch.zeros_like(output) if slope is None else output.detach() * slope
                part = as_feature_rows(share).double().abs().sum(0)
                total = part if total is None else total + part
                rows += len(as_feature_rows(output))
    assert total is not None
    return total / rows


@contextmanager
def _watch_outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Yield the list of output tensors of a module's calls, for which gradients can be taken."""
    seen: list[Tensor] = []

    def keep(result: Any) -> Any:
        path, tensor = pick_tensor(flatten_tensors(result), None, "the block's result")
        if not tensor.requires_grad:
            # A block without parameters on plain data: the gradient starts here.
            tensor = tensor.detach().requires_grad_()
        seen.append(tensor)
        return replace_tensor(result, path, tensor)

    with watch_calls(module, lambda args, kwargs: None, keep):
        yield seen
