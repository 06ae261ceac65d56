"""Arrays in, arrays out: a block that is a function of numpy arrays is never given anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.activations.block_function import as_row_function
from symtorch_core.testing import ScriptedRegressor

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(200, 2))


def two_outputs(x: np.ndarray) -> np.ndarray:
    assert isinstance(x, np.ndarray)
    return np.stack([2 * x[..., 0] + x[..., 1], x[..., 0] - 3 * x[..., 1]], axis=-1)


def one_number(x: np.ndarray) -> np.ndarray:
    assert isinstance(x, np.ndarray)
    return 2 * x[..., 0] + x[..., 1]


def in_a_dict(x: np.ndarray) -> dict[str, Any]:
    assert isinstance(x, np.ndarray)
    return {"rows": len(x), "y": two_outputs(x)}


def distilled(function: Callable[..., Any], data: Any = X, **options: Any) -> st.SymbolicModel:
    block = st.SymbolicModel(function)
    block.distill(
        data,
        regressor=ScriptedRegressor(equations=("x0", "2.0*x0 + x1", "x0 - 3.0*x1")),
        select="accuracy",
        progress=False,
        **options,
    )
    return block


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(5, 2), (3, 4, 2), (2,)])
@pytest.mark.parametrize("function", [two_outputs, one_number])
def test_equations_give_arrays_for_arrays(function: Any, kind: type, shape: tuple[int, ...]) -> None:
    block, x = distilled(function), GENERATOR.normal(size=shape).astype(kind)
    expected = block(x)
    symbolic = block.switch_to_symbolic()(x)
    assert type(symbolic) is type(expected)
    assert (symbolic.shape, symbolic.dtype) == (expected.shape, kind)
    np.testing.assert_allclose(symbolic, expected, rtol=1e-5, atol=1e-6)


def test_some_outputs_by_equations_and_the_others_by_the_function() -> None:
    block = distilled(two_outputs)
    block.switch_to_symbolic(outputs=[1])
    mixed = block(X)
    assert isinstance(mixed, np.ndarray)
    np.testing.assert_array_equal(mixed[:, 0], two_outputs(X)[:, 0])
    np.testing.assert_allclose(mixed, two_outputs(X), atol=1e-9)


def test_an_array_inside_a_result_stays_one() -> None:
    block = distilled(in_a_dict, capture_options={"select_output": "y"})
    found = block.switch_to_symbolic()(X)
    assert found["rows"] == len(X)
    assert isinstance(found["y"], np.ndarray)
    np.testing.assert_allclose(found["y"], two_outputs(X), atol=1e-9)


def test_trainable_equations_and_pruned_outputs_give_arrays_too() -> None:
    block = distilled(two_outputs)
    block.prune_outputs(torch.tensor([False, True]))
    pruned = block(X)
    assert isinstance(pruned, np.ndarray)
    assert (pruned[:, 0] == 0).all()
    symbolic = block.switch_to_symbolic(outputs=[1], trainable=True)(X)
    assert isinstance(symbolic, np.ndarray)
    np.testing.assert_allclose(symbolic, pruned, atol=1e-9)


def test_tensors_beside_arrays_and_numbers_stay_tensors() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: Any) -> Tensor:
            return x[:, :1] * torch.as_tensor(scale)

    block = st.SymbolicModel(Scaled())
    rows = torch.from_numpy(X)
    for scale in (np.float64(2.0), np.full((1, 1), 2.0)):
        block.distill(
            [(rows, scale)],
            regressor=ScriptedRegressor(equations=("2.0*x0",)),
            capture_options={"select_input": 0},
            progress=False,
        )
        assert isinstance(block(rows, scale), Tensor)
        assert isinstance(block.switch_to_symbolic()(rows, scale), Tensor)


def test_a_function_of_an_output_and_predictions_give_what_they_are_given() -> None:
    block = distilled(two_outputs)
    function, surrogate = block.get_symbolic_function(1), block.distillation.surrogate()
    for values in (function(X), surrogate.predict(X)[:, 1]):
        assert isinstance(values, np.ndarray)
        np.testing.assert_allclose(values, two_outputs(X)[:, 1], atol=1e-9)
    assert isinstance(function(torch.from_numpy(X)), Tensor)
    assert isinstance(surrogate.predict(torch.from_numpy(X)), Tensor)
    with pytest.raises(st.CaptureError, match="rows is not an array of numbers"):
        surrogate.predict(np.array([["a", "b"]]))


@pytest.mark.parametrize("wrapped", [False, True])
def test_out_of_range_rows_are_arrays(wrapped: bool) -> None:
    seen: list[type] = []

    def spread(x: Any) -> Any:
        seen.append(type(x))
        return 2 * x[:, :1] + x.std(1)[:, None]  # of a tensor, another number: divided by d - 1

    options = {"regressor": ScriptedRegressor(equations=("2.0*x0",)), "progress": False}
    result = st.SymbolicModel(spread).distill(X, **options) if wrapped else st.distill(spread, X, **options)
    assert set(seen) == {np.ndarray}
    assert result.fidelity[0].out_of_range is not None
    seen.clear()
    result = st.distill(spread, torch.from_numpy(X), **options)
    assert set(seen) == {Tensor}
    assert result.fidelity[0].out_of_range is not None


def test_reducers_pruners_and_rankings_feed_arrays() -> None:
    sweep = st.sweep_reducers(two_outputs, X, reducers=["pca"], k_in=[2], progress=False)
    assert sweep.rows[0].r2 == pytest.approx(1.0)
    rows = st.Activations.of(X, two_outputs(X))
    assert st.sweep_reducers(two_outputs, rows, k_in=[2], progress=False).rows[0].r2 == pytest.approx(1.0)
    block = st.SymbolicModel(two_outputs)
    assert st.rank_outputs(block, X).order == (1, 0)
    st.OutputPruner(block, 1, 1).step(X)
    assert block.pruned_outputs == (0,)


def test_a_function_of_arrays_has_no_gradients() -> None:
    captured = st.HookCapture().collect(two_outputs, X)
    function = as_row_function(two_outputs, captured)
    assert function is not None
    rows = captured.inputs[:3].requires_grad_()
    assert not function(rows).requires_grad


def test_a_slice_is_drawn_of_a_function_of_arrays() -> None:
    pytest.importorskip("matplotlib")
    result = distilled(one_number).distillation
    ax = st.plot_slice(result, one_number, "x0")
    block, equations = (line.get_ydata() for line in ax.get_lines())
    np.testing.assert_allclose(block, equations, atol=1e-6)


def test_a_loader_with_labels_feeds_a_wrapped_function_without_them() -> None:
    block = distilled(two_outputs, [(X, np.zeros(len(X)))])
    assert block.distillation.fidelity[0].train.r2 == pytest.approx(1.0)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, 0].astype(float),
        lambda x: np.hypot(x[:, 0], x[:, 1]),
        lambda x: np.stack([x[:, 0]])[0],
        lambda x: x.detach().numpy()[:, 0],
    ],
)
def test_a_transform_in_numpy_is_refused_before_the_search(function: Any) -> None:
    with pytest.raises(
        st.SearchError, match="transform 'r' must be a function of torch tensors.*torch.hypot"
    ):
        distilled(one_number, transforms={"r": function})


def test_equations_of_a_block_with_fewer_outputs_are_not_mixed_in() -> None:
    block = st.SymbolicModel(nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.Identity()))
    found = st.distill((X, two_outputs(X)), regressor="sparse", progress=False)
    block.adopt(found).switch_to_symbolic(outputs=[0])
    with pytest.raises(st.SwitchError, match="of a block with 2 outputs, but Sequential gives 3"):
        block(torch.from_numpy(X).float())
