"""Projections found in blocks of known structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.reduction import measure_overall_r2
from symtorch_core.testing import ScriptedRegressor
from symtorch_projection.reducer import ProjectionReducer

D = 12
GENERATOR = torch.Generator().manual_seed(0)
BASIS = torch.linalg.qr(torch.randn(D, 3, generator=GENERATOR, dtype=torch.float64)).Q
SPREAD = torch.randn(D, D, generator=GENERATOR, dtype=torch.float64)
NAMES = [f"x{i}" for i in range(D)]


def block(x: Tensor) -> Tensor:
    """Compute a function of three directions of twelve, in two of them mostly nonlinear."""
    z = (x @ BASIS.to(x)).unbind(-1)
    return torch.stack(
        [z[0] + 0.3 * z[1], torch.cos(z[1] / 3) + 0.3 * z[1], z[2] * z[0] / 30 + 0.3 * z[2]], dim=-1
    )


def draw_data(n: int = 4000, seed: int = 1) -> Tensor:
    """Draw correlated rows whose directions of most variance are not those of the block."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=generator, dtype=torch.float64) @ SPREAD


def fit(X: Tensor, Y: Tensor, **options: Any) -> st.Reduction:
    extra = {name: options.pop(name) for name in ("weights", "block", "seed") if name in options}
    return ProjectionReducer(**options).fit(X, Y, variable_names=NAMES[: X.shape[1]], **extra)


def measure_angle(reduction: st.Reduction) -> float:
    """Return the largest principal angle between the found and the true subspace, in degrees."""
    span = torch.linalg.qr(reduction.down.weight.double().T).Q
    cosines = torch.linalg.svdvals(span.T @ BASIS)
    return float(torch.rad2deg(torch.arccos(cosines.min().clamp(max=1))))


def test_the_active_subspace_is_found_to_the_digits_of_the_data() -> None:
    X = draw_data()
    assert measure_angle(fit(X, block(X), method="active", k_in=3, block=block)) < 1e-3


def test_random_probes_find_it_too() -> None:
    X = draw_data()
    assert measure_angle(fit(X, block(X), method="active", k_in=3, block=block, probes=2)) < 1e-3


def test_reduced_rank_regression_finds_it_where_everything_has_a_linear_share() -> None:
    X = draw_data(60_000)
    assert measure_angle(fit(X, block(X), k_in=3)) < 3


def test_training_comes_near() -> None:
    X = draw_data(6000)
    trained = fit(X, block(X), method="trained", k_in=3, epochs=30)
    assert measure_angle(trained) < 12


