"""The arguments of PySR for a search, field by field."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from symtorch_core import SearchError, SearchSpace
from symtorch_core.search import get_loss
from symtorch_pysr.arguments.expressions import write_julia
from symtorch_pysr.arguments.job import Arguments, build_arguments, check_options
from symtorch_pysr.arguments.losses import read_core_loss, write_julia_loss
from symtorch_pysr.arguments.parameters import Installation, read_installed

V1 = Installation(
    "1.5.10", {name: "None" for name in read_installed().init if name != "guesses"}, read_installed().fit
)


def build(search: SearchSpace, pysr: Installation | None = None, **changes: Any) -> Arguments:
    data = {"variable_names": ["a", "b"], "rows": 100, "weighted": False, "outputs": 1, **changes}
    return build_arguments(search, pysr or read_installed(), **data)


def test_the_papers_defaults() -> None:
    assert build(SearchSpace()).init == {
        "binary_operators": ["+", "*"],
        "unary_operators": ["inv(x) = 1/x", "sin", "exp"],
        "niterations": 400,
        "maxsize": 30,
        "parsimony": 0.0,
        "complexity_of_operators": {"sin": 3, "exp": 3},
        "complexity_of_constants": 1,
        "complexity_of_variables": 1,
        "elementwise_loss": "L2DistLoss()",
        "progress": False,
        "verbosity": 1,
        "input_stream": "devnull",
    }
    assert build(SearchSpace()).fit == {"variable_names": ["x0", "x1"]}


def test_limits_go_under_julias_names_and_only_for_operators_of_the_search() -> None:
    search = SearchSpace(
        unary_operators=("sin", "sqrt_abs"),
        complexity_of_operators={"sqrt_abs": 2, "exp": 3},
        constraints={"sqrt_abs": 5, "*": (-1, 3), "exp": 4},
        nested_constraints={"sin": {"sqrt_abs": 1, "exp": 0}, "exp": {"sin": 0}},
    )
    init = build(search).init
    assert init["unary_operators"] == ["sin", "symtorch_sqrt_abs(x) = sqrt(abs(x))"]
    assert init["complexity_of_operators"] == {"symtorch_sqrt_abs": 2}
    assert init["constraints"] == {"symtorch_sqrt_abs": 5, "*": (-1, 3)}
    assert init["nested_constraints"] == {"sin": {"symtorch_sqrt_abs": 1}}


def test_complexities_of_variables_by_name_go_to_fit_in_order() -> None:
    arguments = build(SearchSpace(complexity_of_variables={"b": 4}))
    assert arguments.fit["complexity_of_variables"] == [1, 4]
    assert "complexity_of_variables" not in arguments.init


def test_the_time_limit_is_for_each_output() -> None:
    assert build(SearchSpace(timeout_in_seconds=15.0), outputs=3).init["timeout_in_seconds"] == 3 * (
        15.0 - 3.0
    )


def test_many_rows_are_batched_where_pysr_does_not_decide_itself() -> None:
    assert build(SearchSpace(), V1, rows=20_000).init["batching"] is True
    assert "batching" not in build(SearchSpace(), V1, rows=5_000).init
    assert "batching" not in build(SearchSpace(), rows=20_000).init
    assert build(SearchSpace(), V1, rows=20_000, options={"batching": False}).init["batching"] is False


def test_comparisons_are_defined_for_pysr_1_only() -> None:
    search = SearchSpace(binary_operators=("+", "less"))
    assert build(search).init["binary_operators"] == ["+", "less"]
    assert build(search, V1).init["binary_operators"] == ["+", "symtorch_less(x, y) = (x < y) * one(x)"]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (SearchSpace(maxsize=6), "at least 7"),
        (SearchSpace(constraints={"+": (-1, 3)}), "equal constraints"),
        (SearchSpace(binary_operators=(), unary_operators=()), "at least one operator"),
        (SearchSpace(loss=lambda r: r.abs() ** 1.5), "formula in the residual"),
    ],
)
def test_what_pysr_cannot_do_is_refused(search: SearchSpace, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        build(search)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"populatons": 3}, "Did you mean 'populations'"),
        ({"warm_start": True}, "start=front"),
        ({"random_state": 1}, "deterministic=True"),
        ({"guesses": ["x0"]}, "give start="),
        ({"expression_spec": object()}, "start Julia in this process"),
        ({"early_stop_condition": lambda loss, size: True}, "plain numbers"),
        ({"niterations": 4}, "no option 'niterations'"),
    ],
)
def test_options_that_cannot_pass(option: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        check_options(option, read_installed())


RESIDUALS = torch.tensor([-3.0, -1.0, -0.4, 0.0, 0.3, 0.5, 2.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("L2DistLoss()", lambda r: r**2),
        ("L1DistLoss()", lambda r: r.abs()),
        ("HuberLoss(1.0)", lambda r: torch.where(r.abs() <= 1, r**2 / 2, r.abs() - 0.5)),
        ("HuberLoss(0.4)", lambda r: torch.where(r.abs() <= 0.4, r**2 / 2, 0.4 * (r.abs() - 0.2))),
        ("LPDistLoss{3}()", lambda r: r.abs() ** 3),
        ("LogitDistLoss()", lambda r: -(4 * r.exp() / (1 + r.exp()) ** 2).log()),
        ("L1EpsilonInsLoss(0.4)", lambda r: (r.abs() - 0.4).clamp_min(0)),
        ("L2EpsilonInsLoss(0.4)", lambda r: (r.abs() - 0.4).clamp_min(0) ** 2),
        ("QuantileLoss(0.9)", lambda r: torch.where(r > 0, 0.1 * r, -0.9 * r)),
        ("loss(x, y) = abs(x - y)^1.5", lambda r: r.abs() ** 1.5),
        ("(p, t) -> (t - p)^2", lambda r: r**2),
        ("f(p, t, w) = w * abs(p - t)", lambda r: r.abs()),
        ("f(p::Float32, t::Float32) = 2.0f0 * abs(p - t)", lambda r: 2 * r.abs()),
    ],
)
def test_julia_losses_that_the_core_understands(code: str, wanted: Any) -> None:
    understood = read_core_loss("mse", code)
    assert isinstance(understood, str)
    torch.testing.assert_close(get_loss(understood).of_residual(RESIDUALS), wanted(RESIDUALS))
    assert read_core_loss(understood, code) == understood
    assert write_julia_loss(understood, code, weighted=False) == code


@pytest.mark.parametrize(
    "code",
    [
        "f(p, t) = ((p - t) / t)^2",
        "PeriodicLoss(2.0)",
        "f(p, t) = p > t ? p - t : 0",
        "f(p) = p^2",
        "nonsense",
    ],
)
def test_julia_losses_that_it_does_not(code: str) -> None:
    with pytest.raises(SearchError, match="torch function of the residual"):
        read_core_loss("mse", code)
    function = torch.abs
    assert read_core_loss(function, code) is function


def test_two_losses_are_one_too_many() -> None:
    with pytest.raises(SearchError, match="give one of them"):
        read_core_loss("mae", "L2DistLoss()")


def test_weights_multiply_a_loss_of_two_arguments() -> None:
    assert write_julia_loss("mse", None, weighted=True) == "L2DistLoss()"
    assert (
        write_julia_loss("mse", "f(p, t, w) = w * abs(p - t)", weighted=True) == "f(p, t, w) = w * abs(p - t)"
    )
    named = write_julia_loss("mse", "f(p, t) = abs(p - t)", weighted=True)
    assert named == "begin\nf(p, t) = abs(p - t)\n(p, t, w) -> w * f(p, t)\nend"
    assert write_julia_loss("mse", "(p, t) -> abs(p - t)", weighted=True).startswith(
        "let unweighted = (p, t) -> "
    )
    assert write_julia_loss("huber", None, weighted=True).startswith("begin\nsymtorch_huber(p, t) = ")


def test_formulas_become_julia() -> None:
    assert write_julia_loss("abs(r)^1.5", None, weighted=False) == (
        "symtorch_loss(p, t) = oftype(p, (abs((p - t)) ^ 1.5))"
    )


def test_equations_become_julia_in_the_operators_of_the_search() -> None:
    from symtorch_core.expressions import parse

    search = SearchSpace(unary_operators=("sqrt_abs", "neg"))
    names = {"+": "+", "*": "*", "sqrt_abs": "symtorch_sqrt_abs", "neg": "neg", "a": "x0", "x0": "x1"}
    text = write_julia(parse("sqrt_abs(a) - 2*x0^3"), search, names)
    assert text == "(symtorch_sqrt_abs(x0) + (-1.0 * (2.0 * ((x1 * x1) * x1))))"
    assert write_julia(parse("-a"), search, names) == "neg(x0)"
    with pytest.raises(SearchError, match="no operator 'exp'"):
        write_julia(parse("exp(a)"), search, names)
