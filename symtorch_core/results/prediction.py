"""Predictions of the chosen equations for arrays, frames and tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from symtorch_core.activations.frames import align_columns, is_frame, is_table, to_numbers
from symtorch_core.activations.rows import as_real_tensor
from symtorch_core.errors import CaptureError, did_you_mean

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation


def predict(result: Distillation, X: Any) -> Any:
    """Return the distilled outputs by the chosen equations; see :meth:`Distillation.predict`.

    Raises:
        CaptureError: the rows do not hold one number for each input.
    """
    names = result.transforms.input_names
    if not isinstance(X, Tensor):
        ordered = order_columns(X, result)
        rows = as_real_tensor(to_numbers(ordered) if is_table(ordered) else ordered, "X")
    else:
        rows = X
    if rows.ndim < 2:
        raise CaptureError(
            "X must have rows and columns, shape (n, d); got "
            + (f"{len(rows)} numbers: " if rows.ndim else "a single number: ")
            + "reshape a single row with X.reshape(1, -1), values of a single input with X.reshape(-1, 1)"
        )
    if rows.is_complex() or rows.shape[-1] != len(names):
        found = "complex numbers" if rows.is_complex() else f"{rows.shape[-1]} columns"
        raise CaptureError(f"the equations take {len(names)} inputs ({', '.join(names)}), X has {found}")
    outputs = result.surrogate().to(rows.device).predict(rows)
    return outputs if isinstance(X, Tensor) else outputs.numpy()


def order_columns(X: Any, result: Distillation) -> Any:
    """Return a data frame's columns in the order of the inputs, and everything else as it is.

    They are found by the names they had in the data. Where these had none, they are found by the names of the inputs,
    or taken as they are if none of those is known.

    Raises:
        CaptureError: only some of the inputs are among the columns.
    """
    if not is_frame(X):
        return X
    if result.provenance.source.columns:
        return align_columns(X, result.provenance.source.columns)
    names = result.transforms.input_names
    columns = list(map(str, X.columns))
    missing = [name for name in names if name not in columns]
    if len(missing) == len(names):
        return X
    if missing:
        raise CaptureError(
            f"X has no column {missing[0]!r}.{did_you_mean(missing[0], columns)} The equations take "
            f"{', '.join(names)}; X has {', '.join(columns)}"
        )
    if len(set(columns)) < len(columns):
        raise CaptureError(f"two columns of X have one name: {', '.join(columns)}")
    return X.iloc[:, [columns.index(name) for name in names]]
