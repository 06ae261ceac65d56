"""Pruning of a block's outputs during training, until few are left to explain (SymTorch paper, 4.2 and E.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.activations.batches import prepare_batch, to_arguments
from symtorch_core.activations.failures import explain_failures
from symtorch_core.activations.hooks import avoid_fused_attention
from symtorch_core.activations.rows import as_feature_rows
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.activations.tensor_paths import flatten_tensors, pick_tensor
from symtorch_core.activations.watching import watch_calls
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import (
    check_choice,
    check_function,
    check_number,
    check_whole,
)
from symtorch_core.errors import CaptureError, FileFormatError, SearchError, SymTorchError
from symtorch_core.model.block_wrapper import BlockWrapper
from symtorch_core.model.ranking import (
    IMPORTANCES,
    Importance,
    check_wrapped,
    get_importance,
    measure_importance,
)

Schedule = Literal["cosine", "exponential", "linear"]

# From 1 at the start to 0 at the end; exponential means equal factors, not equal steps.
_SCHEDULES: Mapping[str, Callable[[float, int, int], float]] = MappingProxyType(
    {
        "cosine": lambda p, start, end: end + (start - end) * 0.5 * (1 + math.cos(math.pi * p)),
        "exponential": lambda p, start, end: start * (end / start) ** p,
        "linear": lambda p, start, end: start + (end - start) * p,
    }
)
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
    >>> block = SymbolicModel(torch.nn.Linear(3, 8))
    >>> pruner = OutputPruner(block, target_dim=2, total_steps=10)
    >>> for _ in range(10):
    ...     pruner.step(torch.randn(50, 3))
    >>> pruner.active, int((block(torch.randn(5, 3)) != 0).any(0).sum())
    (2, 2)

    Raises:
        SearchError: a setting is invalid.
    """

    @explain_calls()
    def __init__(
        self,
        block: BlockWrapper,
        target_dim: int,
        total_steps: int,
        schedule: Schedule = "cosine",
        end_fraction: float = 0.65,
        importance: str | Importance = "std",
    ) -> None:
        check_wrapped(block)
        _check_plan(target_dim, total_steps, schedule, end_fraction)
        self.block, self.target_dim, self.total_steps = block, target_dim, total_steps
        self.schedule, self.end_fraction = schedule, end_fraction
        self._importance = get_importance(importance, IMPORTANCES)
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

    @explain_calls()
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
            importance = measure_importance(self._importance, outputs).to(mask.device)
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
            avoid_fused_attention(model),
            watch_calls(block, lambda args, kwargs: None, keep),
        ):
            args, kwargs = to_arguments(model, prepare_batch(sample, model, None))
            with explain_failures(model, args, kwargs, alone=parent is None):
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
