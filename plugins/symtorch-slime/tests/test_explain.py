"""Explanations: against closed forms, for every kind of black box, and how far they hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.testing import ScriptedRegressor
from symtorch_slime import SlimeCapture, explain, stability
from symtorch_slime.repetition import describe_structure

X = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
STAR = [0.5, -1.0, 2.0]
QUICK: dict[str, Any] = {"regressor": "sparse", "progress": False}


def law(x: Any) -> Any:
    return (x[:, 0] * x[:, 1] + 2 * x[:, 2])[:, None]


@pytest.mark.parametrize("data", [X, X.float(), X.numpy(), X.numpy().astype(np.float32)])
def test_the_law_and_its_slopes_at_the_point(data: Any) -> None:
    found = explain(law, data, STAR, **QUICK)
    torch.testing.assert_close(
        found.gradient, torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(found.importances, found.gradient * found.spread.double())
    assert found.local_r2[0] > 0.9999
    assert found.radius == (math.inf,)
    assert found.value.tolist() == pytest.approx([3.5])
    assert "y0 = " in str(found)
    assert "x2 +2" in str(found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_block_in_half_precision_gives_its_coefficients_within_that_precision(dtype: torch.dtype) -> None:
    block = nn.Linear(3, 1).to(dtype)
    with torch.no_grad():
        block.weight.copy_(torch.tensor([[1.5, -2.0, 0.75]]))
        block.bias.fill_(0.5)
    for point in (STAR, X[0].to(dtype)):
        options = {"regressor_options": {"degree": 1}, "unary_operators": (), **QUICK}
        found = explain(block, X.to(dtype), point, **options)
        near = pytest.approx([1.5, -2.0, 0.75], rel=torch.finfo(dtype).eps)
        assert found.gradient[0].tolist() == near
        assert found.local_r2[0] > 0.999


def test_the_radius_has_no_unit() -> None:
    def measure(unit: float) -> float:
        options = {"maxsize": 5, "unary_operators": (), **QUICK}
        return explain(lambda x: unit * x[:, :1] ** 3, X, STAR, **options).radius[0]

    assert math.isfinite(measure(1e-20))
    assert measure(1e-20) == pytest.approx(measure(1e20), rel=1e-3)


class Net(nn.Module):
    """A hidden block behind a fixed map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2, bias=False)
        self.hidden = Product()
        nn.init.constant_(self.first.weight, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.hidden(self.first(x))
        return result


class Product(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z[..., :1] * z[..., 1:]


def test_a_hidden_block_is_explained_at_a_point_of_the_models_inputs() -> None:
    net = Net()
    with torch.no_grad():
        net.first.weight[1] = torch.tensor([0.0, 1.0, 0.0])
    found = explain(net.hidden, X.float(), STAR, parent=net, **QUICK)
    assert found.point.tolist() == pytest.approx([1.5, -1.0])
    assert found.gradient[0].tolist() == pytest.approx([-1.0, 1.5], abs=1e-3)
    assert found.result.provenance.source.block == "hidden"


def test_predictions_and_probabilities_of_scikit_learn() -> None:
    rows = X.numpy()
    linear = LinearRegression().fit(rows, law(rows).ravel())
    found = explain(linear.predict, rows, STAR, **QUICK)
    assert found.gradient[0].tolist() == pytest.approx(linear.coef_.tolist(), abs=1e-4)

    classes = (rows[:, 0] + 0.3 * rows[:, 1] > 0).astype(int) + (rows[:, 0] > 1)
    model = LogisticRegression(C=0.1).fit(rows, classes > 0)
    found = explain(model.predict_proba, rows, [0.1, 0.0, 0.0], **QUICK)
    assert found.result.outputs == (int(model.predict_proba([[0.1, 0.0, 0.0]])[0].argmax()),)
    sign = 1 if found.result.outputs == (1,) else -1
    assert found.gradient[0].tolist() == pytest.approx((sign * model.coef_[0]).tolist(), abs=1e-2)

    forest = RandomForestClassifier(20, random_state=0).fit(rows, classes)
    every = explain(forest.predict_proba, rows, [0.9, 0.0, 0.0], outputs=[0, 1, 2], **QUICK)
    assert len(every.local_r2) == len(every.radius) == 3
    assert torch.isfinite(every.value).all()
    with pytest.raises(st.CaptureError, match="predict_proba"):
        explain(forest.predict, rows, STAR, **QUICK)


def test_transforms_are_for_the_equation_only() -> None:
    def distance(x: Tensor) -> Tensor:
        assert x.shape[1] == 3
        return 3 * x.square().sum(1, keepdim=True).sqrt()

    found = explain(
        distance,
        X,
        STAR,
        variable_names=["a", "b", "c"],
        transforms={"r": "sqrt(a^2 + b^2 + c^2)"},
        **QUICK,
    )
    assert str(found.equations()["y0"]) == "3*r"
    norm = math.sqrt(sum(x * x for x in STAR))
    assert found.gradient[0].tolist() == pytest.approx([3 * x / norm for x in STAR], abs=1e-4)
    assert found.top(1) == ("c",)


def test_the_radius_is_where_the_error_has_doubled() -> None:
    line = ScriptedRegressor(equations=("0.9*x0",))
    found = explain(torch.sin, X[:, :1], [0.0], regressor=line, variance=0.04, samples=4000, progress=False)
    scales = torch.tensor([1.0, found.radius[0]])
    z = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(1))
    weight = torch.exp(-z.square() * math.log(2) / z.square().median())
    slope = found.gradient[0, 0].float()
    errors = [
        ((weight * ((0.2 * s * z).sin() - slope * 0.2 * s * z).square()).sum() / weight.sum()).sqrt()
        for s in scales
    ]
    assert float(errors[1] / errors[0]) == pytest.approx(2.0, rel=0.25)


def test_loss_and_weights_of_the_user_count_too() -> None:
    found = explain(law, X, STAR, loss="mae", samples=100, weights=torch.full((150,), 2.0), **QUICK)
    assert found.result.search.loss == "mae"
    plain = explain(law, X, STAR, samples=100, test_fraction=0.0, **QUICK)
    doubled = explain(law, X, STAR, samples=100, test_fraction=0.0, weights=torch.arange(150.0) + 1, **QUICK)
    assert plain.result.train is not None
    assert plain.result.train.weights is not None
    assert doubled.result.train is not None
    torch.testing.assert_close(
        doubled.result.train.weights, plain.result.train.weights * (torch.arange(150.0) + 1)
    )


def test_the_capture_is_for_distill_too_and_for_a_wrapped_block() -> None:
    result = st.distill(
        law, X, capture="slime", capture_options={"x_star": STAR, "neighbours": 20, "samples": 80}, **QUICK
    )
    assert sum(result.provenance.rows) == 100
    net = Net().double()
    block = st.wrap(net, "hidden")
    block.distill(X, parent=net, capture="slime", capture_options={"x_star": STAR}, **QUICK)
    block.switch_to_symbolic()
    with torch.no_grad():
        there = net(torch.tensor([STAR], dtype=torch.float64))
    assert float(there) == pytest.approx(1.5 * 1.5, rel=1e-3)


def test_a_block_that_sees_several_rows_for_each_input_row() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x[..., None]).sum((1, 2))

    model = Tokens()
    found = SlimeCapture(x_star=STAR, samples=1200).collect(model.inner, X.float(), parent=model)
    assert found.weights is not None
    assert len(found) == 3 * 1250
    near = SlimeCapture(x_star=STAR, samples=1200).rows(X.float(), 0)
    assert torch.equal(found.inputs.reshape(1250, 3), torch.from_numpy(near.rows).float())
    assert torch.equal(found.weights.reshape(1250, 3)[:, 1], torch.from_numpy(near.weights).float())
    few = SlimeCapture(x_star=STAR).collect(model.inner, X.float(), parent=model, max_rows=100)
    assert len(few) == 100
    with pytest.raises(st.CaptureError, match="sees 3 rows for one input row"):
        explain(model.inner, X.float(), STAR, parent=model, **QUICK)


