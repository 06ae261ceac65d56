"""Thresholds are found whatever their size, though no derivative moves them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import symtorch_core as st
from symtorch_core.expressions import (
    OPERATORS,
    Call,
    Constant,
    Variable,
    constants,
    evaluate,
    parse,
    simplify,
)
from symtorch_core.search import LOSSES, SWITCHING
from symtorch_core.search.rows import Rows
from symtorch_core.search.thresholds import refit_thresholds

INPUTS = np.random.default_rng(0).uniform(0, 10, (400, 2))
COLUMNS = {name: torch.from_numpy(column.copy()) for name, column in zip("xy", INPUTS.T, strict=True)}


def compute(text: str) -> torch.Tensor:
    return evaluate(parse(text), COLUMNS).expand(len(INPUTS))


@pytest.mark.parametrize(
    ("law", "start"),
    [
        ("cond(x - 6.055, 1)", "cond(x - 1, 1)"),
        ("2.5*cond(x - 6.055, y) + 1", "2*cond(x - 9, y) + 0.1"),
        ("3*greater(x, 6.055) + 0.5*y", "2*greater(x, 1) + 1.5*y"),
        ("less_equal(2*x, y + 3.3)", "less_equal(2*x, y + 1)"),
        ("logical_and(x - 3, y - 7.2)", "logical_and(x - 5, y - 5)"),
        ("logical_or(x - 8.1, 2 - y)", "logical_or(x - 5, 5 - y)"),
        ("sign(x - 7.7)*y", "sign(x - 2)*y"),
        ("greater(x, 3)*less(x, 5.5)", "greater(x, 1)*less(x, 9)"),
        ("2*max(x, 4.2) + y", "2*max(x, 9) + y"),
        ("1000*greater(x, 6.055)", "2*greater(x, 2)"),
        ("clamp(x, 2.5, 7.1)*y", "clamp(x, 4, 5)*y"),
    ],
)
def test_thresholds_are_found_from_far_away(law: str, start: str) -> None:
    rows = Rows(COLUMNS, compute(law), None, st.SearchSpace())
    assert rows.refit(parse(start)).loss < 1e-12 * float(compute(law).var())


@pytest.mark.parametrize("loss", [*LOSSES, "abs(r)^1.5"])
def test_thresholds_are_found_under_every_loss_and_weights(loss: str) -> None:
    target = compute("4*greater(x, 6.055) + y")
    weights = torch.linspace(0, 2, len(target), dtype=torch.float64)
    target[weights < 0.2] += 50  # rows that hardly count
    weights[weights < 0.2] = 0
    rows = Rows(COLUMNS, target, weights, st.SearchSpace(loss=loss))
    assert rows.refit(parse("4*greater(x, 5) + y")).loss < 1e-9


def test_nothing_gets_worse() -> None:
    target = compute("sin(x) + y")
    for text in ("greater(x, 3)*y", "cond(sin(3*x), y)", "max(x, y)", "greater(x^2, 9) + exp(y - 2)"):
        expression = parse(text)
        before = LOSSES["mae"](evaluate(expression, COLUMNS), target)
        after = refit_thresholds(expression, COLUMNS, target, None, LOSSES["mae"])
        assert LOSSES["mae"](evaluate(after, COLUMNS), target) <= before
        assert len(constants(after)) == len(constants(expression))


def test_every_operator_that_switches_is_known() -> None:
    """An operator whose value jumps, and has no slope anywhere, needs thresholds."""
    generator = torch.Generator().manual_seed(0)
    for name, operator in OPERATORS.items():
        args = [
            torch.randn(200, generator=generator, dtype=torch.float64).requires_grad_()
            for _ in range(operator.arity)
        ]
        values = operator.torch(*args)
        flat = (
            not values.requires_grad
            or not torch.autograd.grad(values.nansum(), args, allow_unused=True, materialize_grads=True)[
                0
            ].any()
        )
        if flat and name not in {"floor", "ceil", "round"}:  # these switch everywhere
            assert name in SWITCHING


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("1.5*cond(2.0*x - 12.0, 0.5)", "0.75*cond(x - 6.0, 1.0)"),
        ("cond(3.0*x, 2.0*y)", "2.0*cond(x, y)"),
        ("cond(4.0 - 2.0*x, y)", "cond(2.0 - x, y)"),
        ("cond(x, 0.0)", "0.0"),
        ("greater(2.0*x, 5.0)", "greater(x, 2.5)"),
        ("less_equal(1.0 - 2.0*x, 3.0)", "less_equal(0.5 - x, 1.5)"),
        ("logical_and(2.0*x - 4.0, 3.0*y - 9.0)", "logical_and(x - 2.0, y - 3.0)"),
    ],
)
def test_factors_that_change_no_sign_are_dropped(text: str, short: str) -> None:
    assert str(simplify(parse(text))) == short
    torch.testing.assert_close(evaluate(simplify(parse(text)), COLUMNS).expand(len(INPUTS)), compute(text))


@pytest.mark.parametrize("regressor", ["torchgp", "gplearn"])
def test_a_threshold_in_data_is_found(regressor: str) -> None:
    options: dict[str, Any] = {"binary_operators": ("+", "-", "*", "cond"), "unary_operators": ()}
    target = compute("cond(x - 6.055, 1)")[:, None].numpy()
    result = st.distill(
        (INPUTS, target), regressor=regressor, variable_names=["x", "y"], seed=0, progress=False, **options
    )
    best = result.front(0).select("best")
    threshold = constants(best.expression)[0]  # anywhere between the two rows beside 6.055
    assert best.expression == Call("cond", Call("-", Variable("x"), Constant(threshold)), Constant(1.0))
    assert best.loss == 0
