"""Fronts and the rules that pick from them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from symtorch_core.errors import FileFormatError, SelectionError
from symtorch_core.expressions import Constant, parse
from symtorch_core.search.front import Candidate, ParetoFront, Unrunnable
from symtorch_core.search.front_builder import build_front
from symtorch_core.search.selection import HELD_OUT_RULES
from symtorch_core.search.space import SearchSpace
from symtorch_core.testing.strategies import expressions


def candidate(text: str, complexity: int, loss: float, validation: float | None = None) -> Candidate:
    return Candidate(parse(text), complexity, loss, validation)


FRONT = ParetoFront(
    [
        candidate("2", 1, 8.0, 9.0),
        candidate("x", 3, 4.0, 4.0),
        candidate("x + y", 5, 0.1, 0.12),
        candidate("x + y*z", 7, 0.09, 0.11),
        candidate("x + y*sin(z)", 11, 0.06, 0.5),
    ]
)


def test_the_score_is_the_drop_of_log_loss_per_complexity() -> None:
    by_hand = [0.0, math.log(2) / 2, math.log(40) / 2, math.log(0.1 / 0.09) / 2, math.log(0.09 / 0.06) / 4]
    assert [c.score for c in FRONT] == pytest.approx(by_hand)


def test_each_rule_picks_its_own() -> None:
    assert FRONT.select() is FRONT.select("knee") is FRONT.select("score") is FRONT[2]
    assert FRONT.select("accuracy") is FRONT[4]
    assert FRONT.select("validation") is FRONT[3]
    assert FRONT.select("simplest") is FRONT[3]  # 0.12 is not within 1.05 x 0.11
    # 1.5 x 0.06 = 0.09: complexity 7 and 11 qualify, and 11 has the larger score.
    assert FRONT.select("best") is FRONT[4]
    assert FRONT.select(complexity=5) is FRONT[2]


def test_best_considers_only_equations_near_the_lowest_loss() -> None:
    front = ParetoFront(
        [candidate("1", 1, 100.0), candidate("x", 2, 1.6), candidate("x+y", 3, 1.4), candidate("x*y", 5, 1.0)]
    )
    assert front.select("score").complexity == 2
    assert front.select("best").complexity == 5
    wider = ParetoFront([*front[:-1], candidate("x*y", 5, 1.1)])
    assert wider.select("best").complexity == 2  # 1.6 is within 1.65


PENDULUM = ParetoFront(
    [
        candidate("0.1", 1, 52.0, 52.0),
        candidate("-3.2*theta", 3, 22.0, 22.0),
        candidate("-9.3*sin(theta)", 6, 8.0, 8.0),
        candidate("-9.8*sin(theta)/L", 8, 0.709, 0.71),
        candidate("-9.8*sin(theta)/L - 0.5*omega", 12, 0.0506, 0.05),
        candidate("-9.8*sin(theta)/L - 0.5*omega + 0.02*cos(omega)", 18, 0.0401, 0.04),
        candidate("-9.8*sin(theta)/L - 0.5*omega + 0.02*cos(3*omega + L)", 24, 0.0331, 0.03),
    ]
)
"""A network of a damped pendulum: the law, and then ripples of the network."""


@pytest.mark.parametrize("unit", [1, 2, 5])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_the_knee_is_the_law_whatever_the_units(unit: int, scale: float) -> None:
    front = ParetoFront(replace(c, complexity=unit * c.complexity, loss=scale * c.loss) for c in PENDULUM)
    assert front.select("score") is front[3]
    assert front.select() is front.select("knee") is front[4]


def test_an_exact_law_is_the_knee_however_steep_the_way_to_it_began() -> None:
    front = ParetoFront(
        [candidate("1", 1, 1.0), candidate("x", 2, 1e-3), candidate("x + y*z*sin(x*y)", 30, 1e-16)]
    )
    assert front.select("knee") is front[2]
    assert front.select("score") is front[1]


def test_where_no_equation_comes_close_held_out_rows_decide() -> None:
    front = ParetoFront(
        [
            candidate("1", 1, 1.0, 1.0),
            candidate("x", 3, 0.9, 0.95),
            candidate("x + y", 5, 0.7, 0.75),
            candidate("x + y*z", 11, 0.6, 0.6),
            candidate("x + y*sin(z)", 20, 0.5, 0.9),
        ]
    )
    assert front.select("score") is front[2]
    assert front.select("knee") is front[3]
    assert ParetoFront([candidate("1", 1, 1.0)]).select("knee").complexity == 1


def test_a_steep_fall_that_was_left_out_is_found() -> None:
    assert PENDULUM.find_left_out(PENDULUM.select("score")) is PENDULUM[4]
    assert PENDULUM.find_left_out(PENDULUM.select("knee")) is None
    assert PENDULUM.find_left_out(PENDULUM[-1]) is None


def test_what_does_worse_than_a_constant_is_not_on_a_front() -> None:
    front = ParetoFront([candidate("x0", 1, 7.0), candidate("-2.7", 2, 6.0), candidate("x4 - 2.7", 4, 3.0)])
    assert [c.complexity for c in front] == [2, 4]
    assert front.select("score") is front[1]
    better = ParetoFront([candidate("x0", 1, 1.0), candidate("-2.7", 2, 6.0), candidate("x4 - 2.7", 4, 0.5)])
    assert [c.complexity for c in better] == [1, 4]


def test_a_variable_worse_than_the_best_constant_is_not_the_base_of_a_score() -> None:
    X = np.random.default_rng(0).uniform(-2, 2, (500, 2))
    y = X[:, 0] ** 2 + 3 * np.sin(X[:, 1]) - 4
    texts = ("x0", "x1", "x1 - 2.7", "2*x1 - 2.7", "x0^2 + 3*sin(x1) - 4")
    names = ("x0", "x1")
    front = build_front(
        [parse(text, names) for text in texts], X, y, SearchSpace(complexity_of_constants=2), names
    )
    assert isinstance(front[0].expression, Constant)
    for rule in ("knee", "score", "best"):
        assert front.select(rule) is front[-1]


def test_an_exact_fit_has_a_finite_score_and_is_chosen() -> None:
    front = ParetoFront([candidate("1", 1, 2.0), candidate("x", 3, 0.5), candidate("x+y", 5, 0.0)])
    assert math.isfinite(front[-1].score)
    for rule in ("knee", "score", "best", "accuracy"):
        assert front.select(rule) is front[-1]


def test_ties_go_to_the_simpler_equation() -> None:
    front = ParetoFront(
        [candidate("1", 1, 4.0, 1.0), candidate("x", 2, 2.0, 1.0), candidate("x+y", 3, 1.0, 1.0)]
    )
    assert front[1].score == front[2].score
    assert front.select("score").complexity == 2
    assert front.select("validation").complexity == 1
    assert ParetoFront([candidate("3", 1, 1.0)]).select("score").complexity == 1


def test_dominated_and_non_finite_candidates_are_left_out() -> None:
    front = ParetoFront(
        [
            candidate("x", 3, 1.0),
            candidate("y", 3, 0.5),
            candidate("x+y", 4, 0.5),
            candidate("x*y", 5, math.inf),
            candidate("x-y", 6, math.nan),
            candidate("x/y", 7, 0.7),
            candidate("2", 1, 2.0),
        ]
    )
    assert [str(c) for c in front] == ["2", "y"]
    assert front.complexities == (1, 3)


def test_an_unknown_complexity_lists_those_there_are() -> None:
    with pytest.raises(SelectionError, match="no equation of complexity 4 .*there are: 1, 3, 5, 7, 11"):
        FRONT.select(complexity=4)


def test_the_simplest_of_those_that_hold_out_about_as_well() -> None:
    front = ParetoFront(
        [
            candidate("1", 1, 4.0, 5.0),
            candidate("x", 3, 1.0, 1.04),
            candidate("x + y", 5, 0.9, 1.0),
            candidate("x + inv(y)", 6, 0.0, 1.3),  # a pole on the one row that was off
        ]
    )
    assert front.select("best") is front[3]
    assert front.select("simplest") is front[1]
    exact = ParetoFront(
        [candidate("1", 1, 4.0, 5.0), candidate("x", 3, 0.5, 1e-12), candidate("x*y", 5, 0.1, 0.0)]
    )
    assert exact.select("simplest") is exact[1]  # 1e-12 is rounding


def test_an_unknown_rule_lists_the_rules() -> None:
    with pytest.raises(SelectionError, match="unknown rule 'bset'.*knee, score, best, accuracy"):
        FRONT.select("bset")  # type: ignore[arg-type]


def test_no_held_out_rows_to_judge_by() -> None:
    for rule in HELD_OUT_RULES:
        with pytest.raises(SelectionError, match="test_fraction"):
            ParetoFront([candidate("x", 1, 1.0)]).select(rule)


@pytest.mark.parametrize("front", [ParetoFront([]), ParetoFront([candidate("x", 1, math.inf)])])
def test_nothing_to_pick_from(front: ParetoFront) -> None:
    assert len(front) == 0
    for arguments in ({"rule": "score"}, {"rule": "best"}, {"complexity": 1}):
        with pytest.raises(SelectionError, match="the front is empty"):
            front.select(**arguments)


def test_it_is_a_sequence() -> None:
    assert len(FRONT) == 5
    assert list(FRONT)[-1] is FRONT[-1]
    assert FRONT[2] in FRONT
    assert [c.complexity for c in reversed(FRONT)] == [11, 7, 5, 3, 1]
    assert FRONT == ParetoFront(list(FRONT)) != ParetoFront(FRONT[:2])
    assert hash(FRONT) == hash(ParetoFront(list(FRONT)))


losses = st.floats(0, 1e300)
candidates = st.builds(
    Candidate, expressions(names=("x", "pi")), st.integers(1, 40), losses, st.one_of(st.none(), losses)
)


@given(st.lists(candidates, max_size=6).map(ParetoFront))
def test_json_round_trip(front: ParetoFront) -> None:
    text = json.dumps(front.to_json(), allow_nan=False)
    assert ParetoFront.from_json(json.loads(text), ["x", "pi"]) == front


GOOD = {
    "equation": "x",
    "complexity": 1,
    "loss": 0.5,
    "validation_loss": None,
    "errors": None,
    "fidelity": None,
}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"equation": "x"}, "required field `complexity`"),
        ({**GOOD, "complexity": "many"}, r"`int`, got `str` - at `\$.equations\[0\].complexity`"),
        ({**GOOD, "complexity": -1}, ">= 0"),
        ({**GOOD, "loss": None}, "`float`, got `null`"),
        ({**GOOD, "loss": "inf"}, "`float`, got `str`"),
        ({**GOOD, "validation_loss": "low"}, "'low'"),
        ({**GOOD, "reason": "none"}, "unknown field `reason`"),
        ({**GOOD, "equation": "__import__('os')"}, "cannot read"),
        ({**GOOD, "equation": "q"}, "unknown variable 'q'"),
        ("x", "`object`, got `str`"),
    ],
)
def test_json_that_is_no_front(entry: object, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        ParetoFront.from_json({"equations": [entry], "unrunnable": []}, ["x"])


@pytest.mark.parametrize(
    "data", [[], [GOOD], {"equations": [GOOD]}, {"equations": [], "unrunnable": [GOOD]}, None]
)
def test_json_of_another_form_is_no_front(data: object) -> None:
    with pytest.raises(FileFormatError, match="a saved front is damaged"):
        ParetoFront.from_json(data, ["x"])


def test_an_equation_that_is_not_on_the_front_is_not_dropped_in_silence() -> None:
    worse = {**GOOD, "equation": "x + 1", "complexity": 3}
    with pytest.raises(FileFormatError, match="no better than simpler ones"):
        ParetoFront.from_json({"equations": [GOOD, worse], "unrunnable": []}, ["x"])


def test_how_candidates_are_shown() -> None:
    shown = candidate("3.14159265*x^2 - 0.5", 7, 0.1)
    assert str(shown) == "3.142*x^2 - 0.5"
    assert shown.text(2) == "3.1*x^2 - 0.5"
    assert shown.text(None) == "3.14159265*x^2 - 0.5"
    assert shown.latex(3) == r"3.14 x^{2} - 0.5"
    assert str(shown.equation) == "3.14159265*x**2 - 0.5"
    assert repr(FRONT) == "ParetoFront(5 equations, complexity 1, 3, 5, 7, 11)"


def test_equations_are_in_plain_symbols_so_that_sympy_does_what_it_is_told() -> None:
    equation = candidate("3.0*x0^2 + 2.0*x0 + sin(x1)", 7, 0.1).equation
    x0, x1 = sp.symbols("x0 x1")
    assert equation.diff("x0") == 6 * x0 + 2
    assert equation.subs("x0", 1) == 5 + sp.sin(x1)
    assert equation - sp.sympify("2*x0") == 3 * x0**2 + sp.sin(x1)
    assert sp.solve(equation.subs(x1, 0), x0) == [sp.Rational(-2, 3), 0]
    assert candidate("sqrt(x0^2)", 3, 0.1).equation == sp.Abs(x0)  # variables stand for real numbers


@pytest.mark.parametrize("name", ["I", "E", "S", "N", "O", "Q", "pi_", "beta", "gamma_", "zeta", "lambda"])
def test_a_variable_named_like_something_of_sympy_is_a_symbol(name: str) -> None:
    front = ParetoFront([Candidate(parse(f"2.0*{name} + x", [name, "x"]), 5, 0.1)])
    assert front[0].equation == 2 * sp.Symbol(name) + sp.Symbol("x")


def test_as_a_data_frame() -> None:
    pytest.importorskip("pandas")
    frame = FRONT.to_frame()
    assert list(frame.columns) == [
        "complexity",
        "loss",
        "score",
        "validation_loss",
        "r2_train",
        "r2_held_out",
        "r2_out_of_range",
        "max_error_held_out",
        "equation",
    ]
    assert frame["complexity"].tolist() == [1, 3, 5, 7, 11]
    assert frame["equation"][2] == "x + y"


def test_equations_that_cannot_run_stay_beside_the_front_and_survive_json() -> None:
    strange = [Unrunnable("besselj(x)", 2, 1e-9, "no row"), Unrunnable("y", 1, math.inf, "odd")]
    front = ParetoFront([candidate("x", 1, 2.0, math.inf)], strange)
    assert len(front) == 1
    assert str(front.select("accuracy")) == "x"
    assert [entry.equation for entry in front.unrunnable] == ["y", "besselj(x)"]
    assert front != ParetoFront([candidate("x", 1, 2.0)])
    assert ParetoFront.from_json(json.loads(json.dumps(front.to_json())), ["x"]) == front
    with pytest.raises(FileFormatError):
        ParetoFront.from_json(
            {"equations": [], "unrunnable": [{"equation": "x", "reason": "lacks the rest"}]}, ["x"]
        )


def test_a_notebook_shows_complexities_and_equations() -> None:
    front = ParetoFront([candidate("2.0", 1, 8.0), candidate("x^2 + 0.12345", 5, 0.1)])
    rows = r"1 & 2 \\ 5 & x^{2} + 0.1235"
    assert front._repr_latex_() == rf"$\displaystyle \begin{{array}}{{rl}} {rows} \end{{array}}$"
    assert front[1]._repr_latex_() == r"$\displaystyle x^{2} + 0.1235$"
    assert "<mi>x</mi><mn>2</mn>" in front._repr_html_()


def test_it_is_drawn_on_the_given_axes() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    axes = figures.Figure().subplots()
    assert FRONT.plot(axes) is axes
    points = [tuple(point) for line in axes.lines for point in line.get_xydata()]
    assert (5, pytest.approx(0.1)) in points
