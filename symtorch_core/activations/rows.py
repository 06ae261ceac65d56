"""Activations: the rows a search learns from, as tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.activations.frames import (
    Column,
    as_frame,
    check_complete,
    is_table,
    name_outputs,
    name_variables,
    read_columns,
    to_numbers,
)
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import (
    check_choice,
    check_distinct,
    check_names,
    check_number,
    check_seed,
    find_columns,
)
from symtorch_core.errors import CaptureError

_LARGEST_IN_SINGLE = 2**24
"""Integers up to here have a float32 of their own."""
_ADVICE = 'fix the data, or pass on_nonfinite="drop" to leave those rows out'


@final
@dataclass(frozen=True)
class Source:
    """Origin of activations.

    Attributes:
        block: path or type of the block, or "arrays".
        rows_seen: rows that passed through the block, before sampling and dropping.
        rows_dropped: rows left out because they held non-finite values.
        calls: number of calls of the block.
        scalar_output: whether the block gives one number per row without a feature dimension: (n,) for (n, d).
        select_input: the input tensor(s) of the call; see :func:`symtorch_core.capture`.
        select_output: the output tensor of the result.
        overwrites: the input tensor that the block overwrites with its output, as ``nn.ReLU(inplace=True)`` does.
        changed_inputs: input tensors that the block changes in another way.
        set_attributes: dotted names of Python attributes that the block sets when it runs.
        arrays: whether the inputs came as numpy arrays, or as what becomes one; a function is given arrays again.
        columns: the columns of the data frame that the inputs came as; a function is given data frames again.
    """

    block: str = "arrays"
    rows_seen: int = 0
    rows_dropped: int = 0
    calls: int = 0
    scalar_output: bool = False
    select_input: tuple[str, ...] | None = None
    select_output: str | None = None
    overwrites: str | None = None
    changed_inputs: tuple[str, ...] = ()
    set_attributes: tuple[str, ...] = ()
    arrays: bool = False
    columns: tuple[Column, ...] = ()


@final
@dataclass(frozen=True)
class Activations:
    """Inputs and outputs of a block, row by row: on the CPU, finite, in float32 or float64.

    Attributes:
        inputs: shape (n, d_in).
        outputs: shape (n, d_out).
        weights: shape (n,), non-negative; None weighs all rows equally.
        input_names: d_in names.
        output_names: d_out names.
        source: origin of the rows.
    """

    inputs: Tensor
    outputs: Tensor
    weights: Tensor | None = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        for name, value in (("inputs", self.inputs), ("outputs", self.outputs)):
            if not isinstance(value, Tensor):
                raise CaptureError(f"{name} must be a tensor: Activations.of takes arrays and lists too")
        if self.inputs.ndim != 2 or self.outputs.ndim != 2:
            raise CaptureError("inputs and outputs must have two dimensions: rows and features")
        n, d_in = self.inputs.shape
        if len(self.outputs) != n:
            raise CaptureError(
                f"inputs have {n} rows, outputs {len(self.outputs)}: they must match row by row"
            )
        if self.weights is not None:
            if self.weights.shape != (n,):
                raise CaptureError(f"weights must have shape ({n},), got {tuple(self.weights.shape)}")
            to_weights(self.weights)
        if not self.input_names:
            object.__setattr__(self, "input_names", tuple(f"x{i}" for i in range(d_in)))
        if not self.output_names:
            object.__setattr__(self, "output_names", tuple(f"y{i}" for i in range(self.outputs.shape[1])))
        input_names = _check_names("input", self.input_names, d_in)
        output_names = _check_names("output", self.output_names, self.outputs.shape[1], identifiers=False)
        object.__setattr__(self, "input_names", input_names)
        object.__setattr__(self, "output_names", output_names)

    @classmethod
    @explain_calls()
    def of(
        cls,
        X: Any,
        Y: Any,
        *,
        weights: Any = None,
        variable_names: Sequence[str] = (),
        output_names: Sequence[str] = (),
        on_nonfinite: str = "raise",
    ) -> Activations:
        """Build activations from arrays, tensors, lists or data frames.

        Args:
            X: inputs, shape (n, d_in) or (n,); any further leading dimensions become rows.
            Y: outputs with the same leading dimensions; rows belong together by their order, whatever their index.
            weights: a non-negative number for each row, shape (n,).
            variable_names: d_in names. By default those of a data frame's columns, changed where they cannot name a
                variable (``mass (kg)`` becomes ``mass_kg``); otherwise x0, x1, ...
            output_names: d_out names. By default those of the columns of a data frame; otherwise y0, y1, ...
            on_nonfinite: ``"raise"``, or ``"drop"`` to leave out rows with NaN or infinite values.

        >>> Activations.of([[1, 2], [3, 4]], [0.5, 0.7]).outputs.shape
        torch.Size([2, 1])

        Raises:
            CaptureError: row counts differ, there are no rows, or values are not finite numbers; of a data frame, the
                message names the columns.
        """
        check_on_nonfinite(on_nonfinite)
        input_names = check_names("variable_names", variable_names, CaptureError)
        named_outputs = check_names("output_names", output_names, CaptureError)
        inputs, outputs = _to_rows(X, "X"), _to_rows(Y, "Y")
        if len(inputs) != len(outputs):
            raise CaptureError(f"X has {len(inputs)} rows, Y has {len(outputs)}: they must match row by row")
        row_weights = None if weights is None else to_weights(weights)
        if row_weights is not None and len(row_weights) != len(inputs):
            raise CaptureError(f"weights have {len(row_weights)} entries for {len(inputs)} rows")
        for table in (X, Y):
            if is_table(table) and on_nonfinite == "raise":
                check_complete(table, _ADVICE)
        finite = find_finite_rows(inputs, outputs, on_nonfinite)
        if not bool(finite.all()):
            inputs, outputs = inputs[finite], outputs[finite]
            row_weights = None if row_weights is None else row_weights[finite]
        if len(inputs) == 0:
            raise CaptureError("there are no rows: the data are empty")
        columns = read_columns(as_frame(X)) if is_table(X) else ()
        source = Source(
            rows_seen=len(finite),
            rows_dropped=int((~finite).sum()),
            arrays=not isinstance(X, Tensor),
            columns=columns,
        )
        input_names = input_names or name_variables(columns)
        named_outputs = named_outputs or (name_outputs(Y) if is_table(Y) else ())
        return cls(inputs, outputs, row_weights, input_names, named_outputs, source)

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, index: Tensor) -> Activations:
        """Return some of the rows, by an index or boolean tensor."""
        weights = None if self.weights is None else self.weights[index]
        return replace(self, inputs=self.inputs[index], outputs=self.outputs[index], weights=weights)

    def select_outputs(self, outputs: Sequence[int | str]) -> Activations:
        """Return the activations with some of the output columns only, by number or name.

        Raises:
            CaptureError: there is no such column, or the columns are given by a mask.
        """
        names = self.output_names
        columns = find_columns("outputs", outputs, range(len(names)), names, CaptureError)
        return replace(
            self,
            outputs=self.outputs[:, list(columns)],
            output_names=tuple(self.output_names[i] for i in columns),
        )

    def named(self, variable_names: Sequence[str]) -> Activations:
        """Return the same rows with other input names."""
        return replace(self, input_names=check_names("variable_names", variable_names, CaptureError))

    def with_weights(self, weights: Any) -> Activations:
        """Return the same rows with these non-negative weights, shape (n,), times the weights they already have."""
        given = to_weights(weights)
        if self.weights is not None and given.shape == self.weights.shape:
            given = given * self.weights
        return replace(self, weights=given)

    def split(self, fraction: float, seed: int) -> tuple[Activations, Activations | None]:
        """Split the rows into rows to fit on and held-out rows, by a seeded shuffle.

        Returns:
            (fit, held out); held out is None for a fraction of 0, or if fewer than two rows would remain
            to fit.
        """
        check_number("fraction", fraction, 0, 1, open_high=True, error=CaptureError)
        check_seed(seed, CaptureError)
        held = round(len(self) * fraction)
        if held == 0 or len(self) - held < 2:
            return self, None
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self)))
        return self.rows(order[held:].sort().values), self.rows(order[:held].sort().values)


def _check_names(kind: str, names: Sequence[str], count: int, identifiers: bool = True) -> tuple[str, ...]:
    names = check_names(f"{kind} names", names, CaptureError)
    if len(names) != count:
        raise CaptureError(f"{len(names)} {kind} names for {count} {kind}s: {', '.join(names)}")
    check_distinct(f"{kind} names", names, CaptureError)
    for name in names:
        if identifiers and not name.isidentifier():
            legal = re.sub(r"\W+", "_", name.strip())
            legal = legal if legal.isidentifier() else "x_1"
            raise CaptureError(f"{name!r} cannot name a variable: use letters, digits and _ (like {legal})")
    return names


def to_weights(weights: Any) -> Tensor:
    """Return weights of rows, shape (n,).

    Raises:
        CaptureError: they are not finite numbers, not negative, of which one is positive.
    """
    given = as_real_tensor(weights, "weights").reshape(-1)
    if not bool(torch.isfinite(given).all()) or bool((given < 0).any()):
        raise CaptureError("weights must be finite and not negative")
    if not bool((given > 0).any()):
        raise CaptureError("all weights are zero: no row would count")
    return given


def as_real_tensor(values: Any, name: str) -> Tensor:
    """Return an array-like as a CPU tensor of float32, or of float64 where float32 would lose digits.

    That is where the values came as float64, or are integers (times, identifiers) too large for float32. The masked
    entries of a masked array become NaN: they are missing.

    >>> as_real_tensor([2**24 + 1], "X")
    tensor([16777217.], dtype=torch.float64)

    Raises:
        CaptureError: the values are not an array of real numbers.
    """
    try:
        tensor = values.detach() if isinstance(values, Tensor) else torch.from_numpy(to_native_array(values))
    except (TypeError, ValueError) as error:
        raise CaptureError(f"{name} is not an array of numbers: {error}") from None
    if tensor.is_meta:
        raise CaptureError(
            f"{name} is on the meta device, where tensors hold no numbers: load the model's weights first"
        )
    if tensor.is_complex():
        raise CaptureError(f"{name} is complex: give real and imaginary parts as columns")
    if tensor.is_inference():  # made under inference_mode, where autograd may never look at it
        tensor = tensor.clone()
    return tensor.to("cpu", torch.float64 if _needs_double(tensor) else torch.float32)


def to_native_array(values: Any) -> np.ndarray:
    """Return a new numpy array in this machine's byte order, with NaN in place of masked (missing) entries.

    Raises:
        CaptureError: the array has several fields, or columns of a data frame do not hold numbers.
    """
    if is_table(values):
        values = to_numbers(values)
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.result_type(values.dtype, np.float32)), np.nan)
    array = np.array(values)
    if array.dtype.names is not None:
        raise CaptureError(
            "an array with fields has no columns: give numpy.lib.recfunctions.structured_to_unstructured(array), with "
            f"variable_names={list(array.dtype.names)}"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _needs_double(tensor: Tensor) -> bool:
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        return tensor.dtype == torch.float64
    if tensor.numel() == 0:
        return False
    largest = max(abs(int(tensor.min())), abs(int(tensor.max())))
    return largest > _LARGEST_IN_SINGLE


def _to_rows(values: Any, name: str) -> Tensor:
    tensor = as_real_tensor(values, name)
    if tensor.ndim == 0:
        raise CaptureError(f"{name} is a single number: give rows, shape (n, d)")
    if tensor.ndim > 1 and tensor.shape[-1] == 0:
        raise CaptureError(f"{name} has no columns: give at least one")
    return as_rows(tensor)


def as_rows(tensor: Tensor) -> Tensor:
    """Return (..., d) as (n, d), and a vector of n numbers as (n, 1)."""
    if tensor.ndim == 0:
        return tensor.reshape(1, 1)
    return tensor[:, None] if tensor.ndim == 1 else tensor.reshape(-1, tensor.shape[-1])


def as_feature_rows(tensor: Tensor) -> Tensor:
    """Return (..., d) as (n, d), and a vector (d,) as a single row."""
    return tensor.reshape(1, -1) if tensor.ndim == 1 else as_rows(tensor)


def check_on_nonfinite(value: str) -> None:
    """Refuse, with a :class:`CaptureError`, any value but ``"raise"`` and ``"drop"``."""
    check_choice("on_nonfinite", value, ("raise", "drop"), CaptureError)


def find_finite_rows(inputs: Tensor, outputs: Tensor, on_nonfinite: str) -> Tensor:
    """Return a boolean tensor of shape (n,) that is True for rows that are finite throughout.

    Raises:
        CaptureError: some rows are not finite and ``on_nonfinite`` is ``"raise"``; the message counts them.
    """
    check_on_nonfinite(on_nonfinite)
    good_inputs = torch.isfinite(inputs).all(dim=1)
    good_outputs = torch.isfinite(outputs).all(dim=1)
    finite = good_inputs & good_outputs
    if on_nonfinite == "raise" and not bool(finite.all()):
        raise CaptureError(
            f"{int((~finite).sum())} of {len(finite)} rows hold NaN or infinite values "
            f"({int((~good_inputs).sum())} in the inputs, {int((~good_outputs).sum())} in the outputs): {_ADVICE}"
        )
    return finite


BlockFunction = Callable[[Tensor], Tensor]
"""A block as a function of rows: (n, d_in) to (n, d_out)."""
