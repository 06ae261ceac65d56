"""Measurements beside the network, constants that are exact, variables that are explained, equations that fail."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.expressions import constants, depth, evaluate, from_sympy, parse, to_text, variables
from symtorch_core.expressions.printing import to_latex
from symtorch_core.reduction.linear import IdentityReducer
from symtorch_core.results.distillation import Distillation
from symtorch_core.search.rounding import find_exact_numbers
from symtorch_core.surrogates.expansion import expand_equations
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_pca.reducer import PCAReducer
from symtorch_projection.reducer import ProjectionReducer

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(400, 3, generator=GENERATOR, dtype=torch.float64) * 2 - 1
NOISE = torch.randn(400, 2, generator=GENERATOR, dtype=torch.float64)


def block(x: Tensor) -> Tensor:
    return torch.stack([2 * x[:, 0] + 1, x[:, 1] * x[:, 2]], dim=-1)


EQUATIONS = ("1.5*x0 + 0.5", "1.0*x1*x2")


def find(
    data: Any = X, function: Any = block, equations: tuple[str, ...] = EQUATIONS, **options: Any
) -> Distillation:
    settings: dict[str, Any] = {"select": "accuracy", "progress": False, **options}
    return st.distill(function, data, regressor=ScriptedRegressor(equations), **settings)


# -- measurements -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["aligned", "pair", "arrays", "rows"])
def test_equations_are_compared_with_measurements(form: str, tmp_path: Path) -> None:
    Y = block(X) + 0.3 * NOISE
    result = {
        "aligned": lambda: find(y_true=Y),
        "pair": lambda: find([X[:200], X[200:]], y_true=(X, Y)),
        "arrays": lambda: find(
            X.numpy(), y_true=Y.numpy(), function=lambda x: block(torch.from_numpy(x)).numpy()
        ),
        "rows": lambda: st.distill(
            (X, block(X)), regressor=ScriptedRegressor(EQUATIONS), select="accuracy", y_true=Y, progress=False
        ),
    }[form]()
    for column, entry in enumerate(result.fidelity):
        assert entry.truth is not None
        noise, target = 0.3 * NOISE[:, column], Y[:, column]
        expected = 1 - float((noise.square().mean()) / target.var(correction=0))
        assert entry.truth.r2 == pytest.approx(expected, abs=1e-5)
        assert entry.truth.rows == 400
        assert entry.held_out is not None
        assert entry.held_out.r2 == pytest.approx(1.0)
    result.save(tmp_path / "result.json")
    loaded = Distillation.load(tmp_path / "result.json")
    assert loaded.fidelity == result.fidelity
    assert loaded.truth is None
    for shown in (
        str(result),
        result._repr_html_(),
        st.Distillation.report(result, tmp_path / "p.html").read_text(),
    ):
        assert "against your data" in shown
    assert "against your data" not in str(find())
    assert result.without_rows().truth is None


def test_measurements_of_one_output_of_several() -> None:
    Y = block(X) + torch.tensor([0.0, 1.0])
    result = find(equations=("1.0*x1*x2",), outputs=[1], y_true=Y)
    assert result.fidelity[0].truth is not None
    assert result.fidelity[0].truth.mae == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": [X], "y_true": block(X)}, "one array that is fed to the block itself"),
        ({"y_true": block(X)[:100]}, "y_true: X has 400 rows, Y has 100"),
        ({"y_true": block(X)[:, :1]}, "y_true has 1 outputs, the block has 2"),
        ({"y_true": (X[:, :1], block(X))}, "y_true has 1 inputs, the block has 3"),
        ({"y_true": block(X) * math.nan}, "y_true: 400 of 400 rows hold NaN"),
        ({"y_true": "Y"}, "y_true: Y is not an array"),
    ],
)
def test_measurements_that_belong_nowhere(options: dict[str, Any], message: str) -> None:
    with pytest.raises(st.CaptureError, match=message):
        find(**options)


def test_measurements_beside_data_of_a_model_need_the_blocks_inputs() -> None:
    inner = nn.Linear(3, 2).double()
    model = nn.Sequential(nn.Linear(4, 3).double(), inner)
    data = torch.rand(50, 4, dtype=torch.float64)
    with pytest.raises(st.CaptureError, match="a pair y_true="):
        st.distill(
            inner, data, parent=model, regressor=ScriptedRegressor(EQUATIONS), y_true=torch.zeros(50, 2)
        )


# -- exact numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (3.001, 0.001, "3"),
        (-0.334, 0.01, "-1/3"),
        (3.14, 0.02, "pi"),
        (-1.5712, 0.003, "-pi/2"),
        (6.28, 0.01, "2*pi"),
        (2.718, 0.01, "e"),
        (0.834, 0.005, "5/6"),
    ],
)
def test_simple_numbers_within_two_errors(value: float, error: float, text: str) -> None:
    number, written = find_exact_numbers(value, error)[0]
    assert written == text
    assert abs(number - value) <= 2 * error


@pytest.mark.parametrize(
    ("value", "error"), [(9.81, 0.01), (0.334, 0.3), (3.003, 0.001), (0.0004, 0.001), (7.16, 0.01)]
)
def test_other_numbers_are_left_alone(value: float, error: float) -> None:
    assert find_exact_numbers(value, error) == []


def test_constants_are_rounded_to_the_law_and_the_result_says_so(tmp_path: Path) -> None:
    law = parse("0.5*sin(3.141592653589793*x0) + 0.3333333333333333*x1 + 0.777")
    columns = {f"x{i}": X[:, i] for i in range(3)}
    y = evaluate(law, columns)[:, None] + 0.02 * NOISE[:, :1]
    start = "0.45*sin(3.1*x0) + 0.3*x1 + 0.7"
    found = st.distill(
        (X, y), regressor=ScriptedRegressor((start,)), select="accuracy", progress=False, y_true=y
    )
    rounded = found.round_constants()
    (candidate,) = rounded.chosen()
    values, errors = constants(candidate.expression), candidate.errors
    assert errors is not None
    assert sorted(values)[:2] == pytest.approx([1 / 3, 0.5], rel=1e-15)
    assert math.pi in values
    assert [error is None for error in errors] == [value != max(values[3], values[-1]) for value in values]
    assert {entry.text for entry in rounded.rounded} == {"1/2", "pi", "1/3"}
    for entry in rounded.rounded:
        assert entry.equation == "y0"
        assert abs(entry.before - entry.after) <= 2 * entry.error
    # The constant that is left is the best beside the exact ones.
    assert found.train is not None
    rest = found.train.outputs[:, 0] - evaluate(
        parse("0.5*sin(3.141592653589793*x0) + 0.3333333333333333*x1"),
        {f"x{i}": found.train.inputs[:, i] for i in range(3)},
    )
    assert values[-1] == pytest.approx(float(rest.mean()), rel=1e-9)
    assert errors[-1] == pytest.approx(float(rest.std()) / math.sqrt(len(rest)), rel=1e-6)
    old = found.chosen()[0]
    assert old.loss <= candidate.loss <= old.loss * (1 + 12 / (len(rest) - 4))
    entry = rounded.fidelity[0]
    assert rounded.judge(found.train)[0] == entry.train
    assert rounded.held_out is not None
    assert rounded.judge(rounded.held_out)[0] == entry.held_out
    assert entry.truth is not None
    assert "was rounded to pi" in str(rounded)
    assert "was rounded to pi" in rounded.report(tmp_path / "page.html").read_text(encoding="utf-8")
    rounded.save(tmp_path / "rounded.json")
    again = Distillation.load(tmp_path / "rounded.json")
    assert again.rounded == rounded.rounded
    assert again.fronts == rounded.fronts
    assert again.chosen() == rounded.chosen()
    assert rounded.round_constants() is rounded
    assert found.rounded == ()
    assert math.pi not in constants(found.chosen()[0].expression)


def test_an_exponent_becomes_a_whole_number() -> None:
    x = torch.rand(300, 1, generator=GENERATOR, dtype=torch.float64) + 0.5
    y = 1.7 * x**2 + 0.01 * torch.randn(300, 1, generator=GENERATOR, dtype=torch.float64)
    found = st.distill(
        (x, y), regressor=ScriptedRegressor(("1.5*x0^1.9",)), select="accuracy", maxsize=5, progress=False
    )
    rounded = found.round_constants()
    assert to_text(rounded.chosen()[0].expression, 2) == "1.7*x0^2"
    assert rounded.chosen()[0].errors is not None
    assert len(rounded.chosen()[0].errors or ()) == 1


def test_constants_that_are_no_simple_numbers_stay() -> None:
    y = 1.2345 * X[:, :1] + 0.7071 + 0.001 * NOISE[:, :1]
    found = st.distill(
        (X, y), regressor=ScriptedRegressor(("1.0*x0 + 0.5",)), select="accuracy", progress=False
    )
    assert found.round_constants() is found


def test_rounding_that_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    result = find()
    result.save(tmp_path / "result.json")
    with pytest.raises(st.SelectionError, match="not in memory"):
        Distillation.load(tmp_path / "result.json").round_constants()
    with pytest.raises(st.SelectionError, match="loss='mse' only, not for 'mae'"):
        find(loss="mae").round_constants()


# -- reduced variables ------------------------------------------------------------------------------


def wide(x: Tensor) -> Tensor:
    return torch.stack([torch.sin(x[:, 0] + x[:, 1]), x[:, 0] + x[:, 1] - x[:, 3], x[:, 2] ** 2], dim=-1)


W = torch.randn(300, 5, generator=GENERATOR, dtype=torch.float64) + 0.5
REDUCERS = {
    "pca": (PCAReducer(k_in=2, k_out=2), ("1.1*z0*z1 + 0.3*sin(z1) - z0", "0.5*z0^2 + 0.1")),
    "pca of inputs": (PCAReducer(k_in=2), ("z0*z1", "2.0*z0 + 1", "sin(z1)")),
    "pca with a linear part": (PCAReducer(k_in=3, k_out=1, linear=True), ("z0*z1 - 0.5*exp(z2)",)),
    "projection": (ProjectionReducer(k_in=2, k_out=1), ("z0*z0 - 0.5*cos(z1)",)),
    "linear part of the inputs": (IdentityReducer(linear=True), ("a*b", "sin(c)", "d*1.5")),
    "nothing": (IdentityReducer(), ("a*b + 1.5", "sin(c)", "d")),
}
NAMES = ["a", "b", "c", "d", "e"]


def reduce_wide(name: str, **options: Any) -> Distillation:
    reducer, equations = REDUCERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # these equations fit nothing, as they need not
        return find(
            W, wide, equations, reducer=reducer, variable_names=NAMES, refine=False, maxsize=40, **options
        )


@pytest.mark.parametrize("transformed", [False, True])
@pytest.mark.parametrize("name", list(REDUCERS))
def test_expanded_equations_compute_what_the_surrogate_does(name: str, transformed: bool) -> None:
    transforms = {"a": "b*c", "b": "a - 0.5", "c": "c", "d": "sin(d)", "e": "e"} if transformed else None
    result = reduce_wide(name, transforms=transforms)
    expected = result.surrogate().predict(W)
    columns = dict(zip(NAMES, W.T, strict=True))
    equations = result.equations(expand=True)
    assert list(equations) == ["y0", "y1", "y2"]
    for column, equation in enumerate(equations.values()):
        value = evaluate(from_sympy(equation), columns).expand(len(W))
        assert torch.allclose(value, expected[:, column], rtol=1e-9, atol=1e-9)
        assert not {str(symbol) for symbol in equation.free_symbols} & {"z0", "z1", "z2"}
    lines = result.latex(expand=True).splitlines()
    assert [line.partition(" = ")[0] for line in lines] == ["y_{0}", "y_{1}", "y_{2}"]
    assert "z_" not in result.latex(expand=True)


def test_wide_inputs_are_written_out_without_deep_trees() -> None:
    many = torch.randn(50, 700, generator=GENERATOR, dtype=torch.float64)
    names = [f"v{i}" for i in range(700)]
    reduction = PCAReducer(k_in=2).fit(many, many[:, :2], variable_names=names)
    transforms = st.Transforms.none(names)
    equations = [parse("z0*z1"), parse("2.5*z0 - sin(z1)")]
    expected = st.TorchSurrogate.build(equations, transforms, reduction).predict(many)
    columns = dict(zip(names, many.T, strict=True))
    for column, expression in enumerate(expand_equations(equations, transforms, reduction)):
        assert set(variables(expression)) == set(names)
        assert torch.allclose(evaluate(expression, columns), expected[:, column])
        assert depth(expression) < 100
        assert "v699" in to_latex(expression)


def test_what_cannot_be_written_out_is_refused() -> None:
    result = reduce_wide("nothing", transforms={"a": lambda x: x[..., 0], "b": "b", "c": "c", "d": "d"})
    with pytest.raises(st.SelectionError, match="Python function"):
        result.equations(expand=True)
    with pytest.raises(st.SelectionError, match=r"errors=True or expand=True"):
        reduce_wide("pca").latex(errors=True, expand=True)
    with pytest.raises(st.SelectionError, match="expand must be True or False"):
        result.equations(expand="yes")  # type: ignore[arg-type]


def test_a_map_that_is_not_linear_has_no_loadings() -> None:
    reduction = st.Reduction(
        down=nn.Sequential(nn.Linear(5, 2), nn.Tanh()),
        up=nn.Identity(),
        project=nn.Identity(),
        variable_names=["z0", "z1"],
        shape={},
    )
    result = reduce_wide("pca of inputs")
    bent = Distillation(**{**vars(result), "reduction": reduction})
    for ask in (bent.loadings, lambda: bent.equations(expand=True)):
        with pytest.raises(st.SelectionError, match="is not linear"):
            ask()
    assert "made of" not in str(bent)


def test_a_linear_map_of_another_kind_is_read_from_what_it_computes() -> None:
    class Pick(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x[..., [3, 1]] + 0.5

    result = reduce_wide("pca of inputs")
    reduction = st.Reduction(
        down=Pick(), up=nn.Identity(), project=nn.Identity(), variable_names=["z0", "z1"], shape={}
    )
    picked = Distillation(**{**vars(result), "reduction": reduction})
    frame = picked.loadings()
    assert frame.to_numpy().tolist() == pytest.approx(np.array([[0, 0, 0, 2, 0], [0, 2, 0, 0, 0]]))
    assert to_text(picked.expand()["y0"], 3) == to_text(from_sympy(picked.equations(expand=True)["y0"]), 3)


def test_loadings_are_the_principal_axes(tmp_path: Path) -> None:
    result = reduce_wide("pca")
    assert result.train is not None
    inputs = result.train.inputs.numpy()
    _, _, axes = np.linalg.svd(inputs - inputs.mean(0))
    frame = result.loadings()
    assert list(frame.index) == ["z0", "z1"]
    assert list(frame.columns) == NAMES
    assert np.abs(frame.to_numpy()) == pytest.approx(np.abs(axes[:2]), abs=1e-9)
    outputs = result.train.outputs.numpy()
    _, _, axes = np.linalg.svd(outputs - outputs.mean(0))
    frame = result.loadings("outputs")
    assert (list(frame.index), list(frame.columns)) == (["f0", "f1"], ["y0", "y1", "y2"])
    assert np.abs(frame.to_numpy()) == pytest.approx(np.abs(axes[:2]), abs=1e-9)
    result.save(tmp_path / "result.json")
    assert Distillation.load(tmp_path / "result.json").loadings().equals(result.loadings())
    with pytest.raises(st.SelectionError, match="are not reduced"):
        reduce_wide("nothing").loadings()
    with pytest.raises(st.SelectionError, match="unknown side 'input'. Did you mean 'inputs'"):
        result.loadings("input")  # type: ignore[arg-type]


def test_views_name_the_largest_inputs(tmp_path: Path) -> None:
    result = reduce_wide("pca of inputs")
    weights = result.loadings().iloc[0]
    largest = weights.abs().sort_values(ascending=False).index[:4]
    line = f"z0: {', '.join(f'{weights[name]:+.3g} {name}' for name in largest)}, ... ("
    share = float((weights[largest] ** 2).sum() / (weights**2).sum())
    assert f"{line}{share:.0%} of its weight)" in str(result)
    page = result.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Maps of the reducer" in page
    assert "loadings of the inputs" in page
    assert "made of" not in str(reduce_wide("nothing"))


# -- equations that fail ----------------------------------------------------------------------------


def test_an_equation_worse_than_a_constant_is_told_of_once_and_marked(tmp_path: Path) -> None:
    rows = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    noise = torch.randn(40, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    Y = torch.cat([2 * rows, noise], dim=1)
    wild = "1.0*sin(31*x0) + cos(47*x0) + sin(61*x0) + cos(83*x0)"
    with pytest.warns(
        RuntimeWarning, match="^noise: on held-out rows .* worse than the best constant"
    ) as told:
        result = st.distill(
            (rows, Y),
            regressor=ScriptedRegressor(("2.0*x0", wild)),
            select="accuracy",
            output_names=["line", "noise"],
            maxsize=60,
            test_fraction=0.4,
            progress=False,
        )
    assert len(told) == 1
    assert result.find_worse_than_constant() == (1,)
    assert result.train is not None
    assert result.held_out is not None
    mean = result.train.outputs[:, 1].mean()
    expected = float((result.held_out.outputs[:, 1] - mean).square().mean())
    assert result.constant_losses[1] == pytest.approx(expected, rel=1e-9)
    assert str(result).count("a constant does better") == 1
    assert result._repr_html_().count("a constant does better") == 1
    page = result.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<p class="wide warning">On held-out rows, a constant does better') == 1
    result.save(tmp_path / "result.json")
    assert Distillation.load(tmp_path / "result.json").find_worse_than_constant() == (1,)


def test_nothing_is_told_of_a_constant_or_without_held_out_rows() -> None:
    noise = torch.randn(40, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    constant = st.distill(
        (rows, noise), regressor=ScriptedRegressor(("0.5",)), select="accuracy", progress=False
    )
    assert constant.find_worse_than_constant() == ()
    none = st.distill(
        (rows, noise), regressor=ScriptedRegressor(("sin(31*x0)",)), test_fraction=0.0, progress=False
    )
    assert none.constant_losses == ()
    assert none.find_worse_than_constant() == ()
