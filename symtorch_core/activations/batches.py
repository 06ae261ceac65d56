"""Data as a model's arguments: splitting into batches, and selecting what the model takes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from symtorch_core.activations.frames import is_frame, is_table, read_columns, slice_rows, to_numbers
from symtorch_core.activations.rows import to_native_array
from symtorch_core.activations.tensor_paths import FunctionBlock, get_parameters
from symtorch_core.errors import CaptureError

RowMask = Callable[[Any], Tensor | np.ndarray] | str | None
"""The rows to keep: the key of a dict batch, or a function of the batch; None for all."""


@runtime_checkable
class _Table(Protocol):
    """What numpy can read as an array: a table or an array of another library."""

    def __array__(self) -> np.ndarray: ...


def read_table(data: Any) -> Any:
    """Return what numpy can read as an array, and data frames and everything else as they are."""
    if isinstance(data, (Tensor, np.ndarray)) or is_frame(data) or not isinstance(data, _Table):
        return data
    return to_numbers(data) if is_table(data) else np.asarray(data)


def has_rows(data: Any) -> bool:
    """Return whether data are one array, tensor or data frame."""
    return isinstance(data, (Tensor, np.ndarray)) or is_frame(data)


def count_batches(data: Any, batch_size: int) -> int | None:
    """Return the number of batches in the data; None if unknown."""
    data = read_table(data)
    if has_rows(data):
        return -(-len(data) // batch_size) if data.ndim else 1
    if isinstance(data, Mapping):
        return 1
    try:
        return len(data)
    except TypeError:  # an iterator knows no length
        return None


def iterate_batches(data: Any, batch_size: int) -> Iterator[Any]:
    """Yield the batches of the data: slices of a tensor, array or data frame, a single dict, or an iterable's items.

    Raises:
        CaptureError: the data are empty or of an unknown type, or a list of rows.
    """
    data = read_table(data)
    check_data(data)
    if isinstance(data, (list, tuple)) and _is_row(data[0]):
        raise CaptureError("a list is one of batches, not of rows: give rows of numbers as numpy.array(data)")
    if has_rows(data):
        yield from _slice_rows(data, batch_size)
        return
    if isinstance(data, Mapping):
        yield data
        return
    empty = True
    for batch in data:
        empty = False
        yield batch
    if empty:
        once = " (a generator can be read only once: make it anew)" if iter(data) is data else ""
        raise CaptureError(f"the data are empty: they gave no batch{once}")


def check_data(data: Any) -> None:
    """Refuse what holds no batch, without reading it.

    Raises:
        CaptureError: the data are of an unknown type, or empty, or columns of a data frame do not hold numbers.
    """
    if is_frame(data):
        read_columns(data)
    try:
        known = not isinstance(data, (str, bytes)) and (isinstance(data, Iterable) or iter(data) is not None)
    except TypeError:
        known = False
    advice = _explain_data(data)
    if advice is not None:
        raise CaptureError(advice)
    if not known:
        raise CaptureError(
            f"{type(data).__name__} is not data: give a tensor, an array, a DataLoader or an iterable of "
            "batches"
        )
    if isinstance(data, (Mapping, Sequence)) and not data:
        raise CaptureError("the data are empty: give at least one batch")


def _is_row(item: Any) -> bool:
    numbers = item if isinstance(item, (list, tuple)) else [item]
    return bool(numbers) and all(isinstance(number, Real) for number in numbers)


def _explain_data(data: Any) -> str | None:
    """Return what to do with data of a kind that many give and that hold no batches; None for others."""
    if isinstance(data, (str, bytes, Path)):
        return (
            f"{type(data).__name__} is not data: read the file {str(data)!r} first, and give a tensor, an array or a "
            "DataLoader"
        )
    if isinstance(data, torch.utils.data.Dataset) and not isinstance(data, torch.utils.data.IterableDataset):
        return f"{type(data).__name__} gives rows one by one: give torch.utils.data.DataLoader(dataset, batch_size=256)"
    pair = isinstance(data, tuple) and type(data) is tuple and len(data) > 1
    if pair and all(isinstance(entry, (Tensor, np.ndarray)) for entry in data):
        return (
            "a tuple of tensors may be one batch or several: give the inputs alone, since the block gives the outputs; "
            "or [(a, b)] for one batch of two arguments, [a, b] for two batches"
        )
    return None


def _slice_rows(data: Any, batch_size: int) -> Iterator[Any]:
    if data.ndim == 0 or len(data) == 0:
        raise CaptureError("the data are empty: give at least one row")
    if data.ndim == 1 and (data.is_floating_point() if isinstance(data, Tensor) else data.dtype.kind == "f"):
        raise CaptureError(
            f"the data have shape ({len(data)},), but need rows and features, as in data[:, None] for "
            "rows of one number or data[None, :] for one row"
        )
    yield from (
        slice_rows(data, slice(start, start + batch_size)) for start in range(0, len(data), batch_size)
    )


def is_pair(data: Any) -> bool:
    """Return whether data are two arrays with as many rows."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    first, second = map(read_table, data)
    arrays = all(has_rows(part) and part.ndim for part in (first, second))
    return arrays and len(first) == len(second)


