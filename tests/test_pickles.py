"""Pickled and copied models: the rows of a capture stay in memory, where plots need them."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import symtorch_core as st
from symtorch_core.testing.scripted import ScriptedRegressor

X = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))


def make() -> tuple[nn.Sequential, st.Distillation]:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    result = st.wrap(model, "1").distill(
        X, parent=model, regressor=ScriptedRegressor(equations=("x0 + x1",)), progress=False
    )
    model[1].switch_to_symbolic()
    return model, result


def test_a_pickled_model_has_no_rows_and_runs_as_before() -> None:
    model, result = make()
    file = io.BytesIO()
    torch.save(model, file)
    assert len(file.getvalue()) < 60_000  # the rows alone are 120 kB
    file.seek(0)
    for again in (torch.load(file, weights_only=False), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(X), model(X))
        assert again[1].distillation.fronts == result.fronts
        assert (again[1].distillation.train, again[1].distillation.held_out) == (None, None)
        assert dict(again.named_parameters()).keys() == dict(model.named_parameters()).keys()
        again[1].switch_to_block().switch_to_symbolic()
        assert torch.equal(again(X), model(X))
    assert model[1].distillation is result
    assert result.train is not None


def test_a_result_keeps_its_rows_until_they_are_left_out() -> None:
    _, result = make()
    assert len(pickle.loads(pickle.dumps(result)).train) == 4000
    bare = result.without_rows()
    assert (bare.train, bare.held_out, bare.fronts) == (None, None, result.fronts)
    assert len(pickle.dumps(bare)) < 30_000
    with pytest.raises(st.SelectionError, match="rows"):
        bare.plot("fit")


def test_a_deep_copy_shares_rows_and_nothing_else() -> None:
    model, result = make()
    twin = copy.deepcopy(model)
    copied = twin[1].distillation
    assert copied is not result
    assert copied.train is result.train
    assert copied.held_out is result.held_out
    assert copied.transforms is not result.transforms
    with torch.no_grad():
        twin[1].surrogate.constants.zero_()
    assert not torch.equal(twin(X), model(X))
    assert twin[1].surrogate is not model[1].surrogate
    with model[1].running("block"):
        assert copy.deepcopy(model)[1].mode == "block"
