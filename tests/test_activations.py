"""The rows a search learns from: what is accepted, what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from symtorch_core.activations.rows import Activations
from symtorch_core.errors import CaptureError

X = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
Y = [[0.5], [0.6], [0.7]]


def test_arrays_tensors_and_lists() -> None:
    for kind in (list, np.array, torch.tensor):
        found = Activations.of(kind(X), kind(Y))
        assert found.inputs.tolist() == X
        assert found.outputs.shape == (3, 1)
        assert found.weights is None
        assert found.input_names == ("x0", "x1")
        assert found.output_names == ("y0",)
        assert len(found) == found.source.rows_seen == 3


def test_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    found = Activations.of(pandas.DataFrame(X, columns=["a", "b"]), pandas.Series([0.5, 0.6, 0.7]))
    assert found.inputs.tolist() == X
    assert found.outputs.shape == (3, 1)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.int64, torch.float32),
        (torch.bool, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_every_real_type_is_converted(given: torch.dtype, kept: torch.dtype) -> None:
    found = Activations.of(torch.ones(3, 2).to(given), torch.zeros(3).to(given))
    assert found.inputs.dtype == found.outputs.dtype == kept
    assert found.inputs.tolist() == [[1.0, 1.0]] * 3


def test_leading_dimensions_become_rows() -> None:
    found = Activations.of(torch.arange(24.0).reshape(2, 3, 4), torch.arange(12.0).reshape(2, 3, 2))
    assert found.inputs.shape == (6, 4)
    assert found.outputs[4].tolist() == [8.0, 9.0]


def test_gradients_and_the_callers_data_are_left_alone() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    found = Activations.of(x, x.sum(1))
    assert not found.inputs.requires_grad
    assert not found.outputs.requires_grad
    assert x.requires_grad


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:2], "X has 3 rows, Y has 2"),
        (np.zeros((0, 2)), np.zeros((0, 1)), "there are no rows"),
        (np.zeros((2, 2), dtype=complex), [1.0, 2.0], "X is complex.*real and imaginary parts as columns"),
        (X, torch.ones(3, dtype=torch.complex64), "Y is complex"),
        (["a", "b"], [1.0, 2.0], "X is not an array of numbers"),
        ([[1.0, 2.0], [3.0]], [1.0, 2.0], "X is not an array of numbers"),
        (None, [1.0], "X is not an array of numbers"),
    ],
)
def test_what_cannot_be_rows(x: object, y: object, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        Activations.of(x, y)


BROKEN = [[1.0, np.nan], [3.0, 4.0], [np.inf, 6.0], [7.0, 8.0]]


def test_values_that_are_not_finite_are_counted() -> None:
    with pytest.raises(
        CaptureError, match=r"3 of 4 rows.*\(2 in the inputs, 2 in the outputs\).*on_nonfinite=\"drop\""
    ):
        Activations.of(BROKEN, [np.nan, -np.inf, 1.0, 2.0])


def test_values_that_are_not_finite_are_dropped_on_request() -> None:
    found = Activations.of(BROKEN, [1.0, 2.0, 3.0, 4.0], weights=[1, 2, 3, 4], on_nonfinite="drop")
    assert found.inputs.tolist() == [[3.0, 4.0], [7.0, 8.0]]
    assert found.outputs.tolist() == [[2.0], [4.0]]
    assert found.weights is not None
    assert found.weights.tolist() == [2.0, 4.0]
    assert (found.source.rows_seen, found.source.rows_dropped) == (4, 2)


def test_nothing_left_after_dropping() -> None:
    with pytest.raises(CaptureError, match="there are no rows"):
        Activations.of([np.nan, np.nan], [1.0, 2.0], on_nonfinite="drop")
    with pytest.raises(CaptureError, match="unknown on_nonfinite 'ignore'; there are: raise, drop"):
        Activations.of(X, Y, on_nonfinite="ignore")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "weights have 2 entries for 3 rows"),
        ([1.0, -1.0, 1.0], "finite and not negative"),
        ([1.0, np.nan, 1.0], "finite and not negative"),
        ([1.0, np.inf, 1.0], "finite and not negative"),
        ([0.0, 0.0, 0.0], "all weights are zero"),
        ("abc", "weights is not an array"),
    ],
)
def test_bad_weights(weights: object, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        Activations.of(X, Y, weights=weights)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "1 input names for 2 inputs: a"),
        (["a", "a"], "must differ from each other: a, a"),
        (["a", "b c"], "'b c' cannot name a variable"),
        (["a", "2b"], "'2b' cannot name a variable"),
    ],
)
def test_bad_names(names: list[str], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        Activations.of(X, Y, variable_names=names)


def test_output_names_may_be_any_text() -> None:
    assert Activations.of(X, Y, output_names=["wind speed (m/s)"]).output_names == ("wind speed (m/s)",)
    with pytest.raises(CaptureError, match="2 output names for 1 outputs"):
        Activations.of(X, Y, output_names=["a", "b"])


def test_built_by_hand_it_is_checked_too() -> None:
    with pytest.raises(CaptureError, match="two dimensions"):
        Activations(torch.ones(3), torch.ones(3, 1))
    with pytest.raises(CaptureError, match="inputs have 3 rows, outputs 2"):
        Activations(torch.ones(3, 1), torch.ones(2, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Activations.of(X, Y).inputs = torch.ones(1)  # type: ignore[misc]


def test_a_split_is_seeded_and_loses_no_row() -> None:
    rows = torch.arange(100.0)
    whole = Activations.of(rows, 2 * rows, weights=rows + 1)
    fit, held = whole.split(0.2, seed=3)
    assert held is not None
    assert (len(fit), len(held)) == (80, 20)
    assert sorted([*fit.inputs[:, 0].tolist(), *held.inputs[:, 0].tolist()]) == rows.tolist()
    for part in (fit, held):
        assert torch.equal(part.outputs, 2 * part.inputs)
        assert part.weights is not None
        assert torch.equal(part.weights, part.inputs[:, 0] + 1)
    again, other = whole.split(0.2, seed=3)[0], whole.split(0.2, seed=4)[0]
    assert torch.equal(again.inputs, fit.inputs)
    assert not torch.equal(other.inputs, fit.inputs)


def test_a_split_of_too_few_rows_holds_nothing_out() -> None:
    whole = Activations.of(X, Y)
    assert whole.split(0.0, seed=0) == (whole, None)
    assert Activations.of(X[:2], Y[:2]).split(0.5, seed=0)[1] is None
    for fraction in (-0.1, 1.0):
        with pytest.raises(CaptureError, match="fraction must be at least 0"):
            whole.split(fraction, seed=0)


def test_some_outputs_and_other_names() -> None:
    found = Activations.of(X, [[1.0, 2.0, 3.0]] * 3, output_names=["a", "b", "c"]).select_outputs([2, 0])
    assert found.output_names == ("c", "a")
    assert found.outputs[0].tolist() == [3.0, 1.0]
    assert found.named(["p", "q"]).input_names == ("p", "q")
    with pytest.raises(CaptureError, match="3 input names for 2"):
        found.named(["p", "q", "r"])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([[16777217]]), torch.float64),
        (np.array([[-16777217]], dtype=np.int32), torch.float64),
        (torch.tensor([[1_700_000_000_123_456_789]]), torch.float64),  # nanoseconds
        (np.array([[16777216]]), torch.float32),
        (np.array([[3]], dtype=np.uint8), torch.float32),
        (np.array([[True]]), torch.float32),
        (np.array([[1.5]], dtype=">f8"), torch.float64),
        (np.array([[1.5]], dtype=">f4"), torch.float32),
        (np.array([[70_000]], dtype=">i4"), torch.float32),
        (np.array([[0.1]], dtype=np.float16), torch.float32),
        (torch.tensor([[0.1]], dtype=torch.bfloat16), torch.float32),
    ],
)
def test_no_digit_is_lost_at_the_door(values: Any, dtype: torch.dtype) -> None:
    rows = Activations.of(values, values)
    assert rows.inputs.dtype == dtype
    assert float(rows.inputs[0, 0]) == float(values[0, 0])


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_masked_means_missing(kind: type) -> None:
    X = np.ma.masked_array(np.arange(6).astype(kind).reshape(3, 2), mask=[[0, 0], [0, 1], [0, 0]])
    Y = np.arange(3.0)
    with pytest.raises(CaptureError, match="1 of 3 rows"):
        Activations.of(X, Y)
    kept = Activations.of(X, Y, on_nonfinite="drop")
    assert kept.inputs.tolist() == [[0.0, 1.0], [4.0, 5.0]]
    assert kept.source.rows_dropped == 1