def peek_batch(data: Any, batch_size: int) -> tuple[Any, Any]:
    """Return one batch of the data (None if there is none), and data to read in their place.

    Rows of a tensor or array are taken from all over it. Other data are begun only once, so that neither a generator
    nor a seeded DataLoader gives other batches than it would have.
    """
    table = read_table(data)
    if has_rows(table):
        every = slice(None, None, max(1, -(-len(table) // batch_size)))
        return (slice_rows(table, every) if table.ndim and len(table) else None), data
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        return (data if isinstance(data, Mapping) else None), data
    if isinstance(data, Sequence):
        return (data[0] if data else None), data
    begun = _Begun(data, count_batches(data, batch_size))
    return begun.first, begun


@final
class _Begun:
    """Batches whose first was read ahead; to be iterated once."""

    def __init__(self, data: Iterable[Any], count: int | None) -> None:
        self._count, self._rest = count, iter(data)
        self._ahead = list(itertools.islice(self._rest, 1))

    @property
    def first(self) -> Any:
        """The batch that was read ahead; None if there is none."""
        return self._ahead[0] if self._ahead else None

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain(self._ahead, self._rest)

    def __len__(self) -> int:
        if self._count is None:
            raise TypeError("the number of batches is unknown")
        return self._count


def find_device(model: Any) -> torch.device | None:
    """Return the device of a module's first tensor, or None: for a function, or a module without tensors.

    Tensors on the meta device do not count: a library (such as accelerate) keeps their numbers elsewhere, and moves
    the inputs itself.
    """
    if not isinstance(model, nn.Module):
        return None
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors if not tensor.is_meta), None)


def find_dtype(model: Any) -> torch.dtype | None:
    """Return the floating-point type of a module's parameters; None if it has none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), None)


def takes_arrays(model: Any) -> bool:
    """Whether a model is given arrays and frames as they are: a function is, a module is given tensors."""
    return not isinstance(model, nn.Module) or isinstance(model, FunctionBlock)


def prepare_batch(batch: Any, model: Callable[..., Any], device: torch.device | str | None) -> Any:
    """Return a batch that the model can take: a module gets tensors, on its device.

    Args:
        batch: tensors, arrays and data frames, nested in tuples, lists and mappings.
        model: the model. For a module, arrays become tensors, and floating-point arrays get its parameters' type.
        device: target device; None for the device of the module's first tensor.

    Raises:
        CaptureError: an array does not hold numbers.
    """
    target, dtype = find_device(model) if device is None else device, find_dtype(model)

    def convert(value: Any) -> Any:
        value = read_table(value)
        if (isinstance(value, np.ndarray) or is_frame(value)) and not takes_arrays(model):
            value = _to_tensor(value)
            value = value.to(dtype) if value.is_floating_point() and dtype is not None else value
        if isinstance(value, Tensor):
            return value if target is None else value.to(target)
        if isinstance(value, Mapping):
            return {key: convert(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return tuple(convert(item) for item in value)
        return value

    return convert(batch)


def _to_tensor(array: Any) -> Tensor:
    try:
        return torch.from_numpy(to_native_array(array))
    except TypeError as error:
        raise CaptureError(f"the data are not numbers that torch can hold: {error}") from None


def get_row_mask(batch: Any, row_mask: RowMask) -> Tensor | None:
    """Return a boolean tensor of the leading shape that is True for the rows to keep; None for all.

    Raises:
        CaptureError: the mask is not a tensor.
    """
    if row_mask is None:
        return None
    if isinstance(row_mask, str):
        mask = batch.get(row_mask) if isinstance(batch, Mapping) else None
        if mask is None:
            return None
    else:
        mask = row_mask(batch)
    if not isinstance(mask, (Tensor, np.ndarray)):
        raise CaptureError("row_mask must give a tensor that is True for the rows to keep")
    return torch.as_tensor(mask).bool()


def to_arguments(model: Callable[..., Any], batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a batch as positional and keyword arguments, without what the model does not take (labels, masks)."""
    takes = _Signature(model)
    if isinstance(batch, Mapping):
        return (), {name: value for name, value in batch.items() if takes.keyword(str(name))}
    if isinstance(batch, (tuple, list)):
        return tuple(batch[: takes.positional(len(batch))]), {}
    return (batch,), {}


@final
class _Signature:
    """The arguments a model can be called with; anything, if its signature is unknown."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self._parameters = get_parameters(model)

    def positional(self, given: int) -> int:
        """Return how many of ``given`` positional arguments the model takes."""
        if self._parameters is None:
            return given
        kinds = [parameter.kind for parameter in self._parameters]
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            return given
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return min(given, sum(kind in positional for kind in kinds))

    def keyword(self, name: str) -> bool:
        """Return whether the model takes an argument of this name."""
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return self._parameters is None or any(
            p.kind is inspect.Parameter.VAR_KEYWORD or (p.kind in named and p.name == name)
            for p in self._parameters
        )