def test_columns_of_z_have_unit_variance_and_no_correlation() -> None:
    X = draw_data()
    for options in (
        {"method": "rrr"},
        {"method": "active", "block": block},
        {"method": "trained", "epochs": 2},
    ):
        Z = fit(X, block(X), k_in=3, **options).reduce_inputs(X)
        torch.testing.assert_close(
            Z.T.cov(correction=0).diagonal(), torch.ones(3).double(), rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(Z.T.cov(correction=0), torch.eye(3).double(), rtol=1e-5, atol=1e-5)


def test_the_linear_part_is_the_best_map_of_that_rank() -> None:
    X = draw_data()
    Y = block(X)
    centred_x, centred_y = (X - X.mean(0)).numpy(), (Y - Y.mean(0)).numpy()
    full = centred_x @ np.linalg.lstsq(centred_x, centred_y, rcond=None)[0]
    u, s, vt = np.linalg.svd(full, full_matrices=False)
    for k in (1, 2, 3):
        reduction = fit(X, Y, k_in=k, ridge=0.0)
        prediction = reduction.linear(reduction.reduce_inputs(X)).numpy() - Y.mean(0).numpy()
        assert np.allclose(prediction, (u[:, :k] * s[:k]) @ vt[:k], atol=1e-6)


def test_without_a_linear_part_outputs_are_those_that_can_be_predicted() -> None:
    X = draw_data()
    noise = 30 * torch.randn(len(X), 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    Y = torch.cat([X[:, :1], noise], dim=1)
    up = fit(X, Y, k_in=1, k_out=1, linear=False).up.weight[:, 0]
    assert abs(float(up[0] / up.norm())) > 0.95


def test_the_metric_decides_what_is_kept() -> None:
    X = draw_data()
    Y = torch.stack([10 * X[:, 0], X[:, 1]], dim=1)
    plain = fit(X, Y, k_in=1, k_out=1, linear=False)
    costly = fit(X, Y, k_in=1, k_out=1, linear=False, metric=[1e-4, 1.0])

    def r2(reduction: st.Reduction) -> tuple[float, float]:
        Z = reduction.reduce_inputs(X)
        back = reduction.restore_outputs(reduction.reduce_targets(Y, Z), Z)
        return measure_overall_r2(back[:, :1], Y[:, :1]), measure_overall_r2(back[:, 1:], Y[:, 1:])

    assert r2(plain)[0] > 0.95 > r2(plain)[1]
    assert r2(costly)[1] > 0.95 > r2(costly)[0]
    matrix = fit(X, Y, k_in=1, k_out=1, linear=False, metric=torch.diag(torch.tensor([1e-4, 1.0])))
    torch.testing.assert_close(matrix.down.weight, costly.down.weight)


def test_a_metric_of_slopes_points_the_active_subspace() -> None:
    X = draw_data()
    only_first = fit(X, block(X), method="active", k_in=2, block=block, metric=[1.0, 0.0, 0.0])
    wanted = BASIS @ torch.tensor([1.0, 0.3, 0.0], dtype=torch.float64)
    found = only_first.down.weight[0].double()
    assert abs(float(found @ wanted / found.norm() / wanted.norm())) > 1 - 1e-4


def test_trained_maps_leave_less_than_principal_components() -> None:
    X = draw_data(6000)
    sweep = st.sweep_reducers(
        block,
        st.Activations.of(X, block(X)),
        reducers={
            "pca": st.load("reducers", "pca")(),
            "trained": ProjectionReducer(method="trained", k_in=1),
        },
        k_in=[3],
        progress=False,
    )
    pca, trained = sweep.rows
    assert 1 - trained.r2 < 0.5 * (1 - pca.r2)


def test_training_leaves_the_global_generator_alone_and_repeats_itself() -> None:
    X = draw_data(500)
    before = torch.get_rng_state()
    first, second = (fit(X, block(X), method="trained", k_in=2, k_out=2, epochs=2, seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.down.weight, second.down.weight)
    other = fit(X, block(X), method="trained", k_in=2, k_out=2, epochs=2, seed=6)
    assert not torch.equal(first.down.weight, other.down.weight)


def test_a_training_that_only_does_harm_keeps_where_it_began() -> None:
    X = draw_data(500)
    wild, still = (
        fit(X, block(X), method="trained", k_in=2, epochs=3, learning_rate=rate) for rate in (1e4, 1e-12)
    )
    torch.testing.assert_close(wild.down.weight, still.down.weight, rtol=1e-4, atol=1e-6)


def test_a_share_of_what_is_explained() -> None:
    X = draw_data()
    reduction = fit(X, block(X), method="active", k_in="99.9%", block=block)
    assert len(reduction.variable_names) == 3
    assert "of what they explain" in reduction.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lda"}, "unknown method of projection 'lda'; there are: rrr, active, trained"),
        ({"method": "active", "k_in": 2}, "needs the block itself"),
        ({"method": "active", "k_in": 2, "block": lambda x: x[:, :3].detach()}, "cannot be differentiated"),
        ({"method": "trained"}, "needs k_in as a number"),
        ({"method": "trained", "k_in": "90%"}, "needs k_in as a number"),
        ({"method": "trained", "k_in": 13}, "from 1 to 12"),
        ({"k_in": 4}, "from 1 to 3"),
        ({"k_in": 1, "k_out": 9}, "from 1 to 3"),
        ({"k_in": 1, "metric": [1.0, 2.0]}, "needs 3 numbers"),
        ({"k_in": 1, "metric": [1.0, -2.0, 1.0]}, "no error may have a negative cost"),
        ({"k_in": 1, "rows": 0}, "projection's rows must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    X = draw_data(100)
    with pytest.raises(st.SearchError, match=message):
        fit(X, block(X), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "trained", "k_in": 2, "learning_rate": 0.0},
            "projection's learning_rate must be positive",
        ),
        ({"epochs": 2.5}, "projection's epochs must be a whole number, got 2.5"),
        ({"ridge": -1e-6}, "projection's ridge must be at least 0"),
        ({"linear": 1}, "projection's linear must be True or False"),
        ({"k_in": "most"}, "k_in='most': a share"),
        ({"metric": "fisher"}, "the metric must be d_out numbers or a matrix of numbers, not a str"),
        ({"metric": [1e-12, -2e-12, 1e-12]}, "no error may have a negative cost"),
        ({"metric": torch.tensor([[2.0, 1.0], [0.0, 2.0]]) * 1e-12}, "symmetric d_out x d_out matrix"),
        ({"metric": torch.ones(2, 3)}, "symmetric d_out x d_out matrix"),
        ({"metric": [1.0, float("nan")]}, "must be finite"),
    ],
)
def test_an_invalid_option_is_refused_when_the_reducer_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(st.SearchError, match=message):
        ProjectionReducer(**options)


def test_ctrl_c_in_the_training_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    X = draw_data(300)
    monkeypatch.setattr(torch.optim.Adam, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(X, block(X), method="trained", k_in=2, epochs=2)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def test_by_name_in_the_pipeline_with_the_blocks_own_slopes() -> None:
    torch.manual_seed(0)
    model = Model()
    with torch.no_grad():  # one direction is all it looks at
        model.block[0].weight.copy_(torch.outer(torch.linspace(-1, 1, 8), torch.randn(6)))
    X = torch.randn(500, 6)
    wrapped = st.wrap(model, "block")
    result = wrapped.distill(
        X,
        parent=model,
        regressor=ScriptedRegressor(equations=("0.5*tanh(1.1*z0) + 0.2*z0 + 0.1",)),
        reducer="projection",
        reducer_options={"method": "active", "k_in": 1, "k_out": 1},
        select="accuracy",
        progress=False,
    )
    assert "projection keeps 1 of 6 inputs (100.0% of what they explain)" in " ".join(str(result).split())
    assert all(entry.held_out.r2 > 0.97 for entry in result.fidelity)
    wrapped.switch_to_symbolic()
    state = model.state_dict()
    fresh = Model()
    st.wrap(fresh, "block")
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh(X), model(X))


def test_the_ridge_decides_directions_and_the_linear_part() -> None:
    X = draw_data(500)
    X, Y = X - X.mean(0), block(X)[:, :1]
    Y = Y - Y.mean(0)
    covariance, shared = X.T @ X / len(X), X.T @ Y / len(X)
    for ridge in (1e-6, 10.0):
        reduction = fit(X, Y, k_in=1, ridge=ridge)
        shifted = covariance + ridge * covariance.diagonal().mean() * torch.eye(D, dtype=torch.float64)
        direction = torch.linalg.solve(shifted, shared)[:, 0]
        found = reduction.down.weight[0].detach()
        assert abs(float(torch.nn.functional.cosine_similarity(direction, found, dim=0))) > 1 - 1e-9
        # The direction has unit variance, so the ridge divides the slope by 1 + ridge.
        z = X @ found
        assert reduction.linear is not None
        assert float(reduction.linear.weight) == pytest.approx(float(z @ Y[:, 0]) / len(X) / (1 + ridge))


def test_the_ridge_decides_output_directions() -> None:
    X = draw_data(500)
    Y = block(X)
    small, large = (
        fit(X, Y, k_in=2, k_out=1, linear=False, ridge=ridge).up.weight.detach()[:, 0]
        for ridge in (1e-9, 10.0)
    )
    centred, targets = X - X.mean(0), Y - Y.mean(0)
    covariance, shared = centred.T @ centred / len(X), centred.T @ targets / len(X)
    for ridge, found in ((1e-9, small), (10.0, large)):
        shifted = covariance + ridge * covariance.diagonal().mean() * torch.eye(D, dtype=torch.float64)
        predicted = shared.T @ torch.linalg.solve(shifted, shared)
        axis = torch.linalg.eigh(predicted).eigenvectors[:, -1]
        assert abs(float(axis @ found)) > 1 - 1e-9


def test_weights_decide_what_is_trained() -> None:
    X = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    counts = torch.arange(2000) % 4 == 0
    Y = torch.where(counts, X[:, 0].square(), 3 * X[:, 1].square())[:, None]  # no closed form sees either
    reduction = fit(X, Y, weights=counts.double(), method="trained", k_in=1, epochs=40)
    direction = reduction.down.weight[0].detach().abs()
    assert float(direction[0] / direction.norm()) > 0.95


def test_training_that_runs_away_leaves_the_best_maps() -> None:
    X = draw_data(500)
    still, wild = (
        fit(X, block(X), method="trained", k_in=2, k_out=2, epochs=3, learning_rate=rate)
        for rate in (1e-30, 1e30)
    )
    torch.testing.assert_close(wild.down.weight, still.down.weight)
    torch.testing.assert_close(wild.up.weight, still.up.weight)
