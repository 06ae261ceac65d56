"""Blocks and data as they come: TorchScript, offloaded weights, data frames, arrays of other kinds, several blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.testing.scripted import ScriptedRegressor

FIRST = ScriptedRegressor(equations=("2*x0 + 3*x1",))


class Law(nn.Module):
    """2 x0 + 3 x1, with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[2.0], [3.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def array() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)


def is_found(result: st.Distillation, rows: int = 300) -> bool:
    return result.provenance.source.rows_seen == rows and result.fidelity[0].train.r2 > 1 - 1e-9


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
class TestBlocks:
    @pytest.mark.parametrize(
        "compile_script", [torch.jit.script, lambda net: torch.jit.trace(net, torch.ones(2, 2))]
    )
    def test_torchscript(self, compile_script: Any) -> None:
        block = compile_script(Law())
        assert is_found(st.distill(block, torch.from_numpy(array()), regressor=FIRST, progress=False))
        assert not block._forward_hooks
        model = nn.Sequential(nn.Linear(2, 2), compile_script(Law()))
        wrapper = st.wrap(model, "1")
        assert is_found(wrapper.distill(array(), parent=model, regressor=FIRST, progress=False))
        before = model(torch.from_numpy(array()))
        wrapper.switch_to_symbolic()
        assert torch.allclose(model(torch.from_numpy(array())), before, atol=1e-4)

    def test_weights_kept_elsewhere_until_the_block_runs(self) -> None:
        """As accelerate's ``disk_offload`` does: on the meta device, filled in by hooks around each call."""

        class Offloaded(Law):
            def __init__(self) -> None:
                super().__init__()
                self.kept, self.weight = self.weight.data, nn.Parameter(self.weight.to("meta"))
                self.register_buffer("none", torch.empty(3, device="meta"))
                inner = self.forward

                def forward(x: Tensor) -> Tensor:
                    self.weight = nn.Parameter(self.kept)
                    y = inner(x)
                    self.weight = nn.Parameter(self.kept.to("meta"))
                    return y

                self.forward = forward  # type: ignore[method-assign]

        assert is_found(st.distill(Offloaded(), array(), regressor=FIRST, progress=False))
        model = nn.Sequential(Offloaded())
        block = st.wrap(model, "0")
        assert is_found(block.distill(array(), parent=model, regressor=FIRST, progress=False))
        block.switch_to_symbolic()
        assert torch.allclose(model(torch.from_numpy(array())), Law()(torch.from_numpy(array())), atol=1e-5)

    def test_weights_that_are_nowhere(self) -> None:
        with pytest.raises(st.CaptureError, match="meta device.*load them"):
            st.distill(Law().to("meta"), array(), regressor=FIRST, progress=False)


class TestData:
    @pytest.mark.parametrize("kind", [pd.DataFrame, lambda X: X.astype(">f8"), np.ma.masked_array])
    @pytest.mark.parametrize("block", [Law(), lambda X: np.asarray(X) @ [[2.0], [3.0]]])
    def test_kinds_of_arrays(self, kind: Any, block: Any) -> None:
        assert is_found(st.distill(block, kind(array()), regressor=FIRST, progress=False))

    def test_data_frames_inside_batches(self) -> None:
        frame = pd.DataFrame(array())
        assert is_found(st.distill(Law(), [frame[:100], frame[100:]], regressor=FIRST, progress=False))
        assert is_found(st.distill(Law(), {"x": frame}, regressor=FIRST, progress=False))

    def test_masked_entries_are_missing_values(self) -> None:
        X = np.ma.masked_array(array(), array() > 2.5)
        missing = int(X.mask.any(axis=1).sum())
        assert missing > 0
        with pytest.raises(st.CaptureError, match=f"{missing} of 300 rows hold NaN"):
            st.distill(Law(), X, regressor=FIRST, progress=False)
        options = {"on_nonfinite": "drop"}
        result = st.distill(Law(), X, regressor=FIRST, capture_options=options, progress=False)
        assert result.provenance.source.rows_dropped == missing

    def test_a_table_of_words_is_refused(self) -> None:
        with pytest.raises(st.CaptureError, match="not numbers"):
            st.distill(Law(), pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}), regressor=FIRST, progress=False)


class Sentences(nn.Module):
    """A body that sees one row for each token, and a head that sees one for each sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.body, self.head = nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.body(self.emb(input_ids)) * attention_mask[..., None]
        y: Tensor = self.head(tokens.sum(1))
        return y


class TestSeveralBlocks:
    BATCH = {  # noqa: RUF012
        "input_ids": torch.arange(12).reshape(3, 4) % 10,
        "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]),
    }

    def test_each_has_its_own_rows(self) -> None:
        found = st.capture(Sentences(), ["body", "head"], self.BATCH, row_mask={"head": None})
        assert (len(found["body"]), len(found["head"])) == (9, 3)
        chosen = {"head": lambda batch: batch["attention_mask"].sum(1) > 2, "body": None}
        found = st.capture(Sentences(), ["body", "head"], self.BATCH, row_mask=chosen)
        assert (len(found["body"]), len(found["head"])) == (12, 2)

    def test_one_mask_that_does_not_fit_says_so(self) -> None:
        with pytest.raises(st.CaptureError, match=r"a mask for each block: \{'head': None\}"):
            st.capture(Sentences(), ["body", "head"], self.BATCH)

    def test_a_block_that_is_not_captured_is_named(self) -> None:
        with pytest.raises(st.CaptureError, match="row_mask names the block 'tail'"):
            st.capture(Sentences(), ["body"], self.BATCH, row_mask={"tail": None})

    def test_each_has_its_own_tensors(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cell, self.out = nn.GRUCell(2, 3), nn.Linear(3, 1)

            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.out(self.cell(x, x.new_zeros(len(x), 3)))
                return y

        found = st.capture(Two(), ["cell", "out"], torch.ones(5, 2), select_input={"cell": "hx"})
        assert found["cell"].inputs.shape == (5, 3)
        assert found["out"].inputs.shape == (5, 3)


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("name", ["hx", "1"])
def test_an_argument_has_one_name_however_it_is_passed(by_keyword: bool, name: str) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = torch.cat([x, x[:, :1]], dim=1)
            y: Tensor = self.cell(x, hx=state) if by_keyword else self.cell(x, state)
            return y

    X, model = torch.from_numpy(array()), Recurrent()
    found = st.capture(model, ["cell"], X, select_input=name)["cell"]
    assert torch.equal(found.inputs, torch.cat([X, X[:, :1]], dim=1))
    block = st.wrap(model, "cell")
    options = {"select_input": name}
    block.distill(X, parent=model, regressor=FIRST, capture_options=options, progress=False)
    block.switch_to_symbolic()
    assert model(X).shape == (300, 3)
