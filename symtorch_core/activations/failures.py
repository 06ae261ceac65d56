"""Why a model fails on data: what a newcomer has most likely overlooked, beside the model's own error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter
from typing import Any

import torch
from torch import nn

from symtorch_core.activations.batches import find_dtype
from symtorch_core.activations.block_function import find_linear_widths
from symtorch_core.activations.frames import is_frame
from symtorch_core.activations.tensor_paths import collect_call_tensors, get_parameters
from symtorch_core.errors import CaptureError


@contextmanager
def explain_failures(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, alone: bool
) -> Iterator[None]:
    """Raise, if the model fails inside on a call that does not fit it, an error that says so.

    Args:
        model: what is called.
        args, kwargs: of the call.
        alone: whether the data are fed to a block itself, not to the model around it.

    Raises:
        CaptureError: the call does not fit; other failures are the model's own, and stay as they are.
    """
    try:
        yield
    except (RuntimeError, TypeError) as error:
        reason = _find_reason(model, args, kwargs, alone)
        if reason is None or isinstance(error, torch.OutOfMemoryError):
            raise
        first = str(error).partition("\n")[0]
        raise CaptureError(f"{type(model).__name__} fails on these data ({first}): {reason}") from error


def _find_reason(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], alone: bool
) -> str | None:
    tensors, dtype = collect_call_tensors(args, kwargs), find_dtype(model)
    if any(map(is_frame, args)):  # which a function reads in its own way
        return None
    if not tensors:
        given = next((type(_get_leaf(value)).__name__ for value in (*args, *kwargs.values())), "nothing")
        return f"a batch holds no tensor, but {given}: give numbers as torch.tensor(data), texts as token ids"
    needed = _list_needed(model)
    if len(needed) > len(args) + len(kwargs):
        given = f"{len(args) + len(kwargs)} argument(s)"
        advice = "as [(a, b)]" if isinstance(model, nn.Module) else "or as one: lambda x: f(x[:, 0], x[:, 1])"
        return f"it takes {', '.join(needed)}, but a batch has {given}: give them {advice}"
    if not isinstance(model, nn.Module):
        return None
    first = next(iter(tensors.values()))
    width = find_linear_widths(model)[0]
    if width is not None and first.ndim > 0 and first.shape[-1] != width:
        reason = f"it takes {width} features, but the data have {first.shape[-1]}"
        advice = (
            ". Data of the model around it need parent=model: without it, they are fed to the block itself"
        )
        return reason + (advice if alone else "")
    other = next((t for t in tensors.values() if dtype is not None and t.dtype != dtype), None)
    if other is not None and not any(isinstance(module, nn.Embedding) for module in model.modules()):
        kinds = [str(kind).removeprefix("torch.") for kind in (other.dtype, dtype)]
        return f"the data are {kinds[0]}, its weights {kinds[1]}: give data.to({dtype})"
    return None


def _list_needed(model: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a model must be given."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in get_parameters(model) or () if p.kind in kinds and p.default is Parameter.empty]


def _get_leaf(value: Any) -> Any:
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value