def test_rows_of_any_shape() -> None:
    grid = X[:480].reshape(-1, 2, 2, 3).float()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    found = SlimeCapture(x_star=grid[0], samples=50, neighbours=10).collect(flat[1], grid, parent=flat)
    assert found.inputs.shape == (60, 12)


def test_what_cannot_be_explained() -> None:
    with pytest.raises(st.CaptureError, match="give x_star="):
        st.distill(law, X, capture="slime", **QUICK)
    with pytest.raises(st.CaptureError, match="x_star has 2 numbers"):
        explain(law, X, [0.0, 1.0], **QUICK)
    with pytest.raises(st.CaptureError, match="x_star is not an array of numbers"):
        explain(law, np.array([["a", "b", "c"]] * 5), STAR, **QUICK)
    with pytest.raises(st.CaptureError, match="data_weights must be 500"):
        explain(law, X, STAR, data_weights=[1.0], **QUICK)
    with pytest.raises(st.SearchError, match="neighbors.*Did you mean 'neighbours'"):
        explain(law, X, STAR, neighbors=3, **QUICK)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.inner(self.inner(x))
            return result

    model = Twice()
    with pytest.raises(st.CaptureError, match="runs once on every input row"):
        SlimeCapture(x_star=STAR).collect(model.inner, X.float(), parent=model)


