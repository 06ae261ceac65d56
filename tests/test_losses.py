"""Losses, by hand."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import symtorch_core as st
from symtorch_core.errors import FileFormatError, SearchError
from symtorch_core.search.losses import LOSSES, check_targets, get_loss, make_loss, weighted_median
from symtorch_core.search.space import SearchSpace
from symtorch_core.testing.scripted import ScriptedRegressor

PREDICTION = torch.tensor([1.0, 2.0, 6.0])
TARGET = torch.tensor([1.5, 2.0, 3.0])  # residuals -0.5, 0, 3
WEIGHTS = torch.tensor([2.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "plain", "weighted"),
    [
        ("mse", (0.25 + 9) / 3, (2 * 0.25 + 9) / 4),
        ("mae", (0.5 + 3) / 3, (2 * 0.5 + 3) / 4),
        ("huber", (0.125 + 2.5) / 3, (2 * 0.125 + 2.5) / 4),
    ],
)
def test_by_hand(name: str, plain: float, weighted: float) -> None:
    loss = get_loss(name)
    assert loss(PREDICTION, TARGET) == pytest.approx(plain)
    assert loss(PREDICTION, TARGET, WEIGHTS) == pytest.approx(weighted)


@pytest.mark.parametrize("name", LOSSES)
def test_one_prediction_stands_for_every_row(name: str) -> None:
    loss = get_loss(name)
    assert loss(torch.tensor(2.0), TARGET, WEIGHTS) == pytest.approx(
        loss(torch.full((3,), 2.0), TARGET, WEIGHTS)
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_finite_loses(name: str, bad: float) -> None:
    broken = torch.tensor([1.0, bad, 6.0])
    assert get_loss(name)(broken, TARGET) == math.inf
    assert get_loss(name)(broken, TARGET, torch.tensor([1.0, 0.0, 1.0])) == math.inf


@pytest.mark.parametrize("name", LOSSES)
def test_the_influence_is_the_slope_over_twice_the_residual(name: str) -> None:
    residual = torch.tensor([-3.0, -0.4, 0.7, 5.0], dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name]
    (slope,) = torch.autograd.grad(loss.of_residual(residual).sum(), residual)
    assert torch.allclose(loss.influence(residual.detach()), slope / (2 * residual.detach()))


def test_an_unknown_loss_lists_those_there_are() -> None:
    with pytest.raises(
        SearchError,
        match="unknown loss 'hubert'. Did you mean 'huber'. Known losses: mse, mae, huber; or give a formula",
    ):
        get_loss("hubert")


def test_a_function_is_a_loss_with_the_influence_of_the_table() -> None:
    residual = torch.tensor([-3.0, -0.4, 0.7, 5.0], dtype=torch.float64)
    mine = make_loss(lambda r: r.abs())
    torch.testing.assert_close(mine.influence(residual), LOSSES["mae"].influence(residual))
    assert mine(PREDICTION, TARGET) == pytest.approx((0.5 + 3) / 3)
    assert torch.isfinite(mine.influence(torch.zeros(3, dtype=torch.float64))).all()


def test_a_function_named_like_a_loss_is_not_that_loss() -> None:
    def mse(residual: torch.Tensor) -> torch.Tensor:
        return residual.abs()

    assert make_loss(mse).name != "mse"


@pytest.mark.parametrize(
    "function",
    [
        lambda residual: residual.abs().mean(),  # one number for all rows
        lambda residual: residual.log(),  # not finite
        lambda residual: residual.numpy() ** 2,  # leaves torch
        lambda prediction, target: (prediction - target).abs().mean(),
    ],
    ids=["a mean", "not finite", "numpy", "a mean of pairs"],
)
def test_a_function_that_is_no_loss_is_refused_at_once(function: Any) -> None:
    with pytest.raises(SearchError, match="the loss"):
        SearchSpace(loss=function)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("-r^2", r"lowest at a residual of 0.*it is 0 for 0 and -1e-06 for 0.001; is its sign wrong"),
        (lambda r: -r.abs(), "is its sign wrong"),
        ("r", "is its sign wrong"),
        ("(r - 0.1)^2", "lowest at a residual of 0"),
        ("abs(r)*(1 - 0.001*abs(r))", "never fall as a residual grows: it is 90 for 100 and 0 for 1000"),
        ("0*r + 1", "the same for every residual"),
        ("1/abs(r)", "finite number, with a finite slope, for each residual, zero included"),
        ("sqrt(r)", "finite number"),
        (lambda r: r.square().mean(), "one real number for each residual.*leave out means and sums"),
        (lambda r: r[:3].square(), "one real number for each residual"),
        (lambda r: r.to(torch.complex128), "one real number for each residual"),
        (lambda r: r.abs() > 1, "one real number for each residual"),
        (lambda r: 1 / 0, r"a torch function of a tensor of residuals.*like lambda r: r.abs\(\): division"),
        (lambda p, t: ((p - t) / t).square(), "depends on more than prediction - target"),
        (torch.nn.BCELoss(), "'BCELoss' depends on more than prediction - target"),
        (torch.nn.functional.poisson_nll_loss, "'poisson_nll_loss' depends on more"),
    ],
)
def test_a_loss_that_does_not_grow_with_the_residual_is_refused(loss: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        SearchSpace(loss=loss)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (torch.nn.MSELoss(), "mse"),
        (torch.nn.L1Loss(reduction="sum"), "mae"),
        (torch.nn.HuberLoss(), "huber"),
        (torch.nn.SmoothL1Loss(), "huber"),
        (torch.nn.functional.mse_loss, "mse"),
        (torch.nn.functional.l1_loss, "mae"),
        (torch.nn.functional.smooth_l1_loss, "huber"),
        (functools.partial(torch.nn.functional.l1_loss, reduction="mean"), "abs(r)"),
        (torch.nn.HuberLoss(delta=2.0), "r^2/2 - max(abs(r) - 2, 0)^2/2"),
        (torch.nn.SmoothL1Loss(beta=0.5), "r^2 - max(abs(r) - 0.5, 0)^2"),
        (lambda prediction, target: (prediction - target).abs() ** 1.5, "abs(r)^1.5"),
    ],
)
def test_losses_of_predictions_and_targets_are_understood(theirs: Any, ours: str) -> None:
    loss, like = SearchSpace(loss=theirs).loss_function, SearchSpace(loss=ours).loss_function
    assert loss(PREDICTION, TARGET, WEIGHTS) == pytest.approx(like(PREDICTION, TARGET, WEIGHTS))
    residual = torch.tensor([-3.0, -0.2, 0.4, 5.0], dtype=torch.float64)
    torch.testing.assert_close(loss.influence(residual), like.influence(residual))


@pytest.mark.parametrize(
    "loss", ["1 - exp(-r^2)", "max(abs(r) - 1000, 0)", "exp(r^2) - 1", "r^2 + 5", "abs(r)^0.5", torch.square]
)
def test_losses_that_are_flat_steep_or_shifted_are_losses(loss: Any) -> None:
    assert callable(SearchSpace(loss=loss).loss_function)


@pytest.mark.parametrize("loss", ["mse", "mae", "abs(r)^1.5"])
@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_influence_of_a_residual_beside_others_has_no_unit(loss: str, factor: float) -> None:
    influence = get_loss(loss).influence
    for values in ([-3.0, 0.0, 1e-13, 0.7, 5.0], [-3.0, 0.0, 0.0, 0.0, 0.7]):
        residual = torch.tensor(values, dtype=torch.float64)
        here, there = influence(residual), influence(factor * residual)
        torch.testing.assert_close(there / there[0], here / here[0])


@pytest.mark.parametrize(
    ("loss", "size"), [("mse", 1e-170), ("mse", 1e170), ("huber", 1e-170), ("log(cosh(r))", 1e4)]
)
def test_targets_whose_losses_are_no_numbers_are_refused_before_the_search(loss: str, size: float) -> None:
    X = torch.rand(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    engine = ScriptedRegressor(equations=("x0",))
    with pytest.raises(SearchError, match=r"output 1, whose values spread over .*scale the output"):
        st.distill(
            (X, torch.cat([X, size * X], 1)), regressor=engine, loss=loss, progress=False, test_fraction=0
        )
    result = st.distill((X, size * X), regressor=engine, loss="mae", progress=False, test_fraction=0)
    assert result.front().select("accuracy").loss < 1e-12 * size


def test_results_under_a_function_work_and_are_saved_without_it(tmp_path: Path) -> None:
    X = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    engine = ScriptedRegressor(equations=("2.0*x0 + 3.0*x1 + 0.3",))
    result = st.distill(
        (X, 3 * X[:, :1] - X[:, 1:] + 2), regressor=engine, loss=lambda r: r.cosh().log(), progress=False
    )
    assert result.front()[-1].loss < 1e-12
    assert "custom" in str(result)
    with pytest.warns(RuntimeWarning, match="not saved.*: the loss"):
        result.save(tmp_path / "result.json")
    loaded = st.Distillation.load(tmp_path / "result.json")
    assert torch.equal(loaded.surrogate()(X), result.surrogate()(X))  # equations need no loss
    assert str(loaded) == str(result)
    with pytest.raises(FileFormatError, match="the loss was the Python function '<lambda>'"):
        loaded.search.loss_function(X, X)


@pytest.mark.parametrize(
    ("formula", "function"),
    [
        ("abs(r)^1.5", lambda r: r.abs() ** 1.5),
        ("max(0.1*r, -0.9*r)", lambda r: torch.where(r > 0, 0.1 * r, -0.9 * r)),
        ("log(cosh(r))", lambda r: r.cosh().log()),
    ],
)
def test_a_formula_in_the_residual_is_a_loss(formula: str, function: Any) -> None:
    residual = torch.tensor([-3.0, -0.4, 0.7, 5.0], dtype=torch.float64)
    loss = SearchSpace(loss=formula).loss_function
    assert loss.name == formula
    torch.testing.assert_close(loss.of_residual(residual), function(residual))
    torch.testing.assert_close(loss.influence(residual), make_loss(function).influence(residual))


@pytest.mark.parametrize("text", ["abs(x)", "1 + 1", "abs(r", "__import__('os')", "log(r)"])
def test_a_text_that_is_no_formula_of_the_residual_is_refused(text: str) -> None:
    with pytest.raises(SearchError, match="loss"):
        SearchSpace(loss=text)


def test_results_under_a_formula_are_saved(tmp_path: Path) -> None:
    X = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    engine = ScriptedRegressor(equations=("2.0*x0 + 3.0*x1 + 0.3",))
    result = st.distill((X, 3 * X[:, :1]), regressor=engine, loss="abs(r)^1.5", progress=False)
    assert result.front()[-1].loss < 1e-9
    result.save(tmp_path / "result.json")
    assert st.Distillation.load(tmp_path / "result.json").search.loss == "abs(r)^1.5"


def test_a_weight_counts_as_so_many_values_in_the_median() -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 5, 8):
        values = torch.randn(n, generator=generator)
        weights = torch.randint(0, 4, (n,), generator=generator) + (torch.arange(n) == 0)
        repeated = values.repeat_interleave(weights)
        assert weighted_median(values, weights.double()) == repeated.median()
        assert weighted_median(values) == weighted_median(values, torch.full((n,), 0.1)) == values.median()


def test_a_constant_is_a_target_however_small_and_the_spread_of_others_is_told() -> None:
    mse = get_loss("mse")
    check_targets(mse, torch.full((5, 2), 1e-170, dtype=torch.float64))
    tiny = 1e-170 * torch.tensor([[0.0], [1.0], [2.0], [1.0]], dtype=torch.float64)
    for weights in (None, torch.ones(4)):
        with pytest.raises(SearchError, match="output 0, whose values spread over 1e-170, is 0 in"):
            check_targets(mse, tiny, weights)
    check_targets(get_loss("mae"), tiny)
    check_targets(
        get_loss("max(abs(r) - 1, 0)"), torch.tensor([[0.1], [0.3]])
    )  # flat, as its author means it
