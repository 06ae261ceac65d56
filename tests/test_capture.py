"""Capture: the rows a block saw, whatever the data look like, and a model left as it was found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import symtorch_core as st
from symtorch_core.events.records import Event, StageAdvanced, StageFinished, StageStarted


def rows(n: int = 60, d: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def mlp() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def of(model: Any, data: Any, path: str = "1", **options: Any) -> st.Activations:
    return st.capture(model, [path], data, **options)[path]


class Twice(nn.Module):
    """Calls one block twice; once by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(input=self.block(x))


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, t: Tensor, scale: float = 1.0) -> dict[str, Any]:
        return {"steps": torch.arange(len(x)), "out": (x * t * scale, x + t)}


class Tokens(nn.Module):
    """A small language model: ids and a mask in, one vector per token out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.mlp = nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.mlp(self.embed(input_ids))


class TestData:
    @pytest.mark.parametrize(
        "kind", ["tensor", "array64", "loader", "loader_xy", "tuples", "list", "generator"]
    )
    def test_every_form_of_data_gives_the_same_rows(self, mlp: nn.Sequential, kind: str) -> None:
        X, y = rows(), torch.zeros(60)
        data: Any = {
            "tensor": X,
            "array64": X.double().numpy(),
            "loader": DataLoader(X, batch_size=7),
            "loader_xy": DataLoader(TensorDataset(X, y), batch_size=7),
            "tuples": [(X[:50], y[:50]), (X[50:], y[50:])],
            "list": [X[:1], X[1:]],
            "generator": (X[i : i + 9] for i in range(0, 60, 9)),
        }[kind]
        found = of(mlp, data)
        assert torch.allclose(found.inputs, mlp[0](X), atol=1e-6)
        assert torch.allclose(found.outputs, mlp[:2](X), atol=1e-6)
        assert found.inputs.dtype == torch.float32
        assert found.source.rows_seen == 60

    def test_a_dict_batch_is_keyword_arguments_and_its_mask_drops_padding(self) -> None:
        model = Tokens()
        ids = torch.arange(8).reshape(2, 4)
        mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
        batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(2)}
        found = of(model, [batch], "mlp")
        assert torch.equal(found.inputs, model.embed(torch.tensor([0, 1, 4, 5, 6])).detach())
        everything = of(model, batch, "mlp", row_mask=None)
        assert len(everything) == 8

    def test_a_mask_may_be_a_function_of_the_batch(self) -> None:
        model = Tokens()
        found = of(model, [torch.tensor([[1, 0, 2]])], "mlp", row_mask=lambda ids: ids != 0)
        assert torch.equal(found.inputs, model.embed(torch.tensor([1, 2])).detach())

    def test_a_mask_of_another_shape_is_refused_even_where_the_numbers_agree(self) -> None:
        class Swapped(Tokens):
            def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
                return self.mlp(self.embed(input_ids).transpose(0, 1))

        batch = {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 3)}
        with pytest.raises(st.CaptureError, match=r"mask has shape \(2, 3\).*rows of shape \(3, 2\)"):
            of(Swapped(), [batch], "mlp")

    def test_a_mask_fits_rows_that_the_block_sees_flat(self) -> None:
        class Flat(Tokens):
            def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
                return self.mlp(self.embed(input_ids).flatten(0, 1))

        mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
        batch = {"input_ids": torch.arange(6).reshape(2, 3), "attention_mask": mask}
        assert len(of(Flat(), [batch], "mlp")) == 3

    def test_a_mask_that_is_no_tensor_or_drops_everything_is_an_error(self) -> None:
        ids = [torch.ones(1, 2, dtype=torch.long)]
        with pytest.raises(st.CaptureError, match="row_mask must give a tensor"):
            of(Tokens(), ids, "mlp", row_mask=lambda batch: [True])
        with pytest.raises(st.CaptureError, match="drops all of them"):
            of(Tokens(), ids, "mlp", row_mask=lambda batch: batch == 0)

    @pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 2, 5, 3), (3,)])
    def test_any_leading_shape_becomes_rows(self, mlp: nn.Sequential, shape: tuple[int, ...]) -> None:
        X = torch.randn(*shape)
        found = of(mlp, [X], "0")
        assert torch.equal(found.inputs, X.reshape(-1, 3))
        assert torch.equal(found.outputs, mlp[0](X).detach().reshape(-1, 4))

    @pytest.mark.parametrize(
        "data", [torch.empty(0, 3), np.empty((0, 3)), [], DataLoader(TensorDataset(torch.empty(0, 3)))]
    )
    def test_no_data_is_an_error(self, mlp: nn.Sequential, data: Any) -> None:
        with pytest.raises(st.CaptureError, match="data are empty"):
            of(mlp, data)

    def test_a_vector_of_numbers_is_not_mistaken_for_one_wide_row(self) -> None:
        with pytest.raises(st.CaptureError, match=r"data\[:, None\]"):
            of(nn.Sequential(nn.Identity()), torch.ones(100), "0")

    def test_what_is_no_data_is_named(self, mlp: nn.Sequential) -> None:
        with pytest.raises(st.CaptureError, match="int is not data"):
            of(mlp, 3)


class TestSample:
    def test_at_most_max_rows_are_kept_uniformly_and_in_order(self) -> None:
        X = torch.arange(10_000.0)[:, None]
        found = of(nn.Sequential(nn.Identity()), X, "0", max_rows=500)
        kept = found.inputs[:, 0]
        assert len(kept) == 500
        assert bool((kept.diff() > 0).all())
        # A uniform sample: each fifth of the data gives about a fifth of the rows (standard deviation: 9).
        counts = torch.histc(kept, bins=5, min=0, max=10_000)
        assert bool(((counts - 100).abs() < 40).all())
        assert found.source.rows_seen == 10_000

    @pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
    def test_the_cut_into_batches_does_not_matter(self, batch_size: int) -> None:
        X, model = rows(1000), nn.Sequential(nn.Identity())
        whole = of(model, [X], "0", max_rows=50)
        cut = of(model, X, "0", max_rows=50, batch_size=batch_size)
        assert torch.equal(whole.inputs, cut.inputs)

    def test_the_seed_decides(self) -> None:
        X, model = rows(1000), nn.Sequential(nn.Identity())
        first, again, other = (of(model, X, "0", max_rows=50, seed=seed).inputs for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize("option", [{"max_rows": 0}, {"batch_size": 0}, {"on_nonfinite": "ignore"}])
    def test_impossible_options_are_refused(self, mlp: nn.Sequential, option: dict[str, Any]) -> None:
        with pytest.raises(st.CaptureError, match=next(iter(option))):
            of(mlp, rows(), **option)

    def test_a_misspelt_option_is_suggested(self, mlp: nn.Sequential) -> None:
        with pytest.raises(st.SearchError, match="Did you mean 'select_input'"):
            of(mlp, rows(), select_inputs=0)


class TestBlocks:
    def test_several_blocks_come_from_one_pass(self, mlp: nn.Sequential) -> None:
        passes = 0

        def batches() -> Iterator[Tensor]:
            nonlocal passes
            passes += 1
            yield rows()

        found = st.capture(mlp, {"first": mlp[0], "last": mlp[2]}, batches())
        assert passes == 1
        assert found["first"].outputs.shape == (60, 4)
        assert torch.equal(found["last"].outputs, mlp(rows()).detach())

    def test_every_call_of_a_block_counts(self) -> None:
        model, X = Twice(), rows(5)
        found = of(model, X, "block")  # once by position, once by keyword
        assert (len(found), found.source.calls) == (10, 2)
        assert torch.equal(found.inputs[5:], found.outputs[:5])

        class Thrice(Twice):
            def forward(self, x: Tensor) -> Tensor:
                return self.block(self.block(self.block(x)))

        model = Thrice()
        found = of(model, X, "block")
        assert (len(found), found.source.calls) == (15, 3)
        assert torch.equal(found.inputs[5:10], found.outputs[:5])

    def test_inputs_by_keyword_only(self) -> None:
        class Named(nn.Module):
            def forward(self, *, x: Tensor, flag: bool) -> Tensor:
                return 2 * x if flag else x

        found = st.HookCapture().collect(Named(), [{"x": rows(), "flag": True}])
        assert torch.equal(found.outputs, 2 * found.inputs)
        assert found.source.select_input == ("x",)

    def test_several_inputs_are_listed_until_the_user_picks(self) -> None:
        block, batch = TwoInputs(), [(rows(), rows(d=1))]
        with pytest.raises(
            st.CaptureError, match=r"select_input= .*0: \(60, 3\) float32, 1: \(60, 1\) float32"
        ):
            st.HookCapture().collect(block, batch)
        both = st.HookCapture(select_input=[0, 1]).collect(block, batch)
        assert torch.equal(both.inputs, torch.cat([rows(), rows(d=1)], dim=1))

    def test_nested_outputs_are_picked_by_path(self) -> None:
        block, batch = TwoInputs(), [(rows(), rows(d=1))]
        default = st.HookCapture(select_input=0).collect(block, batch)
        assert torch.equal(default.outputs, rows() * rows(d=1))  # the first floating-point one
        second = st.HookCapture(select_input=0, select_output="out.1").collect(block, batch)
        assert torch.equal(second.outputs, rows() + rows(d=1))
        with pytest.raises(st.CaptureError, match=r"no tensor 'out.2'. Seen: steps: .*out.0: .*out.1"):
            st.HookCapture(select_input=0, select_output="out.2").collect(block, batch)

    def test_an_input_passed_several_times_is_one_input(self) -> None:
        attention = nn.MultiheadAttention(4, 2, batch_first=True)
        model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
        model.self_attn = attention
        assert of(model, torch.randn(2, 5, 4), "self_attn").inputs.shape == (10, 4)

    def test_fused_attention_calls_its_children_while_they_are_watched(self) -> None:
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
        model = nn.TransformerEncoder(layer, 2).eval()
        padding = torch.tensor([[False, False, True]])
        batch = {"src": torch.randn(1, 3, 4), "src_key_padding_mask": padding}
        enabled = torch.backends.mha.get_fastpath_enabled()
        found = of(model, [batch], "layers.1.linear1", row_mask=lambda b: ~b["src_key_padding_mask"])
        assert found.outputs.shape == (2, 8)
        assert torch.backends.mha.get_fastpath_enabled() == enabled

    def test_a_block_that_changes_its_input_in_place(self) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
        found = st.capture(model, ["0", "1"], rows())
        before = model[0](rows()).detach()
        assert torch.equal(found["1"].inputs, before)
        assert torch.equal(found["1"].outputs, before.relu())
        assert torch.equal(
            found["0"].outputs, before
        )  # what the block gave, not what the next one made of it

    def test_numbers_without_a_feature_dimension(self) -> None:
        found = st.HookCapture().collect(lambda x: x.sum(-1), torch.randn(4, 5, 3))
        assert found.outputs.shape == (20, 1)
        assert found.source.scalar_output

    def test_whole_numbers_and_half_precision_are_converted_and_float64_is_kept(self) -> None:
        counts = st.HookCapture().collect(lambda x: x // 2, torch.tensor([[4], [7]]))
        assert counts.outputs.dtype == torch.float32
        assert counts.outputs[:, 0].tolist() == [2.0, 3.0]
        half = of(nn.Sequential(nn.Linear(3, 2)).half(), rows().half(), "0")
        assert half.outputs.dtype == torch.float32
        double = of(nn.Sequential(nn.Linear(3, 2)).double(), rows().double(), "0")
        assert double.outputs.dtype == torch.float64

    def test_a_function_of_arrays(self) -> None:
        def doubled(x: np.ndarray) -> np.ndarray:
            assert isinstance(x, np.ndarray)
            x *= 2
            return x

        X = np.ones((10, 2))
        found = st.HookCapture().collect(doubled, iter([X.copy()]))
        assert (found.inputs[0, 0], found.outputs[0, 0]) == (
            1.0,
            2.0,
        )  # what came in, not what was left of it

    def test_a_block_never_called(self, mlp: nn.Sequential) -> None:
        with pytest.raises(st.CaptureError, match="'?other'? was never called"):
            st.capture(mlp, {"other": nn.Linear(3, 3)}, rows())

    def test_a_path_that_is_not_there(self, mlp: nn.Sequential) -> None:
        model = nn.ModuleDict({"encoder": mlp})
        with pytest.raises(st.CaptureError, match="no submodule 'encodr.1'. Close: .*encoder.1"):
            st.capture(model, ["encodr.1"], rows())

    def test_blocks_that_cannot_be_watched(self, mlp: nn.Sequential) -> None:
        with pytest.raises(st.CaptureError, match=r"list of paths, like \['1'\]"):
            st.capture(mlp, "1", rows())
        with pytest.raises(st.CaptureError, match="only a module can be watched"):
            st.capture(mlp, {"f": torch.sin}, rows())
        with pytest.raises(st.CaptureError, match="as a dict of modules for a function"):
            st.capture(torch.sin, ["1"], rows())

    def test_rows_that_do_not_match(self) -> None:
        class Pool(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.mean(dim=1)

        with pytest.raises(st.CaptureError, match=r"maps \(2, 5, 3\) to \(2, 3\): .* select_output="):
            st.HookCapture().collect(Pool(), [torch.randn(2, 5, 3)])

    def test_a_block_that_sees_rows_of_changing_width(self) -> None:
        with pytest.raises(st.CaptureError, match="3 features to 3 in one call and 2 to 2 in another"):
            st.HookCapture().collect(nn.Identity(), [rows(d=2), rows(d=3)])

    def test_a_module_registered_twice_is_found_by_both_names(self) -> None:
        shared = nn.Linear(3, 3)
        model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.Tanh())})
        found = st.HookCapture().collect_all(model["b"], {"x": model.get_submodule("b.0")}, rows())["x"]
        assert len(found) == 60
        assert len(of(nn.Sequential(shared, shared), rows(), "1")) == 120


class TestNonFinite:
    X = torch.tensor([[1.0], [float("nan")], [-1.0], [4.0]])

    def test_raising_counts_them(self) -> None:
        with pytest.raises(
            st.CaptureError, match=r"2 of 4 rows .*\(1 in the inputs, 2 in the outputs\).*\"drop\""
        ):
            st.HookCapture().collect(torch.sqrt, self.X)

    def test_dropping_counts_them(self) -> None:
        found = st.HookCapture(on_nonfinite="drop").collect(torch.sqrt, self.X)
        assert found.outputs[:, 0].tolist() == [1.0, 2.0]
        assert (found.source.rows_seen, found.source.rows_dropped) == (4, 2)

    def test_nothing_left(self) -> None:
        with pytest.raises(st.CaptureError, match="every row of .* NaN"):
            st.HookCapture(on_nonfinite="drop").collect(torch.log, -torch.ones(3, 1))


class Busy(nn.Module):
    """Draws random numbers, keeps statistics, replaces a buffer, and fails when asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("cache", None)
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        self.cache = x
        self.layers[1].running_mean.add_(1)
        torch.rand(1), np.random.rand(), random.random()
        if self.fail:
            raise RuntimeError("on purpose")
        return self.layers(x)


