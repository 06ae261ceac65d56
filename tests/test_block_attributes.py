"""Wrapping changes nothing for whoever uses the block: attributes, weights, items, tracing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.testing.scripted import ScriptedRegressor


class Scaled(nn.Module):
    """Something with state that others set."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x) * self.scale
        return y


class Holder(nn.Module):
    def __init__(self, enc: nn.Module) -> None:
        super().__init__()
        self.enc = enc

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.enc(x) + 1
        return y


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(7, 3)
        self.head = nn.Linear(3, 7, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.head(self.emb(ids))
        return y


def rows() -> Tensor:
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def symbolic(model: nn.Module, path: str) -> st.SymbolicModel:
    block = st.wrap(model, path)
    scripted = ScriptedRegressor(equations=("x0", "x0 + 2*x1"))
    block.distill(rows(), parent=model, regressor=scripted, select="accuracy", progress=False)
    return block.switch_to_symbolic()


class TestAttributes:
    def test_what_is_written_reaches_the_block(self) -> None:
        model = Holder(Scaled())
        block = st.wrap(model, "enc")
        before = block(rows())
        model.enc.scale = 3.0
        assert torch.allclose(block(rows()), 3 * before)
        assert block.block.scale == 3.0
        model.enc.remark = "new"
        assert block.block.remark == "new"
        del model.enc.remark
        assert "remark" not in vars(block.block)

    def test_buffers_weights_and_children_reach_it_too(self) -> None:
        block = st.SymbolicModel(Scaled())
        block.linear = nn.Linear(3, 3, bias=False)
        block.linear.weight = nn.Parameter(torch.eye(3))
        assert torch.equal(block(rows()), rows())
        assert sorted(dict(block.named_parameters())) == ["block.linear.weight"]

    def test_what_is_registered_reaches_it_too(self) -> None:
        block = st.SymbolicModel(Scaled())
        block.register_buffer("offset", torch.ones(3))
        block.register_parameter("gain", nn.Parameter(torch.ones(3)))
        block.add_module("after", nn.Tanh())
        assert {"block.offset", "block.gain"} < set(block.state_dict())
        assert isinstance(block.block.after, nn.Tanh)

    def test_private_attributes_stay_with_whoever_had_them(self) -> None:
        class Cached(Scaled):
            _cache: Tensor | None = None

        block = st.SymbolicModel(Cached())
        block._cache = torch.ones(1)
        assert block.block._cache is block._cache
        block._mark = 1
        assert block._mark == 1
        assert not hasattr(block.block, "_mark")
        del block._mark, block._cache
        assert not hasattr(block, "_mark")
        assert block.block._cache is None

    def test_the_wrapper_keeps_what_is_its_own(self) -> None:
        block = st.SymbolicModel(Scaled())
        block.name = "other"
        block.eval()
        assert block.name == "other"
        assert "name" not in vars(block.block)
        assert not block.training
        with pytest.raises(AttributeError):
            block.mode = "symbolic"  # type: ignore[misc,assignment]

    def test_copies_are_whole(self) -> None:
        block = st.SymbolicModel(Scaled())
        block.scale = 2.0
        for again in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
            assert torch.equal(again(rows()), block(rows()))
            again.scale = 4.0
            assert torch.allclose(again(rows()), 2 * block(rows()))

    @pytest.mark.parametrize("path", ["emb", "head"])
    def test_weights_are_tied_after_wrapping(self, path: str) -> None:
        model = Tied()
        st.wrap(model, path)
        model.head.weight = model.emb.weight
        assert len(list(model.parameters())) == 1
        ids = torch.arange(7)
        weight = model.emb.weight
        assert torch.allclose(model(ids), weight @ weight.T)


class TestContainers:
    def test_a_sequential_is_iterated_indexed_and_measured(self) -> None:
        layers = [nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)]
        model = nn.Sequential(nn.Sequential(*layers))
        block = st.wrap(model, "0")
        assert len(block) == 3
        assert list(block) == layers
        assert block[1] is layers[1]
        assert block[-1] is layers[2]
        assert torch.equal(block[:2](rows()), layers[1](layers[0](rows())))
        assert layers[0] in block
        assert bool(block)

    def test_layers_are_replaced_and_removed(self) -> None:
        block = st.SymbolicModel(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)))
        block[1] = nn.ReLU()
        del block[2]
        block.append(nn.Linear(3, 4))
        assert [type(layer) for layer in reversed(block)] == [nn.Linear, nn.ReLU, nn.Linear]
        assert block(rows()).shape == (40, 4)

    def test_other_blocks_have_no_length_and_are_true(self) -> None:
        block = st.SymbolicModel(nn.Linear(3, 3))
        assert bool(block)
        with pytest.raises(TypeError, match="Linear"):
            len(block)
        with pytest.raises(TypeError, match="Linear"):
            iter(block)

    def test_layers_of_a_block_that_runs_on_equations_are_not_handed_out(self) -> None:
        model = Holder(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
        block = symbolic(model, "enc")
        with pytest.raises(st.SwitchError, match="go round them"):
            list(block)
        assert len(block.block) == 2

    @pytest.mark.parametrize(
        "kind", [nn.ModuleList, lambda layers: nn.ModuleDict(zip("ab", layers, strict=True))]
    )
    def test_what_is_never_called_is_refused(self, kind: type[nn.ModuleList]) -> None:
        model = Holder(kind([nn.Linear(3, 3), nn.Linear(3, 3)]))
        first = next(name for name, _ in model.enc.named_children())
        with pytest.raises(st.SwitchError, match=f"never called itself.*enc.{first}"):
            st.wrap(model, "enc")
        assert not isinstance(model.enc, st.SymbolicModel)
        with pytest.raises(st.CaptureError, match="never called itself"):
            st.capture(model, ["enc"], rows())
        with pytest.raises(st.CaptureError, match="never called itself"):
            st.distill(model.enc, rows(), progress=False)


class TestTracing:
    def test_a_traced_model_runs_in_both_modes_and_follows_the_switch(self) -> None:
        model = Holder(nn.Linear(3, 2))
        st.wrap(model, "enc")
        traced = torch.fx.symbolic_trace(model)
        neural = model(rows())
        assert torch.equal(traced(rows()), neural)
        block = symbolic(again := Holder(nn.Linear(3, 2)), "enc")
        traced = torch.fx.symbolic_trace(again)
        assert torch.equal(traced(rows()), again(rows()))
        block.switch_to_block()
        assert torch.equal(traced(rows()), block.block(rows()) + 1)

    def test_arguments_by_keyword_are_traced(self) -> None:
        class ByKeyword(Holder):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.enc(input=x)
                return y

        model = ByKeyword(nn.Linear(3, 2))
        symbolic(model, "enc")
        assert torch.equal(torch.fx.symbolic_trace(model)(rows()), model(rows()))
