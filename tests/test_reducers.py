"""The identity reducer keeps the contract, and so does the capture by hooks."""

from __future__ import annotations

import pytest
import torch

from symtorch_core.capture import HookCapture
from symtorch_core.reducer import IdentityReducer
from symtorch_core.testing import CaptureContract, ReducerContract


class TestIdentity(ReducerContract):
    @pytest.fixture
    def reducer(self) -> IdentityReducer:
        return IdentityReducer()


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
