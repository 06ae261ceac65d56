"""The identity reducer keeps the contract, and so does the capture by hooks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import symtorch_core as st
from symtorch_core.activations.hooks import HookCapture
from symtorch_core.reduction.linear import IdentityReducer
from symtorch_core.testing import CaptureContract, ReducerContract
from symtorch_core.testing.scripted import ScriptedRegressor


class TestIdentity(ReducerContract):
    @pytest.fixture
    def reducer(self) -> IdentityReducer:
        return IdentityReducer()


class TestIdentityWithLinearPart(ReducerContract):
    @pytest.fixture
    def reducer(self) -> IdentityReducer:
        return IdentityReducer(linear=True)


class TestHooks(CaptureContract):
    @pytest.fixture
    def capture(self) -> HookCapture:
        return HookCapture()


def test_identity_changes_nothing() -> None:
    X, Y = torch.rand(5, 3), torch.rand(5, 2)
    reduction = IdentityReducer().fit(X, Y, variable_names=["a", "b", "c"])
    assert reduction.variable_names == ("a", "b", "c")
    assert reduction.keeps_outputs
    assert torch.equal(reduction.reduce_inputs(X), X)
    assert torch.equal(reduction.reduce_targets(Y, X), Y)
    assert torch.equal(reduction.restore_outputs(Y, X), Y)


def test_equations_explain_what_a_linear_part_leaves(tmp_path: Path) -> None:
    X = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 4 - 2
    result = st.distill(
        (X, torch.sin(2 * X[:, :1]) + 3 * X[:, :1] - X[:, 1:]),
        regressor=ScriptedRegressor(equations=("sin(2.0*x0) - 0.1*x0 + 0.1*x1 + 0.1",)),
        reducer="identity",
        reducer_options={"linear": True},
        select="accuracy",
        progress=False,
    )
    assert result.fidelity[0].held_out.r2 > 1 - 1e-9
    assert result.fidelity[0].linear.r2 < 0.99
    result.save(tmp_path / "result.json")
    again = st.Distillation.load(tmp_path / "result.json")
    assert again.fidelity[0].linear == result.fidelity[0].linear
