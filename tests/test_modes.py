"""Whatever mode of torch the caller is in, what needs gradients has them, and the mode is as before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn

import symtorch_core as st
from symtorch_core.testing import ScriptedRegressor

X = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
MODES = {
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "inference_mode": torch.inference_mode,
}
SCRIPTED = ScriptedRegressor(("a*sin(1.9*b) + 0.4",))

Mode = Callable[[], AbstractContextManager[object]]


class Block(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * x[:, :1] * torch.sin(2 * x[:, 1:2]) + 0.5


@pytest.fixture(params=MODES.values(), ids=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    made: Mode = request.param
    return made


@pytest.mark.parametrize("loss", ["mse", "mae", "log(1 + abs(r))"])
@pytest.mark.parametrize("kind", ["arrays", "made inside", "block", "parent"])
def test_distilling(mode: Mode, kind: str, loss: str) -> None:
    with mode():
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        rows = X + 0 if kind == "made inside" else X
        parent = nn.Sequential(nn.Identity(), Block())
        arguments = {
            "arrays": ((rows, Block()(rows)), None),
            "made inside": ((rows, Block()(rows)), None),
            "block": (Block(), rows),
            "parent": (parent[1], rows),
        }[kind]
        result = st.distill(
            *arguments,
            parent=parent if kind == "parent" else None,
            regressor=SCRIPTED,
            variable_names=["a", "b", "c"],
            loss=loss,
            progress=False,
        )
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (grad, inference)
    # The constants were refitted, which takes gradients.
    assert result.fidelity[0].held_out is not None
    assert result.fidelity[0].held_out.r2 > 0.999999


def test_refining_a_switched_block(mode: Mode) -> None:
    block = st.SymbolicModel(Block())
    with mode():
        block.distill(X, regressor=SCRIPTED, variable_names=["a", "b", "c"], refine=False, progress=False)
        block.switch_to_symbolic(select="accuracy")
        done = block.refine(X, epochs=10, progress=False, batch_size=20)
    assert done.after < done.before


@pytest.mark.parametrize("method", ["active", "trained"])
def test_reducers_that_follow_slopes(mode: Mode, method: str) -> None:
    pytest.importorskip("symtorch_projection")
    with mode():
        result = st.distill(
            Block(),
            X,
            regressor="sparse",
            reducer="projection",
            reducer_options={"method": method, "k_in": 2, **({"epochs": 2} if method == "trained" else {})},
            progress=False,
        )
    assert result.reduction.variable_names == ("z0", "z1")


def test_sweeps_and_ranks(mode: Mode) -> None:
    pytest.importorskip("symtorch_projection")
    block = st.SymbolicModel(nn.Linear(3, 4))
    with mode():
        sweep = st.sweep_reducers(
            nn.Linear(3, 4), X, reducers=["projection"], k_in=[2], network=True, progress=False
        )
        ranks = st.rank_outputs(block, X, by="gradient", loss=lambda y: y.square().sum())
    assert len(sweep.rows) == 1
    assert sorted(ranks.order) == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_checkpoint_that_was_cast_loads(dtype: torch.dtype) -> None:
    def make() -> st.SymbolicModel:
        return st.SymbolicModel(nn.Sequential(nn.Linear(3, 4), nn.Tanh()))

    block = make()
    block.prune_outputs(torch.tensor([True, False, True, True]))
    block.distill(X, regressor=SCRIPTED, variable_names=["a", "b", "c"], progress=False)
    block.switch_to_symbolic(select="accuracy")
    cast = {key: value.to(dtype) for key, value in block.state_dict().items()}
    for assign in (False, True):
        fresh = make()
        fresh.load_state_dict(cast, assign=assign)
        assert (fresh.mode, fresh.pruned_outputs) == ("symbolic", (1,))
        torch.testing.assert_close(fresh(X), block(X), rtol=2e-2, atol=2e-2)
    plain = make()  # a block's own numbers are not taken for a wrapper's state
    plain.load_state_dict({key: value.to(dtype) for key, value in plain.block.state_dict().items()})
    assert plain.mode == "block"


@pytest.mark.parametrize("symbolic", [False, True])
def test_pruned_blocks_compile_whole_and_export(symbolic: bool) -> None:
    block = st.SymbolicModel(nn.Linear(3, 3))
    block.prune_outputs(torch.tensor([True, False, True]))
    if symbolic:
        block.distill(
            X, regressor=ScriptedRegressor(("a + b + c",)), variable_names=["a", "b", "c"], progress=False
        )
        block.switch_to_symbolic()
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), block(X))
        assert float(compiled(X)[:, 1].abs().max()) == 0
        exported = torch.export.export(block, (X,)).module()
        torch.testing.assert_close(exported(X), block(X))
