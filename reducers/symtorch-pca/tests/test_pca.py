"""The contract that every reducer keeps, and the numbers, held against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import symtorch_core as st
from symtorch_core.testing import ReducerContract, ScriptedRegressor
from symtorch_pca.reducer import PCAReducer


class TestInputs(ReducerContract):
    @pytest.fixture
    def reducer(self) -> PCAReducer:
        return PCAReducer(k_in=2)


class TestOutputs(ReducerContract):
    @pytest.fixture
    def reducer(self) -> PCAReducer:
        return PCAReducer(k_out=2)


class TestBoth(ReducerContract):
    @pytest.fixture
    def reducer(self) -> PCAReducer:
        return PCAReducer(k_in=3, k_out=1)


class TestNeither(ReducerContract):
    @pytest.fixture
    def reducer(self) -> PCAReducer:
        return PCAReducer()


class TestLinearPart(ReducerContract):
    @pytest.fixture(params=[{"k_in": 2}, {"k_in": 2, "k_out": 2}, {"k_out": 1}, {}], ids=str)
    def reducer(self, request: pytest.FixtureRequest) -> PCAReducer:
        return PCAReducer(linear=True, **request.param)


class TestShares(ReducerContract):
    @pytest.fixture
    def reducer(self) -> PCAReducer:
        return PCAReducer(k_in="80%", k_out="80%")


def correlated(n: int = 300, d: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, d, generator=generator, dtype=torch.float64)
        @ torch.randn(d, d, generator=generator, dtype=torch.float64)
        + 5
    )


def fit(
    X: torch.Tensor, Y: torch.Tensor, weights: torch.Tensor | None = None, **options: Any
) -> st.Reduction:
    names = [f"x{i}" for i in range(X.shape[1])]
    return PCAReducer(**options).fit(X, Y, variable_names=names, weights=weights)


def test_inputs_are_what_scikit_learn_gives_up_to_signs() -> None:
    X = correlated()
    Z = fit(X, X, k_in=3).reduce_inputs(X).numpy()
    theirs = PCA(n_components=3).fit_transform(X.numpy())
    assert np.allclose(np.abs(Z), np.abs(theirs), rtol=1e-8, atol=1e-8)


def test_outputs_come_back_as_scikit_learn_gives_them_back() -> None:
    Y = correlated(seed=1)
    reduction = fit(correlated(), Y, k_out=3)
    Z = reduction.reduce_inputs(correlated())
    back = reduction.restore_outputs(reduction.reduce_targets(Y, Z), Z).numpy()
    theirs = PCA(n_components=3).fit(Y.numpy())
    assert np.allclose(back, theirs.inverse_transform(theirs.transform(Y.numpy())), rtol=1e-8, atol=1e-8)


def test_all_components_lose_nothing() -> None:
    Y = correlated(d=4)
    reduction = fit(Y, Y, k_in=4, k_out=4)
    Z = reduction.reduce_inputs(Y)
    assert torch.allclose(reduction.restore_outputs(reduction.reduce_targets(Y, Z), Z), Y, atol=1e-9)


def test_a_weight_counts_like_that_many_rows() -> None:
    X = correlated(50)
    weights = torch.arange(50) % 4
    repeated = X.repeat_interleave(weights, dim=0)
    weighted, plain = fit(X, X, weights.double(), k_in=2), fit(repeated, repeated, k_in=2)
    assert torch.allclose(weighted.reduce_inputs(X), plain.reduce_inputs(X), atol=1e-9)


def test_signs_are_fixed_by_the_data() -> None:
    X = correlated()
    axes = fit(X, X, k_in=4).down.weight
    assert bool((axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all())


def test_names_tell_which_variables_are_components() -> None:
    X = correlated()
    assert fit(X, X, k_in=2).variable_names == ("z0", "z1")
    assert fit(X, X, k_out=2).variable_names == tuple(f"x{i}" for i in range(8))


@pytest.mark.parametrize("option", [{"k_in": 0}, {"k_in": 9}, {"k_out": -1}, {"k_out": 3}])
def test_a_number_of_components_that_does_not_fit(option: dict[str, int]) -> None:
    X = correlated()
    with pytest.raises(st.SearchError, match="give a (number from 1 to [28]|whole number of at least 1)"):
        fit(X, X[:, :2], **option)


@pytest.mark.parametrize(
    "change", [{"d_in": None}, {"k_in": 0}, {"k_out": "two"}, {"d_out": 2.5}, {"d_in": True}]
)
def test_a_damaged_shape(change: dict[str, Any]) -> None:
    X = correlated()
    shape = fit(X, X, k_in=2, k_out=2).shape
    with pytest.raises(st.FileFormatError):
        PCAReducer.restore(shape | change)
    PCAReducer.restore(shape)


def test_chosen_by_name_it_narrows_a_wide_block() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(400, 1, generator=generator)
    mix_in, mix_out = torch.randn(1, 20, generator=generator), torch.randn(1, 12, generator=generator)
    result = st.distill(
        (z @ mix_in, torch.exp(z) @ mix_out),
        regressor=ScriptedRegressor(equations=("1.5*exp(0.2*z0) + 0.5", "1.5*exp(-0.2*z0) + 0.5")),
        reducer="pca",
        reducer_options={"k_in": 1, "k_out": 1},
        select="accuracy",
        progress=False,
    )
    assert len(result.fronts) == 1
    assert len(result.fidelity) == 12
    assert all(entry.held_out is not None and entry.held_out.r2 > 1 - 1e-6 for entry in result.fidelity)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_a_share_of_the_variance_keeps_as_many_as_scikit_learn(share: float) -> None:
    X = correlated()
    reduction = fit(X, X, k_in=f"{share:.0%}", k_out=f"{100 * share}%")
    theirs = PCA(n_components=None if share == 1.0 else share, svd_solver="full").fit(X.numpy())
    assert len(reduction.variable_names) == theirs.n_components_ == reduction.shape["k_out"]
    kept = theirs.explained_variance_ratio_.sum()
    assert f"{kept:.1%} of the variance" in reduction.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k_in": "half"}, "k_in='half': a share of the variance is written like '95%'"),
        ({"k_out": "0%"}, "k_out='0%'"),
        ({"linear": "yes"}, "pca's linear must be True or False, got 'yes'"),
        ({"ridge": -1.0}, "pca's ridge must be at least 0, got -1.0"),
        ({"ridge": "small"}, "pca's ridge must be a finite number, got 'small'"),
    ],
)
def test_an_invalid_option_is_refused_when_the_reducer_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(st.SearchError, match=message):
        PCAReducer(**options)


@pytest.mark.parametrize("size", ["95", "0%", "101%", "half", "-5%", True, 2.5])
def test_an_invalid_size(size: Any) -> None:
    with pytest.raises(st.SearchError, match="k_in="):
        fit(correlated(), correlated(), k_in=size)


def test_batches_give_the_maps_of_the_whole() -> None:
    X, Y = correlated(1000), correlated(1000, seed=1)[:, :3]
    reducer = PCAReducer(k_in=3, k_out=2, linear=True)
    names = [f"x{i}" for i in range(8)]
    whole = reducer.fit(X, Y, variable_names=names)
    parts = reducer.fit_batches(((X[i : i + 77], Y[i : i + 77]) for i in range(0, 1000, 77)), names, X.dtype)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-7, atol=1e-9)


def test_the_linear_part_is_fitted_first_and_outputs_are_components_of_the_rest() -> None:
    X = correlated(500)
    Y = torch.stack([X[:, 0] + torch.sin(X[:, 1]), 50 * X[:, 2], X[:, 3]], dim=1)
    reduction = fit(X, Y, k_in=8, k_out=1, linear=True)
    Z = reduction.reduce_inputs(X)
    rest = (Y - reduction.linear(Z)).numpy()
    wanted = np.linalg.lstsq(np.c_[X.numpy(), np.ones(500)], Y.numpy(), rcond=None)[0]
    assert np.allclose(rest, Y.numpy() - np.c_[X.numpy(), np.ones(500)] @ wanted, atol=1e-5)
    # All that is left is the sine, so one component holds it, though another output is far larger.
    assert torch.allclose(reduction.restore_outputs(reduction.reduce_targets(Y, Z), Z), Y, atol=1e-4)
    assert "a linear part (" in reduction.summary()


def test_a_linear_block_is_solved_before_any_search() -> None:
    X = correlated(300).float()
    result = st.distill(
        (X, X @ torch.randn(8, 3, generator=torch.Generator().manual_seed(0))),
        regressor=ScriptedRegressor(equations=()),
        reducer="pca",
        reducer_options={"linear": True},
        progress=False,
    )
    assert all(entry.held_out.r2 > 1 - 1e-6 for entry in result.fidelity)
    assert all(entry.linear.r2 > 1 - 1e-6 for entry in result.fidelity)
    assert "R2 linear" in str(result)


@pytest.mark.parametrize("k_in", [None, 3])
def test_the_ridge_of_the_linear_part_is_a_share_of_the_mean_variance(k_in: int | None) -> None:
    X = correlated()
    Y = X[:, :2].square() + X[:, 2:4]
    reduction = fit(X, Y, k_in=k_in, linear=True, ridge=0.5)
    Z = X if reduction.down is None else reduction.reduce_inputs(X)
    centred, targets = Z - Z.mean(0), Y - Y.mean(0)
    covariance = centred.T @ centred / len(X)
    shifted = covariance + 0.5 * covariance.diagonal().mean() * torch.eye(
        len(covariance), dtype=torch.float64
    )
    expected = torch.linalg.solve(shifted, centred.T @ targets / len(X)).T
    assert reduction.linear is not None
    torch.testing.assert_close(reduction.linear.weight.detach(), expected)
