"""Standard errors of constants: closed forms, simulations, and how they are written."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import symtorch_core as st
from symtorch_core.expressions import Constant, constants, evaluate, parse, to_text, with_constants
from symtorch_core.expressions.printing import format_with_error, to_latex
from symtorch_core.results.distillation import Distillation
from symtorch_core.search.constants import refit_constants
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.front_builder import build_front
from symtorch_core.search.losses import get_loss
from symtorch_core.search.standard_errors import estimate_errors
from symtorch_core.testing.scripted import ScriptedRegressor

MSE = get_loss("mse")
PLAIN = st.SearchSpace(complexity_of_operators={}, complexity_of_constants=1)


def noisy_line(seed: int = 0, rows: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    x, w = generator.uniform(-1, 3, rows), generator.uniform(0.2, 5, rows)
    y = 2 * x - 1 + generator.normal(size=rows) / np.sqrt(w)
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(w)


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_a_line_are_those_of_linear_regression(weighted: bool) -> None:
    x, y, w = noisy_line()
    weights = w if weighted else None
    columns = {"x": x}
    fitted = refit_constants(parse("1.0*x + 0.5"), columns, y, weights, MSE)
    X = np.stack([x.numpy(), np.ones(len(x))], axis=1)
    W = np.diag(w.numpy() if weighted else np.ones(len(x)))
    best = np.linalg.solve(X.T @ W @ X, X.T @ W @ y.numpy())
    residual = y.numpy() - X @ best
    variance = residual @ W @ residual / (len(x) - 2)
    expected = np.sqrt(np.diag(variance * np.linalg.inv(X.T @ W @ X)))
    found = estimate_errors(fitted, columns, y, weights, MSE)
    assert found == pytest.approx(expected, rel=1e-6)
    if weighted:  # only their ratios count
        assert estimate_errors(fitted, columns, y, 1e6 * w, MSE) == pytest.approx(expected, rel=1e-6)


def test_rows_of_weight_zero_do_not_count() -> None:
    x, y, _ = noisy_line()
    weights = (torch.arange(len(x)) < 40).double()
    fitted = refit_constants(parse("1.0*x + 0.5"), {"x": x}, y, weights, MSE)
    found = estimate_errors(fitted, {"x": x}, y, weights, MSE)
    assert found == pytest.approx(estimate_errors(fitted, {"x": x[:40]}, y[:40], None, MSE), rel=1e-9)


def test_two_errors_hold_the_truth_in_nineteen_of_twenty_repetitions() -> None:
    law = parse("2.0*sin(1.5*x) + 0.7")
    generator = np.random.default_rng(3)
    x = torch.from_numpy(generator.uniform(-2, 2, 80))
    clean = evaluate(law, {"x": x})
    held = np.zeros(3)
    for _ in range(200):
        y = clean + torch.from_numpy(generator.normal(scale=0.3, size=80))
        fitted = refit_constants(law, {"x": x}, y, None, MSE)
        errors = estimate_errors(fitted, {"x": x}, y, None, MSE)
        assert errors is not None
        held += [
            abs(c - t) <= 2 * e for c, t, e in zip(constants(fitted), constants(law), errors, strict=True)
        ]
    assert held / 200 == pytest.approx([0.95] * 3, abs=0.04)


def test_constants_that_only_count_together_are_not_determined() -> None:
    x, y, _ = noisy_line()
    fitted = refit_constants(parse("1.5*(1.2*x) + 0.5"), {"x": x}, y, None, MSE)
    first, second, offset = estimate_errors(fitted, {"x": x}, y, None, MSE) or ()
    assert first is None
    assert second is None
    line = refit_constants(parse("1.0*x + 0.5"), {"x": x}, y, None, MSE)
    alone = estimate_errors(line, {"x": x}, y, None, MSE)
    assert alone is not None
    assert offset == pytest.approx(alone[1], rel=1e-6)


def test_a_constant_that_changes_no_row_is_not_determined() -> None:
    x, y, _ = noisy_line()
    fitted = refit_constants(parse("1.0*x + 0.5 + max(x, -7.0)"), {"x": x}, y, None, MSE)
    found = estimate_errors(fitted, {"x": x}, y, None, MSE)
    assert found is not None
    assert [error is None for error in found] == [False, False, True]


def test_what_no_rows_are_left_for_has_no_error() -> None:
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for rows in (x, x[:1]):
        assert estimate_errors(parse("2.0*x + 1.0"), {"x": rows}, 2 * rows + 1, None, MSE) == (None, None)


def test_constants_that_are_not_the_best_have_no_errors() -> None:
    x, y, _ = noisy_line()
    assert estimate_errors(parse("3.0*x + 0.5"), {"x": x}, y, None, MSE) is None


def test_only_squares_have_errors() -> None:
    x, y, _ = noisy_line()
    for loss in map(get_loss, ("mae", "huber", "abs(r)^1.5")):
        fitted = refit_constants(parse("1.0*x + 0.5"), {"x": x}, y, None, loss)
        assert estimate_errors(fitted, {"x": x}, y, None, loss) is None


def test_every_equation_of_a_front_has_errors() -> None:
    x, y, _ = noisy_line()
    y = y + 5
    front = build_front([parse("x"), parse("x*x + x")], x.numpy()[:, None], y.numpy(), PLAIN, ["x"])
    assert len(front) >= 2
    for candidate in front:
        assert candidate.errors is not None
        assert len(candidate.errors) == len(constants(candidate.expression))
    assert isinstance(front[0].expression, Constant)
    assert front[0].errors == pytest.approx([float(y.std()) / math.sqrt(len(y))])


def test_errors_are_in_files_and_damaged_ones_are_refused() -> None:
    front = ParetoFront([Candidate(parse("2*x + y^3.5"), 3, 0.5, errors=(0.25, None))])
    assert ParetoFront.from_json(front.to_json(), ["x", "y"]) == front
    for errors in ([0.1], [0.1, -0.1], [0.1, 0.2, 0.3], ["nan", 0.1]):
        data = front.to_json()
        data["equations"][0]["errors"] = errors
        with pytest.raises(st.FileFormatError, match="errors"):
            ParetoFront.from_json(data, ["x", "y"])


def test_an_error_is_written_with_two_digits_and_its_number_to_the_same_place() -> None:
    assert format_with_error(-9.7912, 0.0123) == ("-9.791", "0.012", 0)
    assert format_with_error(0.3, 12.0) == ("0", "12", 0)
    assert format_with_error(1.0, 0.0996) == ("1.00", "0.10", 0)
    assert format_with_error(5e-324, 5e-324) == ("4.9", "4.9", -324)


def test_text_has_errors_on_request() -> None:
    candidate = Candidate(parse("x^2*9.79123 - sin(c_0*2.5)/L^0.5 + 7e-12"), 3, 0.5)
    candidate = dataclasses.replace(candidate, errors=(0.0119, None, 0.02, 3e-13))
    assert candidate.text() == "x^2*9.791 - sin(c_0*2.5)/L^0.5 + 7e-12"
    assert candidate.text(errors=True) == (
        "x^2*(9.791 ± 0.012) - sin(c_0*2.5)/L^(0.500 ± 0.020) + (7.00 ± 0.30)e-12"
    )
    unknown = dataclasses.replace(candidate, errors=None)
    assert unknown.text(errors=True) == unknown.text()
    exact = Candidate(parse("3.0*x"), 3, 0.0, errors=(0.0,))
    assert exact.text(errors=True) == "3*x"


def test_latex_has_errors_on_request() -> None:
    candidate = Candidate(parse("2.5*x + theta"), 3, 0.5, errors=(0.125,))
    assert candidate.latex(errors=True) == r"\left(2.50 \pm 0.12\right) x + \theta"
    assert r"\pm" not in candidate.latex()
    small = to_latex(parse("2e-9*x"), 4, [1e-10])
    assert small == r"\left(2.00 \cdot 10^{-9} \pm 0.10 \cdot 10^{-9}\right) x"


def test_a_text_with_errors_is_the_equation_with_its_constants_rounded() -> None:
    generator = np.random.default_rng(0)
    for text in ("3*x - (y - 2)*4.5", "1/(2.5*x)", "exp(-1.5*x)^2.5", "cos(x)^3 + 0.1*x*y", "1.25"):
        expression = with_constants(
            parse(text), [c + float(generator.normal()) * 0.1 for c in constants(parse(text))]
        )
        errors = [1e-9] * len(constants(expression))
        written = re.sub(r"\((-?[\d.]+) ± [\d.]+\)", r"(\1)", to_text(expression, 17, errors))
        columns = {name: torch.rand(9, dtype=torch.float64) + 1 for name in ("x", "y")}
        assert torch.allclose(evaluate(parse(written), columns), evaluate(expression, columns), rtol=1e-6)


def test_a_result_shows_errors_and_a_refined_equation_has_none(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(200, 1, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
    regressor = ScriptedRegressor(("2.0*x0 + 1.0",))
    result = st.distill((X, 3 * X + noise), regressor=regressor, select="accuracy", progress=False)
    assert re.fullmatch(
        r"y_\{0\} = .*\\left\(\d\.\d+ \\pm 0\.0\d+\\right\) x_\{0\}.*", result.latex(errors=True)
    )
    assert r"\pm" not in result.latex()
    block = st.SymbolicModel(torch.nn.Linear(1, 1).double())
    block.adopt(result).switch_to_symbolic()
    block.refine(X, epochs=2, batch_size=50, progress=False)
    exported = Distillation.load(block.export(tmp_path / "refined.json"))
    assert r"\pm" in Distillation.load(result.export(tmp_path / "found.json")).latex(errors=True)
    assert r"\pm" not in exported.latex(errors=True)