def test_same_seed_same_explanation() -> None:
    first, again, other = (
        explain(lambda x: (3 * x).sin().prod(1, keepdim=True), X, STAR, seed=seed, **QUICK)
        for seed in (1, 1, 2)
    )
    assert first.local_r2 == again.local_r2
    assert first.radius == again.radius
    assert first.local_r2 != other.local_r2


@pytest.mark.parametrize(("columns", "axes"), [(1, "curve"), (2, "map"), (3, "bars")])
def test_plots(columns: int, axes: str) -> None:
    from matplotlib import pyplot

    data = X.clone()
    data[:, columns:] = torch.tensor(STAR)[columns:]
    found = explain(lambda x: x.square().sum(1, keepdim=True), data, STAR, **QUICK)
    ax = found.plot()
    if axes == "curve":
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("x0", "y0")
    elif axes == "map":
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("x0", "x1")
    else:
        assert [label.get_text() for label in ax.get_yticklabels()][-1] == found.top(1)[0]
    pyplot.close(ax.figure)


def test_an_explained_output_has_its_column_and_name() -> None:
    def both(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0], x[:, 1]], dim=1)

    found = explain(both, X, STAR, outputs=[1], **QUICK)
    assert found.top(1) == found.top(1, 1) == found.top(1, "y1") == ("x1",)
    with pytest.raises(st.SelectionError, match=r"no output 0; there are: 1 \(y1\)"):
        found.top(1, 0)
    with pytest.raises(st.SelectionError, match="no output 'y0'"):
        found.plot("y0")


def test_stability_counts_structures_and_top_inputs() -> None:
    found = stability(law, X, STAR, seeds=[0, 1], bandwidths=[0.5, 1.0], top=2, **QUICK)
    assert len(found.runs) == 4
    assert found.structure_share == (1.0,)
    assert found.structures == (describe_structure(found.runs[0].explanation.result.chosen()[0].expression),)
    assert found.variables == (("x0", "x2"),)
    assert found.variables_share == (1.0,)
    assert "100% of 4 runs" in str(found)
    with pytest.raises(st.SearchError, match="at least one seed"):
        stability(law, X, STAR, seeds=[], **QUICK)


def test_a_stopped_stability_keeps_what_is_finished() -> None:
    calls = 0

    def until(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 60:
            raise KeyboardInterrupt
        return law(x)

    found = stability(until, X, STAR, seeds=list(range(50)), bandwidths=[1.0], **QUICK)
    assert 1 <= len(found.runs) < 50

    def never(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stability(never, X, STAR, **QUICK)


def test_every_public_name_is_there() -> None:
    import symtorch_slime

    assert all(callable(getattr(symtorch_slime, name)) for name in symtorch_slime.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lime'"):
        _ = symtorch_slime.lime
