"""The test suite that every capture must pass."""

from __future__ import annotations

import random
from abc import ABC
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from symtorch_core.activations.hooks import Capture
from symtorch_core.errors import CaptureError, SearchError
from symtorch_core.events.records import Event, StageFinished, StageStarted

ROWS = 120


class CaptureContract(ABC):  # noqa: B024 - the fixture that a subclass gives is pytest's business
    """Tests of a capture: subclass it, define a fixture ``capture``, and run pytest.

    The fixture returns an instance with its default options.

        class TestMine(CaptureContract):
            @pytest.fixture
            def capture(self):
                return MyCapture()
    """

    @pytest.mark.parametrize("kind", ["tensor", "array", "batches", "loader"])
    def test_inputs_and_outputs_belong_together(self, capture: Capture, kind: str) -> None:
        model, X = network(), inputs()
        data: Any = {
            "tensor": X,
            "array": X.numpy(),
            "batches": [X[:50], X[50:]],
            "loader": DataLoader(TensorDataset(X, torch.zeros(ROWS)), batch_size=32),
        }[kind]
        found = capture.collect(model[3], data, parent=model)
        assert (len(found), found.inputs.shape[1], found.outputs.shape[1]) == (ROWS, 4, 2)
        assert torch.allclose(model[3](found.inputs), found.outputs, atol=1e-5)

    def test_a_block_can_run_without_a_parent(self, capture: Capture) -> None:
        block = nn.Linear(3, 2)
        found = capture.collect(block, inputs())
        assert torch.equal(found.inputs, inputs())
        assert torch.allclose(found.outputs, block(inputs()).detach(), atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_block_in_half_precision_is_captured_in_single(
        self, capture: Capture, dtype: torch.dtype
    ) -> None:
        block, X = nn.Linear(3, 2).to(dtype), inputs()[:, :3].to(dtype)
        found = capture.collect(block, X)
        assert found.inputs.dtype == found.outputs.dtype == torch.float32
        assert torch.equal(found.inputs, X.float())
        assert torch.equal(found.outputs, block(X).detach().float())

    def test_a_function_can_be_captured(self, capture: Capture) -> None:
        found = capture.collect(torch.sin, inputs())
        assert torch.allclose(found.outputs, found.inputs.sin())

    def test_any_leading_shape_becomes_rows(self, capture: Capture) -> None:
        found = capture.collect(nn.Linear(3, 2), inputs().reshape(10, 4, 3, 3))
        assert found.inputs.shape == (ROWS, 3)
        assert found.outputs.shape == (ROWS, 2)

    def test_rows_are_detached_cpu_tensors(self, capture: Capture) -> None:
        found = capture.collect(nn.Linear(3, 2).double(), inputs().double())
        assert found.inputs.dtype == torch.float64
        for tensor in (found.inputs, found.outputs, capture.collect(nn.Linear(3, 2), inputs()).outputs):
            assert tensor.device.type == "cpu"
            assert not tensor.requires_grad

    def test_the_budget_is_a_seeded_sample(self, capture: Capture) -> None:
        def sample(seed: int) -> Tensor:
            return capture.collect(nn.Identity(), inputs(), max_rows=20, seed=seed).inputs

        assert len(sample(0)) == 20
        assert torch.equal(sample(0), sample(0))
        assert not torch.equal(sample(0), sample(1))
        everything = {tuple(row) for row in inputs().tolist()}
        kept = [tuple(row) for row in sample(0).tolist()]
        assert len(set(kept)) == 20
        assert everything.issuperset(kept)

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_model_and_global_state_are_unchanged(self, capture: Capture, fails: bool) -> None:
        model = network()
        model.train()
        model[2].eval()
        model(inputs()).sum().backward()
        before = take_snapshot(model)
        data = [inputs(), torch.ones(2, 99)] if fails else [inputs()]
        try:
            capture.collect(model[3], data, parent=model)
        except (RuntimeError, CaptureError):
            assert fails
        else:
            assert not fails
        assert take_snapshot(model) == before

    def test_data_without_rows_raise_an_error(self, capture: Capture) -> None:
        model = network()
        with pytest.raises(CaptureError):
            capture.collect(model[3], [], parent=model)
        with pytest.raises(CaptureError):
            capture.collect(nn.Linear(3, 2), inputs(), parent=model)  # never called
        with pytest.raises(CaptureError):
            capture.collect(nn.Linear(3, 2), torch.full((4, 3), float("nan")))

    def test_it_reports_its_stage_once(self, capture: Capture) -> None:
        events: list[Event] = []
        capture.collect(nn.Linear(3, 2), inputs(), callbacks=[events.append])
        stages = [event for event in events if isinstance(event, (StageStarted, StageFinished))]
        assert [type(event) for event in stages] == [StageStarted, StageFinished]
        assert {event.stage for event in stages} == {"capture"}

    def test_options_are_declared(self, capture: Capture) -> None:
        options = {name: getattr(capture, name) for name in capture.option_names()}
        assert type(capture).with_options(options) == capture
        with pytest.raises(SearchError, match="no_such_option"):
            type(capture).with_options({"no_such_option": 1})


def inputs() -> Tensor:
    """Return the suite's data, shape (ROWS, 3)."""
    return torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    """Build a model with batch statistics and dropout, whose last layer is the block."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def take_snapshot(model: nn.Module) -> dict[str, Any]:
    """Return everything that a capture could disturb."""
    return {
        "flags": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "state": {key: value.tolist() for key, value in model.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "trainable": [p.requires_grad for p in model.parameters()],
        "random": (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()),  # type: ignore[index]
    }
