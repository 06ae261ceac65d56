"""Regression over a library: what it holds, what is chosen, and that no rows are needed twice."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import symtorch_core as st
from symtorch_core.events import Event, OutputFinished, OutputImproved, OutputInterrupted, OutputProgressed
from symtorch_core.expressions import Call, evaluate, parse, to_text, walk
from symtorch_core.reduction import Moments
from symtorch_sparse.library import Columns, build_library, select_usable_terms
from symtorch_sparse.path import compute_path
from symtorch_sparse.regressor import SparseRegressor

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(500, 4, generator=GENERATOR, dtype=torch.float64) * 4 - 2
NAMES = ("a", "b", "c", "d")


def fit(Y: torch.Tensor, X: torch.Tensor = X, **options: Any) -> list[st.ParetoFront]:
    own = {name: options.pop(name) for name in SparseRegressor.option_names() if name in options}
    rest = {name: options.pop(name) for name in ("weights", "callbacks") if name in options}
    return SparseRegressor(**own).fit(
        X,
        Y if Y.ndim == 2 else Y[:, None],
        search=st.SearchSpace(**options),
        variable_names=name_inputs(X),
        **rest,
    )


def name_inputs(X: torch.Tensor) -> tuple[str, ...]:
    return NAMES if X.shape[1] == 4 else tuple(f"x{i}" for i in range(X.shape[1]))


def list_terms(**options: Any) -> list[str]:
    own = {"names": ["a", "b"], "degree": 2, "mixed": False, "most": 99}
    for name in own:
        own[name] = options.pop(name, own[name])
    return list(map(str, build_library(st.SearchSpace(**options), **own)))


def test_the_library_holds_products_functions_and_pairs_once() -> None:
    assert list_terms(unary_operators=()) == ["a", "b", "square(a)", "a*b", "square(b)"]
    assert list_terms(unary_operators=("square", "sin")) == [
        *("a", "b", "square(a)", "a*b", "square(b)"),
        *("sin(a)", "sin(b)"),
    ]
    assert list_terms(unary_operators=(), binary_operators=("+", "*", "/", "max"), degree=1) == [
        *("a", "b", "a/b", "b/a"),
        "max(a, b)",
    ]
    assert "exp(a)*b" in list_terms(unary_operators=("exp",), mixed=True)
    assert len(list_terms(unary_operators=(), names=list("abcde"), degree=3)) == 5 + 15 + 35


def test_a_library_too_large_is_refused() -> None:
    with pytest.raises(st.SearchError, match="more than 10 terms: lower degree="):
        list_terms(names=list("abcdef"), most=10)


def test_terms_that_are_not_finite_or_do_not_vary_are_left_out() -> None:
    terms = [parse(text) for text in ("log(a)", "exp(b)", "logical_or(exp(c), d)", "d")]
    assert list(map(str, select_usable_terms(terms, X, NAMES))) == ["exp(b)", "d"]
    assert list(map(str, select_usable_terms(terms, X * 300, NAMES))) == [
        "d"
    ]  # exp(600) squared would be infinite


def test_the_path_is_the_best_of_all_sums() -> None:
    terms = build_library(st.SearchSpace(unary_operators=("sin", "exp")), NAMES, 2, False, 99)
    values = Columns(terms, NAMES)(X)
    y = (
        2 * torch.sin(X[:, 0])
        + X[:, 1] * X[:, 2]
        + 0.3 * torch.exp(X[:, 3])
        + 0.05 * torch.randn(500, generator=GENERATOR)
    )
    steps = compute_path(Moments.of(values, y[:, None]), 0, 4)
    centred, target = (values - values.mean(0)).numpy(), (y - y.mean()).numpy()
    for size, step in enumerate(steps, start=1):
        losses = {
            chosen: np.linalg.lstsq(centred[:, chosen], target, rcond=None)[1][0] / len(target)
            for chosen in itertools.combinations(range(len(terms)), size)
        }
        best = min(losses, key=losses.__getitem__)
        assert step.indices == best
        assert step.loss == pytest.approx(losses[best], rel=1e-9)
        assert step.coefficients == pytest.approx(np.linalg.lstsq(centred[:, best], target, rcond=None)[0])


def draw_linear_law(seed: int, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return inputs on U(0, 1), a linear law of all of them, and its coefficients."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(300, 3 + seed % 4, generator=generator, dtype=torch.float64)
    factors = 2 * torch.randn(inputs.shape[1], generator=generator, dtype=torch.float64)
    y = inputs @ factors + 1
    return inputs, y + noise * y.std() * torch.randn(300, generator=generator, dtype=torch.float64), factors


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("unit", [1.0, 1e-20])
def test_linear_laws_of_positive_inputs_are_found(seed: int, unit: float) -> None:
    inputs, y, factors = draw_linear_law(seed)
    (front,) = fit(unit * y, inputs, maxsize=40)
    best = front.select("best").expression
    assert all(not isinstance(node, Call) or node.operator in {"+", "-", "*"} for node in walk(best))
    names = name_inputs(inputs)
    slopes = [
        float(evaluate(best, {name: torch.tensor(float(name == own)).double() for name in names}))
        - float(evaluate(best, {name: torch.tensor(0.0).double() for name in names}))
        for own in names
    ]
    assert slopes == pytest.approx((unit * factors).tolist(), rel=1e-6)


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_under_noise_the_front_holds_the_linear_law(noise: float) -> None:
    for seed in range(10):
        inputs, y, factors = draw_linear_law(seed, noise)
        (front,) = fit(y, inputs, maxsize=40)
        columns = dict(zip(name_inputs(inputs), inputs.unbind(1), strict=True))
        law = inputs @ factors + 1
        errors = [float((evaluate(c.expression, columns) - law).std()) for c in front]
        assert min(errors) < 0.3 * noise * float(law.std())


def test_the_laws_of_two_and_three_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = 1 + 9 * torch.rand(400, 3, generator=generator, dtype=torch.float64)
    (front,) = fit(inputs[:, 0] + inputs[:, 1], inputs)
    assert to_text(front.select("best").expression, digits=6) == "x0 + x1"
    inputs = (inputs - 1) / 9
    (front,) = fit(2 * inputs[:, 0] - inputs[:, 1] + 3 * inputs[:, 2], inputs)
    assert to_text(front.select("best").expression, digits=6) == "2*x0 - x1 + 3*x2"


def test_of_columns_that_say_the_same_the_simplest_is_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(200, 2, generator=generator, dtype=torch.float64)
    inputs[:, 0] = (inputs[:, 0] > 0.7).double()
    (front,) = fit(2 * inputs[:, 0], inputs)
    assert to_text(front.select("best").expression, digits=6) == "2*x0"


def test_columns_that_depend_on_each_other_do_no_harm() -> None:
    doubled = torch.cat([X, X[:, :2] + X[:, 2:]], 1)
    (front,) = fit(doubled[:, 4] * 2 - doubled[:, 3], doubled, unary_operators=(), degree=1)
    assert front.select("best").loss < 1e-20


def test_a_law_in_the_library_is_found_exactly() -> None:
    Y = torch.stack([2 * X[:, 0] * X[:, 1] - 0.5 * torch.exp(X[:, 2]) + 3, X[:, 3].square() - X[:, 0]], dim=1)
    first, second = fit(Y)
    assert to_text(first.select("score").expression, digits=4) in {"2*a*b - 0.5*exp(c) + 3"}
    assert to_text(second.select("score").expression, digits=4) in {"d^2 - a"}


def test_outputs_are_found_alike_alone_and_together() -> None:
    Y = torch.stack([X[:, 0] * X[:, 1], torch.sin(X[:, 2]) + X[:, 3]], dim=1)
    for together, alone in zip(fit(Y), [fit(Y[:, i])[0] for i in range(2)], strict=True):
        # Up to rounding: sums over rows are added up in another order for one column than for two.
        assert [to_text(c.expression, digits=9) for c in together] == [
            to_text(c.expression, digits=9) for c in alone
        ]
        assert [c.loss for c in together] == pytest.approx([c.loss for c in alone], abs=1e-12)


def test_a_hundred_inputs() -> None:
    wide = torch.randn(3000, 100, generator=GENERATOR)
    y = wide[:, 7] * wide[:, 91] - 2 * wide[:, 33] + 0.1 * torch.randn(3000, generator=GENERATOR)
    (front,) = fit(y, wide, unary_operators=())
    text = to_text(front.select("score").expression, digits=2)
    assert {"x7*x91", "2*x33"} == {part.strip() for part in text.split("-")}


def test_weights_are_those_of_least_squares() -> None:
    y = 2 * X[:, 0] + torch.randn(500, generator=GENERATOR, dtype=torch.float64)
    weights = torch.rand(500, generator=GENERATOR, dtype=torch.float64)
    (front,) = fit(y, weights=weights, unary_operators=(), degree=1, max_terms=1, refine=False)
    slope, offset = np.polyfit(X[:, 0].numpy(), y.numpy(), 1, w=weights.sqrt().numpy())
    equation = front.select("accuracy").expression
    assert to_text(equation, digits=6) == f"{slope:.6g}*a {'+' if offset > 0 else '-'} {abs(offset):.6g}"


def test_outliers_are_withstood_under_absolute_errors() -> None:
    y = 2 * X[:, 0] * X[:, 1] - X[:, 2]
    wrong = y.clone()
    wrong[::7] += 50
    (front,) = fit(wrong, loss="mae")
    assert to_text(front.select("accuracy").expression, digits=3) == "2*a*b - c"


def test_long_equations_are_on_the_front_as_they_are() -> None:
    y = sum((i + 1) * 0.1 * X[:, i % 4] * X[:, i // 4] for i in range(16)) + torch.exp(X[:, 1])
    (front,) = fit(y, maxsize=150)
    assert front.select("accuracy").loss < 1e-9 * float(y.var())
    assert max(front.complexities) > 40


def test_events_tell_the_path() -> None:
    told: list[Event] = []
    fit(X[:, 0] * X[:, 1], callbacks=[told.append])
    assert any(isinstance(event, OutputImproved) and event.complexity for event in told)
    assert isinstance(told[-1], OutputFinished)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"binary_operators": ("+", "/")}, "needs '.' and '.'.*the search has '.', '/'"),
        ({"parsimony": 0.1}, "no parsimony"),
        ({"degree": 0}, "degree must be at least 1"),
        ({"max_terms": 0}, "max_terms must be at least 1"),
        ({"max_terms": 2.5}, "sparse's max_terms must be a whole number, got 2.5"),
        ({"max_terms": "all"}, "sparse's max_terms must be a whole number, got 'all'"),
        ({"degree": 2.0}, "sparse's degree must be a whole number, got 2.0"),
        ({"mixed": "no"}, "sparse's mixed must be True or False, got 'no'"),
        ({"reweighted_rows": 1}, "reweighted_rows must be at least 2"),
        ({"degree": 30}, "more than 6000 terms"),
    ],
)
def test_what_it_cannot_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(st.SearchError, match=message):
        fit(X[:, 0], **options)


def test_by_name_behind_a_reducer() -> None:
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.Tanh(), torch.nn.Linear(40, 2))
    result = st.distill(
        block,
        torch.randn(2000, 30),
        regressor="sparse",
        reducer="projection",
        reducer_options={"method": "active", "k_in": 8},
        maxsize=60,
        select="validation",
        progress=False,
    )
    for entry in result.fidelity:
        assert entry.held_out.r2 >= entry.linear.r2


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_ctrl_c_keeps_what_the_rows_so_far_tell(loss: str) -> None:
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if isinstance(event, OutputProgressed | OutputImproved) and not stopped:
            stopped.append(event)
            raise KeyboardInterrupt

    stopped: list[Event] = []
    Y = torch.stack([2 * X[:, 0] + X[:, 1] * X[:, 2], 3 * X[:, 3] - 1], dim=1)
    with pytest.raises(KeyboardInterrupt):
        fit(Y, unary_operators=(), callbacks=[watch], loss=loss)
    kept = {event.output: event.front for event in events if isinstance(event, OutputInterrupted)}
    # Under squares all outputs are searched in one pass over the rows; else one after the other.
    assert sorted(kept) == ([0, 1] if loss == "mse" else [0])
    if loss == "mse":
        assert [front[-1].loss < 1e-20 for front in kept.values()] == [True, True]


def test_a_limit_ends_the_reweighting_but_not_its_first_round() -> None:
    y = torch.sin(X[:, 0]) * X[:, 1]
    (front,) = fit(y, unary_operators=(), loss="mae", timeout_in_seconds=1e-6)
    assert len(front) > 2
