"""The test suite that every reducer must pass."""

from __future__ import annotations

import copy
import io
import json
import random
from abc import ABC
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from symtorch_core.activations.rows import BlockFunction
from symtorch_core.errors import FileFormatError, SearchError
from symtorch_core.expressions import Variable
from symtorch_core.reduction.reducer import Reducer, Reduction
from symtorch_core.surrogates.surrogate import TorchSurrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.testing.options import check_options_refuse_wrong_types

D_IN, D_OUT, ROWS = 6, 3, 60
NAMES = ("alpha", "beta", "gamma_1", "delta", "epsilon", "zeta")


class ReducerContract(ABC):  # noqa: B024 - the fixture that a subclass gives is pytest's business
    """Tests of a reducer: subclass it, define a fixture ``reducer``, and run pytest.

    The fixture returns an instance that can reduce 6 inputs and 3 outputs.

        class TestMine(ReducerContract):
            @pytest.fixture
            def reducer(self):
                return MyReducer(k=2)
    """

    @staticmethod
    def block(X: Tensor) -> Tensor:
        """Return the suite's outputs (..., 3) for inputs (..., 6): the block that is reduced."""
        return outputs(X)

    def fit(
        self,
        reducer: Reducer,
        X: Tensor | None = None,
        Y: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        block: BlockFunction | None = None,
    ) -> Reduction:
        """Fit the reducer to the suite's data, or to the given ones."""
        X = inputs() if X is None else X
        Y = outputs(X) if Y is None else Y
        return reducer.fit(X, Y, variable_names=NAMES[: X.shape[1]], weights=weights, block=block, seed=3)

    def test_shapes_of_reduced_and_restored_rows(self, reducer: Reducer) -> None:
        reduction = self.fit(reducer)
        Z = reduction.reduce_inputs(inputs())
        T = reduction.reduce_targets(outputs(), Z)
        assert Z.shape == (ROWS, len(reduction.variable_names))
        assert T.shape[0] == ROWS
        assert T.shape[1] >= 1
        assert reduction.restore_outputs(T, Z).shape == (ROWS, D_OUT)

    @pytest.mark.parametrize("leading", [(), (1,), (2, 5), (0,)])
    def test_any_leading_shape(self, reducer: Reducer, leading: tuple[int, ...]) -> None:
        reduction = self.fit(reducer)
        count = int(np.prod(leading))
        X, Y = inputs()[:count].reshape(*leading, D_IN), outputs()[:count].reshape(*leading, D_OUT)
        Z = reduction.reduce_inputs(X)
        T = reduction.reduce_targets(Y, Z)
        back = reduction.restore_outputs(T, Z)
        assert back.shape == (*leading, D_OUT)
        assert torch.allclose(
            back.reshape(-1, D_OUT), project_outputs(reduction, inputs(), outputs())[:count], atol=1e-5
        )

    def test_options_of_a_wrong_type_are_refused_at_once(self, reducer: Reducer) -> None:
        check_options_refuse_wrong_types(reducer)

    def test_variables_have_names_that_equations_can_use(self, reducer: Reducer) -> None:
        names = self.fit(reducer).variable_names
        assert len(names) >= 1
        assert len(set(names)) == len(names)
        assert all(name.isidentifier() for name in names)

    def test_the_maps_restore_outputs_they_can_express(self, reducer: Reducer) -> None:
        # up undoes project: outputs that came from some f(z) are reduced to the same f(z).
        reduction = self.fit(reducer)
        Z = reduction.reduce_inputs(inputs())
        T = reduction.reduce_targets(outputs(), Z)
        again = reduction.reduce_targets(reduction.restore_outputs(T, Z), Z)
        assert torch.allclose(again, T, rtol=1e-3, atol=1e-4)
        if reduction.keeps_outputs:
            assert torch.equal(T, outputs())

    def test_targets_exclude_the_linear_part(self, reducer: Reducer) -> None:
        reduction = self.fit(reducer)
        Z = reduction.reduce_inputs(inputs())
        if reduction.linear is None:
            return
        share = reduction.linear(Z)
        assert share.shape == (ROWS, D_OUT)
        assert torch.allclose(reduction.reduce_targets(outputs(), Z), reduction.project(outputs() - share))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_type_of_the_data_is_kept(self, reducer: Reducer, dtype: torch.dtype) -> None:
        X = inputs().to(dtype)
        reduction = self.fit(reducer, X)
        Z = reduction.reduce_inputs(X)
        T = reduction.reduce_targets(outputs(X), Z)
        assert {Z.dtype, T.dtype, reduction.restore_outputs(T, Z).dtype} == {dtype}

    def test_it_moves_and_casts_like_any_module(self, reducer: Reducer) -> None:
        reduction = self.fit(reducer)
        double = copy.deepcopy(reduction).double()
        assert double.reduce_inputs(inputs().double()).dtype == torch.float64
        elsewhere = copy.deepcopy(reduction).to("meta")
        assert elsewhere.reduce_inputs(inputs().to("meta")).device.type == "meta"

    def test_its_parameters_are_frozen(self, reducer: Reducer) -> None:
        assert not any(parameter.requires_grad for parameter in self.fit(reducer).parameters())

    def test_gradients_pass_through(self, reducer: Reducer) -> None:
        X = inputs().requires_grad_()
        self.fit(reducer, X.detach()).reduce_inputs(X).sum().backward()
        assert X.grad is not None
        assert bool(torch.isfinite(X.grad).all())

    def test_same_data_and_seed_same_maps(self, reducer: Reducer) -> None:
        first, second = self.fit(reducer), self.fit(reducer)
        assert first.shape == second.shape
        for key, value in first.state_dict().items():
            assert torch.equal(second.state_dict()[key], value)

    def test_global_state_and_data_are_unchanged(self, reducer: Reducer) -> None:
        X, Y = inputs(), outputs()
        before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]
        self.fit(reducer, X, Y)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
        assert random.getstate() == before[2]
        assert torch.equal(X, inputs())
        assert torch.equal(Y, outputs())

    def test_saved_maps_are_restored_from_text_and_tensors(self, reducer: Reducer) -> None:
        reduction = self.fit(reducer)
        shape = json.loads(json.dumps(reduction.shape))
        file = io.BytesIO()
        torch.save(reduction.state_dict(), file)
        file.seek(0)
        restored = type(reducer).restore(shape)
        restored.load_state_dict(torch.load(file, weights_only=True))
        assert restored.variable_names == reduction.variable_names
        assert not any(parameter.requires_grad for parameter in restored.parameters())
        assert torch.equal(
            project_outputs(restored, inputs(), outputs()), project_outputs(reduction, inputs(), outputs())
        )

    @pytest.mark.parametrize(
        "shape", [{}, {"variable_names": "alpha"}, {"variable_names": [1]}, {"variable_names": None}]
    )
    def test_a_damaged_shape_is_refused(self, reducer: Reducer, shape: dict[str, Any]) -> None:
        with pytest.raises(FileFormatError):
            type(reducer).restore(shape)

    @pytest.mark.parametrize("kind", ["constant columns", "few rows", "rank one", "one row", "large numbers"])
    def test_awkward_data_give_finite_maps(self, reducer: Reducer, kind: str) -> None:
        X = {
            "constant columns": torch.cat([torch.ones(ROWS, 3), inputs()[:, :3]], dim=1),
            "few rows": inputs()[:3],
            "rank one": inputs()[:, :1].expand(ROWS, D_IN),
            "one row": inputs()[:1],
            "large numbers": 1e6 + 1e3 * inputs(),
        }[kind]
        Y = torch.zeros(len(X), D_OUT) if kind == "constant columns" else outputs(X)
        reduction = self.fit(reducer, X, Y)
        assert bool(torch.isfinite(reduction.reduce_inputs(X)).all())
        assert bool(torch.isfinite(project_outputs(reduction, X, Y)).all())

    def test_data_too_narrow_are_refused_or_reduced(self, reducer: Reducer) -> None:
        X, Y = inputs()[:, :1], outputs()[:, :1]
        try:
            reduction = self.fit(reducer, X, Y)
        except SearchError:
            return
        assert reduction.reduce_inputs(X).shape == (ROWS, len(reduction.variable_names))

    def test_weights_count_by_their_proportions(self, reducer: Reducer) -> None:
        weights = torch.linspace(0, 1, ROWS)
        once, scaled = (
            project_outputs(self.fit(reducer, weights=w), inputs(), outputs()) for w in (weights, 8 * weights)
        )
        assert torch.allclose(once, scaled, rtol=1e-3, atol=1e-4)

    def test_a_block_can_be_given(self, reducer: Reducer) -> None:
        reduction = self.fit(reducer, block=outputs)
        assert bool(torch.isfinite(project_outputs(reduction, inputs(), outputs())).all())

    def test_options_are_declared(self, reducer: Reducer) -> None:
        options = {name: getattr(reducer, name) for name in reducer.option_names()}
        assert type(reducer).with_options(options) == reducer
        assert isinstance(reducer.name, str)
        with pytest.raises(SearchError, match="no_such_option"):
            type(reducer).with_options({"no_such_option": 1})

    def test_a_surrogate_runs_saves_and_compiles_with_it(self, reducer: Reducer) -> None:
        reduction = self.fit(reducer)
        surrogate = build_surrogate(reduction)
        Z = reduction.reduce_inputs(inputs())
        F = Z[:, :1].expand(-1, reduction.reduce_targets(outputs(), Z).shape[1])
        expected = reduction.restore_outputs(F, Z)
        assert torch.allclose(surrogate(inputs()), expected, atol=1e-5)
        again = build_surrogate(type(reducer).restore(reduction.shape), F.shape[1])
        again.load_state_dict(surrogate.state_dict())
        assert torch.equal(again(inputs()), surrogate(inputs()))
        torch.compiler.reset()  # every surrogate is another version of one function, and torch counts them
        compiled = torch.compile(surrogate, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(inputs()), expected, atol=1e-5)

    def test_half_precision_inputs_are_reduced_in_single(self, reducer: Reducer) -> None:
        surrogate = build_surrogate(self.fit(reducer))
        exact = surrogate(inputs())
        half = surrogate.half()(inputs().half())
        assert half.dtype == torch.float16
        assert torch.allclose(half.float(), exact, rtol=0.02, atol=0.02)


def inputs() -> Tensor:
    """Return the suite's inputs, shape (ROWS, D_IN): columns of different spread."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, D_IN, generator=generator) * torch.linspace(3, 0.5, D_IN)


def outputs(X: Tensor | None = None) -> Tensor:
    """Return the suite's outputs for some inputs, shape (..., D_OUT)."""
    X = inputs() if X is None else X
    return torch.stack([torch.sin(X[..., 0]) + X[..., -1], 2 * X[..., 0], X[..., 0] * X[..., -1] / 4], dim=-1)


def project_outputs(reduction: Reduction, X: Tensor, Y: Tensor) -> Tensor:
    """Return the outputs as far as the maps can express them."""
    Z = reduction.reduce_inputs(X)
    return reduction.restore_outputs(reduction.reduce_targets(Y, Z), Z)


def build_surrogate(reduction: Reduction, count: int | None = None) -> TorchSurrogate:
    """Build a surrogate in which every equation is the first variable."""
    if count is None:
        Z = reduction.reduce_inputs(inputs())
        count = reduction.reduce_targets(outputs(), Z).shape[1]
    equations = [Variable(reduction.variable_names[0])] * count
    return TorchSurrogate.build(equations, Transforms.none(NAMES), reduction)