def picture(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and the world that a capture could disturb."""
    return {
        "flags": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "identity": [id(b) for b in model.buffers()],
        "buffers": [b.clone().tolist() for b in model.buffers()],
        "grads": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "frozen": [p.requires_grad for p in model.parameters()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "fused attention": torch.backends.mha.get_fastpath_enabled(),
    }


class TestLeftAsFound:
    @pytest.fixture
    def model(self) -> Busy:
        model = Busy()
        model.train()
        model.layers[2].eval()  # mixed flags
        next(model.parameters()).requires_grad_(False)
        model.layers(rows()).sum().backward()
        return model

    def test_after_a_capture(self, model: Busy) -> None:
        before = picture(model)
        found = st.capture(model, ["layers.0", "layers"], DataLoader(rows(), batch_size=9, shuffle=True))
        assert len(found["layers"]) == 60
        assert picture(model) == before
        assert model.cache is None

    def test_when_the_model_fails_in_the_middle(self, model: Busy) -> None:
        before = picture(model)
        model.fail = True
        with pytest.raises(RuntimeError, match="on purpose"):
            st.capture(model, ["layers"], rows())
        assert picture(model) == before

    def test_when_the_data_fail_in_the_middle(self, model: Busy) -> None:
        def data() -> Iterator[Tensor]:
            yield rows()
            raise ValueError("disk full")

        before = picture(model)
        with pytest.raises(ValueError, match="disk full"):
            st.capture(model, ["layers"], data())
        assert picture(model) == before

    def test_the_block_runs_in_evaluation_mode_without_gradients(self) -> None:
        class Spy(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                assert not self.training
                assert not torch.is_grad_enabled()
                return x

        model = nn.Sequential(nn.Linear(3, 3), Spy()).train()
        assert not of(model, rows()).outputs.requires_grad
        assert model[1].training


def test_progress_is_told_batch_by_batch(mlp: nn.Sequential) -> None:
    events: list[Event] = []
    of(mlp, rows(25), batch_size=10, callbacks=[events.append])
    assert events[:1] == [StageStarted("capture", 3)]
    assert events[1:4] == [StageAdvanced("capture")] * 3
    assert isinstance(events[4], StageFinished)
    assert len(events) == 5


class TestActivationsOfArrays:
    def test_lists_arrays_and_vectors(self) -> None:
        found = st.Activations.of(np.ones((4, 2), dtype=np.int64), [1, 2, 3, 4], weights=[1, 0, 1, 1])
        assert (found.inputs.shape, found.outputs.shape) == ((4, 2), (4, 1))
        assert found.inputs.dtype == torch.float32
        assert found.weights is not None
        assert found.input_names == ("x0", "x1")

    def test_float64_is_kept(self) -> None:
        assert st.Activations.of(np.ones((4, 2)), np.ones(4)).outputs.dtype == torch.float64

    def test_dropped_rows_take_their_weights_along(self) -> None:
        found = st.Activations.of(
            [[1.0], [2.0], [3.0]], [1.0, float("inf"), 3.0], weights=[1, 2, 3], on_nonfinite="drop"
        )
        assert found.weights is not None
        assert found.weights.tolist() == [1.0, 3.0]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"X": np.ones((3, 1)), "Y": np.ones(2)}, "X has 3 rows, Y has 2"),
            ({"X": np.ones((0, 1)), "Y": np.ones(0)}, "no rows"),
            ({"X": np.ones((2, 1)), "Y": [1.0, float("nan")]}, "1 of 2 rows"),
            ({"X": [["a"]], "Y": [1]}, "X is not an array of numbers"),
            ({"X": np.ones((2, 1)), "Y": np.ones(2) * 1j}, "Y is complex"),
            ({"X": np.ones((2, 1)), "Y": np.ones(2), "weights": [1]}, "1 entries for 2 rows"),
            ({"X": np.ones((2, 1)), "Y": np.ones(2), "weights": [1, -1]}, "not negative"),
            ({"X": np.ones((2, 1)), "Y": np.ones(2), "weights": [0, 0]}, "all weights are zero"),
            ({"X": np.ones((2, 2)), "Y": np.ones(2), "variable_names": ["a"]}, "1 input names for 2 inputs"),
            ({"X": np.ones((2, 2)), "Y": np.ones(2), "variable_names": ["a", "a"]}, "must differ"),
            ({"X": np.ones((2, 1)), "Y": np.ones(2), "variable_names": ["a b"]}, "cannot name a variable"),
        ],
    )
    def test_what_cannot_be_used_is_said(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(st.CaptureError, match=message):
            st.Activations.of(**arguments)
