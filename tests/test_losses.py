"""Losses, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from symtorch_core.errors import SearchError
from symtorch_core.losses import LOSSES, loss_named

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
    loss = loss_named(name)
    assert loss(PREDICTION, TARGET) == pytest.approx(plain)
    assert loss(PREDICTION, TARGET, WEIGHTS) == pytest.approx(weighted)


@pytest.mark.parametrize("name", LOSSES)
def test_one_prediction_stands_for_every_row(name: str) -> None:
    loss = loss_named(name)
    assert loss(torch.tensor(2.0), TARGET, WEIGHTS) == pytest.approx(
        loss(torch.full((3,), 2.0), TARGET, WEIGHTS)
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_finite_loses(name: str, bad: float) -> None:
    broken = torch.tensor([1.0, bad, 6.0])
    assert loss_named(name)(broken, TARGET) == math.inf
    assert loss_named(name)(broken, TARGET, torch.tensor([1.0, 0.0, 1.0])) == math.inf


@pytest.mark.parametrize("name", LOSSES)
def test_the_influence_is_the_slope_over_twice_the_residual(name: str) -> None:
    residual = torch.tensor([-3.0, -0.4, 0.7, 5.0], dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name]
    (slope,) = torch.autograd.grad(loss.of_residual(residual).sum(), residual)
    assert torch.allclose(loss.influence(residual.detach()), slope / (2 * residual.detach()))


def test_an_unknown_loss_lists_those_there_are() -> None:
    with pytest.raises(
        SearchError, match="unknown loss 'hubert'. Did you mean 'huber'. Known losses: mse, mae, huber"
    ):
        loss_named("hubert")
