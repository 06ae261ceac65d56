"""Ranking of a block's outputs by importance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import check_data, iterate_batches, prepare_batch, to_arguments
from symtorch_core.activations.failures import explain_failures
from symtorch_core.activations.rows import as_feature_rows
from symtorch_core.activations.state_guard import preserve_state
from symtorch_core.activations.tensor_paths import flatten_tensors, pick_tensor, replace_tensor
from symtorch_core.activations.watching import watch_calls
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import (
    check_function,
    check_seed,
    check_whole,
)
from symtorch_core.errors import CaptureError, SearchError
from symtorch_core.model.block_wrapper import BlockWrapper
from symtorch_core.reduction.moments import Moments
from symtorch_core.training.descend import allow_gradients

Importance = Callable[[Tensor], Tensor]
"""Function from outputs of a block, shape (n, d), to their importance, shape (d,): larger is kept longer."""

_EXPLAINED = 0.95
_ROUNDING = 1e-9


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
    count = int((values.cumsum(0) / total < _EXPLAINED - _ROUNDING).sum()) + 1
    shares: Tensor = (vectors[:, :count].square() * values[:count]).sum(1) / total
    return shares


IMPORTANCES: Mapping[str, Importance] = MappingProxyType(
    {"std": measure_spread, "pca": measure_principal_share}
)


def get_importance(by: str | Importance, names: Iterable[str]) -> Importance:
    """Return an importance by name, or the given function; ``names`` are the names the caller accepts."""
    measure = IMPORTANCES.get(by) if isinstance(by, str) else by
    if not callable(measure):
        known = ", ".join(map(repr, names))
        raise SearchError(f"unknown importance {by!r}: give {known}, or a function of outputs (n, d)")
    return measure


def measure_importance(importance: Importance, outputs: Tensor) -> Tensor:
    """Return the importance of each output, shape (d,), of rows (n, d).

    Raises:
        CaptureError: the function gives something else.
    """
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


def check_wrapped(block: Any) -> None:
    """Refuse, with a :class:`SearchError`, what is not a wrapped block."""
    if not isinstance(block, BlockWrapper):
        raise SearchError(f"block must be a wrapped block, as of wrap(), not a {type(block).__name__}")


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


@explain_calls()
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
    check_wrapped(block)
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
        measure = get_importance(by, [*IMPORTANCES, "gradient"])
        rows = block.capture(data, parent=parent, max_rows=max_rows, seed=seed)
        importance = measure_importance(measure, rows.outputs)
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
            with explain_failures(takes, args, kwargs, alone=parent is None):
                result = model(*args, **kwargs)
            value = loss(result)
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
