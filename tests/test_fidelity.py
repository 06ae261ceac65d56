"""How well equations stand in for a block."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from symtorch_core import distill
from symtorch_core.activations.rows import Activations
from symtorch_core.expressions import parse
from symtorch_core.reduction import IdentityReducer
from symtorch_core.search import Candidate, ParetoFront, SearchSpace
from symtorch_core.search.fidelity import Fidelity, measure_fidelity
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.verification.fidelity import extrapolate_inputs
from symtorch_core.verification.verify import (
    Samples,
    add_fidelity,
    add_out_of_range,
    add_validation_losses,
    fit_linear_baseline,
)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_by_hand() -> None:
    (found,) = measure_fidelity(column(1.0, 2.0, 3.0, 5.0), column(1.0, 2.0, 3.0, 4.0))
    assert found == Fidelity(r2=pytest.approx(0.8), nmse=pytest.approx(0.2), max_error=1.0, mae=0.25, rows=4)


def test_by_hand_under_weights() -> None:
    weights = torch.tensor([1.0, 1.0, 2.0, 0.0])
    (found,) = measure_fidelity(column(1.0, 2.0, 4.0, 9.0), column(1.0, 2.0, 3.0, 4.0), weights)
    # The mean is 9/4, the variance 11/16, the mean square of the errors 1/2; row four has the largest error.
    assert (found.r2, found.nmse) == pytest.approx((3 / 11, 8 / 11))
    assert (found.max_error, found.mae, found.rows) == (5.0, 0.5, 4)


def test_it_is_the_r2_of_scikit_learn_for_each_output() -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(size=(50, 3))
    prediction = target + 0.3 * generator.normal(size=(50, 3))
    weights = generator.uniform(0, 2, size=50)
    for w in (None, weights):
        found = measure_fidelity(
            torch.from_numpy(prediction), torch.from_numpy(target), None if w is None else torch.from_numpy(w)
        )
        expected = r2_score(target, prediction, sample_weight=w, multioutput="raw_values")
        assert [f.r2 for f in found] == pytest.approx(list(expected))


def test_half_precision_is_judged_in_double() -> None:
    target = torch.linspace(1000, 1001, 200, dtype=torch.float64)[:, None]
    (found,) = measure_fidelity(target.float(), target)
    assert found.r2 > 0.99999


@pytest.mark.parametrize("value", [0.0, 0.1, 1e5 / 3])
def test_a_constant_output(value: float) -> None:
    # 0.1 added up 1,000 times and divided by 1,000 is not 0.1: rounding must not pass for a spread.
    target = torch.full((1000, 1), value, dtype=torch.float64)
    (met,) = measure_fidelity(target.clone(), target)
    assert (met.r2, met.nmse, met.max_error) == (1.0, 0.0, 0.0)
    (missed,) = measure_fidelity(target + 1e-3, target)
    assert math.isnan(missed.r2)
    assert missed.max_error == pytest.approx(1e-3)


def test_rows_without_weight_do_not_count() -> None:
    weights = torch.tensor([1.0, 1.0, 0.0])
    (found,) = measure_fidelity(column(1.0, 2.0, 9.0), column(1.0, 2.0, 3.0), weights)
    assert found.r2 == 1.0
    (constant,) = measure_fidelity(column(1.0, 2.0, 3.0), column(1.0, 1.0, 3.0), weights)
    assert math.isnan(constant.r2)


def test_a_prediction_that_is_not_finite_shows() -> None:
    (found,) = measure_fidelity(column(1.0, math.nan), column(1.0, 2.0))
    assert math.isnan(found.r2)
    assert found.to_json()["r2"] == "nan"


def test_numbers_that_json_lacks_are_words() -> None:
    found = Fidelity(math.nan, math.nan, math.inf, 0.5, 3).to_json()
    assert found == {"r2": "nan", "nmse": "nan", "max_error": "inf", "mae": 0.5, "rows": 3}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_beyond_leaves_the_range_in_some_variable_and_not_by_more_than_asked() -> None:
    inputs = (
        torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.1]) + 5
    )
    low, high = inputs.min(0).values, inputs.max(0).values
    far = extrapolate_inputs(inputs, 1.5)
    outside = (far < low) | (far > high)
    assert far.shape == inputs.shape
    assert bool(outside.any(dim=1).all())
    reach = ((far - (low + high) / 2).abs() / ((high - low) / 2)).max(dim=1).values
    assert reach.max() == pytest.approx(1.5, rel=1e-4)
    assert reach.min() == pytest.approx(1.5, rel=1e-4)


def test_beyond_keeps_constant_columns_and_single_rows() -> None:
    inputs = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    assert extrapolate_inputs(inputs, 2.0).tolist() == [[0.0, 7.0], [4.0, 7.0]]
    assert torch.equal(extrapolate_inputs(inputs[:1]), inputs[:1])


def test_out_of_range_asks_the_block_where_it_was_not_fitted() -> None:
    inputs = torch.linspace(-1, 1, 101)[:, None]

    def block(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), x.clamp(-1, 1)], dim=1)

    rows = Activations(inputs, inputs, input_names=("x",))
    names = Transforms.none(["x"])
    samples = add_out_of_range(Samples(rows), block, [1], names)
    front = ParetoFront([Candidate(parse("x"), 1, 0.1)])
    reduction = IdentityReducer().fit(inputs, inputs, variable_names=["x"])
    ((found,),) = add_fidelity([front], samples, names, reduction)
    assert found.fidelity is not None
    assert found.fidelity.out_of_range is not None
    assert found.fidelity.out_of_range.max_error == pytest.approx(0.5)  # 1.5 beside 1
    assert found.fidelity.out_of_range.rows == 101


def test_held_out_losses_count_the_weights() -> None:
    X = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    held_out = Activations(
        X, 2 * X + torch.tensor([[0.0], [1.0], [-3.0]]), torch.tensor([1.0, 2.0, 0.5]), ("x",)
    )
    front = ParetoFront([Candidate(parse("2.0*x"), 3, 0.1)])
    for loss, expected in (("mse", (2 * 1 + 0.5 * 9) / 3.5), ("mae", (2 * 1 + 0.5 * 3) / 3.5)):
        search, names = SearchSpace(loss=loss), ["x"]
        reduction = IdentityReducer().fit(X, X, variable_names=names)
        (judged,) = add_validation_losses([front], [search], Transforms.none(names), reduction, held_out)
        assert judged[0].validation_loss == pytest.approx(expected)


def test_the_linear_baseline_is_least_squares_on_the_fit_judged_on_other_rows() -> None:
    generator = np.random.default_rng(0)

    def draw(n: int, offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        X = generator.normal(size=(n, 2)) + offset
        Y = np.stack([X[:, 0] ** 2 + X[:, 1], 3 * X[:, 0] - 2 * X[:, 1] + 5], axis=1)
        return X, Y, generator.uniform(0, 2, size=n)

    (X, Y, weights), (far, expected, counted) = draw(80, 0.0), draw(40, 1.0)
    names = ("a", "b")
    fit, other = (
        Activations(*map(torch.from_numpy, rows), names)
        for rows in ((X, Y, weights), (far, expected, counted))
    )
    reduction = IdentityReducer().fit(fit.inputs, fit.outputs, variable_names=list(names))
    found = fit_linear_baseline(Transforms.none(names), reduction, fit, other)
    line = LinearRegression().fit(X, Y, sample_weight=weights).predict(far)
    scores = r2_score(expected, line, sample_weight=counted, multioutput="raw_values")
    assert [f.r2 for f in found] == pytest.approx(list(scores))
    assert found[1].r2 == pytest.approx(1)
    assert found[0].rows == 40


def test_results_judge_every_kind_of_row_under_its_weights() -> None:
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
    y, weights = 2 * x + torch.where(x > 0, 0.5, 0.0), torch.where(x > 0, 0.0, 1.0)[:, 0]
    for test_fraction in (0.0, 0.3):
        result = distill(
            (x, y),
            weights=weights,
            regressor=ScriptedRegressor(equations=("2.0*x0",)),
            refine=False,
            select="accuracy",
            test_fraction=test_fraction,
            progress=False,
        )
        (found,) = result.fidelity
        judged = [found.train, found.linear, *([found.held_out] if test_fraction else [])]
        for f in judged:  # the rows that are half off have no weight
            assert f is not None
            assert (f.r2, f.mae) == pytest.approx((1, 0), abs=1e-6)
        assert found.train.max_error == pytest.approx(0.5)
        assert (found.held_out is None) == (test_fraction == 0)
