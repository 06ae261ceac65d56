"""The tensors of a search against plain computation: nodes, slopes, scores, archives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.expressions import OPERATORS, Call, Expression, parse
from symtorch_core.expressions import evaluate as evaluate_expression
from symtorch_core.search import list_functions
from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.evaluation.adjoints import differentiate_operator
from symtorch_torchgp.evaluation.schedules import build_schedule
from symtorch_torchgp.evolution.archive import Archive
from symtorch_torchgp.evolution.ranks import compute_pareto_ranks
from symtorch_torchgp.fitting.scaling import build_expressions, score
from symtorch_torchgp.programs.postfix import Programs, append, cut, find_subtree_starts
from symtorch_torchgp.programs.primitives import CONSTANT, Primitives
from symtorch_torchgp.variation.sampler import Sampler

NAMES = ("x0", "x1", "x2")
SEARCH = SearchSpace(binary_operators=("+", "-", "*", "/"), unary_operators=("sin", "exp", "square", "inv"))
CPU = torch.device("cpu")


def make_primitives() -> Primitives:
    return Primitives.of(SEARCH, NAMES, CPU)


def make_sampler(seed: int) -> Sampler:
    return Sampler(make_primitives(), 20, torch.Generator().manual_seed(seed), CPU)


def decode(programs: Programs) -> list[Expression]:
    return [
        make_primitives().decode(codes, values)
        for codes, values in zip(programs.codes.tolist(), programs.values.tolist(), strict=True)
    ]


def list_subexpressions(expression: Expression) -> list[Expression]:
    children = expression.args if isinstance(expression, Call) else ()
    return [part for child in children for part in list_subexpressions(child)] + [expression]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_equal_subtrees_are_one_node_and_others_are_not(seed: int, count: int) -> None:
    programs = make_sampler(seed).draw_trees(count)
    distinct = {part for expression in decode(programs) for part in list_subexpressions(expression)}
    assert build_schedule(programs, make_primitives()).nodes == len(distinct)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_free_constant_is_a_node_of_its_own(seed: int) -> None:
    programs = make_sampler(seed).draw_trees(40)
    free = programs.codes == CONSTANT
    plan = build_schedule(programs, make_primitives(), free)
    assert len(plan.free_nodes.unique()) == int(free.sum())
    for owner, place in zip(plan.free_programs, plan.free_places, strict=True):
        assert free[owner, place]
    assert torch.equal(plan.owners[plan.free_nodes], plan.free_programs)


def test_a_subtree_cut_out_is_the_subexpression() -> None:
    programs = make_sampler(3).draw_trees(50)
    starts = find_subtree_starts(programs.codes, make_primitives())
    for place in range(8):
        rows = (programs.size > place).nonzero()[:, 0]
        last = torch.full((len(rows),), place)
        pieces = cut(programs[rows], starts[rows, place], last)
        wholes = decode(programs[rows])
        for piece, whole in zip(decode(pieces), wholes, strict=True):
            assert piece == list_subexpressions(whole)[place]


def test_append_leaves_full_programs_alone() -> None:
    programs = make_sampler(0).draw_trees(20)
    room = programs.size < programs.codes.shape[1]
    longer = append(programs, torch.ones(20, dtype=torch.bool), make_primitives().get_code("sin"))
    assert torch.equal(longer.size, programs.size + room.long())
    full = Programs(torch.full((1, 4), 2), torch.zeros(1, 4))
    assert torch.equal(append(full, torch.tensor([True]), 3).codes, full.codes)


@pytest.mark.parametrize("name", [name for name, operator in OPERATORS.items() if operator.arity <= 2])
def test_the_slope_of_every_operator_is_that_of_autograd(name: str) -> None:
    operator, generator = OPERATORS[name], torch.Generator().manual_seed(0)
    args = []
    for low, high in operator.domain:
        bottom, top = max(low, -3.0), min(high, 3.0)
        share = 0.05 + 0.9 * torch.rand(2, 40, generator=generator, dtype=torch.float64)
        args.append(bottom + share * (top - bottom))
    leaves = [arg.clone().requires_grad_() for arg in args]
    value = operator.torch(*leaves)
    incoming = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    expected: list[Tensor | None] = [None] * len(args)
    if value.requires_grad:
        expected = list(torch.autograd.grad(value, leaves, incoming, allow_unused=True))
    kind = "unary_operators" if operator.arity == 1 else "binary_operators"
    search = SearchSpace(**{"binary_operators": (), "unary_operators": (), kind: (name,)})
    (function,) = list_functions(search, "torchgp")
    found = differentiate_operator(function, args, value.detach(), incoming)
    for slope, truth, arg in zip(found, expected, args, strict=True):
        torch.testing.assert_close(slope, torch.zeros_like(arg) if truth is None else truth)


def measure_regression(values: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """1 - R2 of weighted linear regression with an offset, by numpy."""
    root = np.sqrt(weights)
    design = np.stack([np.ones_like(values), values], 1) * root[:, None]
    residual = root * y - design @ np.linalg.lstsq(design, root * y, rcond=None)[0]
    middle = np.average(y, weights=weights)
    return float((residual**2).sum() / (weights * (y - middle) ** 2).sum())


def test_scores_are_those_of_linear_regression_for_every_output() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(300, 3, generator=generator, dtype=torch.float64) + 0.5
    Y = torch.stack([X[:, 0] * X[:, 1], 3 * torch.sin(X[:, 2]) + 2, X[:, 0] - X[:, 1]], 1)
    weights = torch.rand(3, 300, generator=generator, dtype=torch.float64)
    programs, rows = make_sampler(1).draw_trees(60), Rows.of(X, Y, weights)
    losses = score(programs, make_primitives(), rows)
    columns = dict(zip(NAMES, X.unbind(1), strict=True))
    compared = 0
    for row, expression in enumerate(decode(programs)):
        values = evaluate_expression(expression, columns).expand(300).numpy()
        if not np.isfinite(values).all() or np.ptp(values) < 1e-9 * np.abs(values).max():
            continue
        for output in range(3):
            truth = measure_regression(values, Y[:, output].numpy(), weights[output].numpy())
            assert float(losses[row, output]) == pytest.approx(truth, rel=1e-6, abs=1e-12)
            compared += 1
    assert compared > 60


def test_single_precision_tells_exact_programs_from_good_ones() -> None:
    X = torch.rand(256, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    Y = (X[:, 0] * torch.sin(X[:, 1]))[:, None]
    rows = Rows.of(X, Y, torch.ones(1, 256))
    exact, near = "x0*sin(x1)", "x0*sin(x1*1.0001)"
    encoded = [make_primitives().encode(parse(text), 20) for text in (exact, near)]
    programs = Programs(
        torch.tensor([entry[0] for entry in encoded if entry]),
        torch.tensor([entry[1] for entry in encoded if entry]),
    )
    losses = score(programs, make_primitives(), rows)[:, 0]
    assert float(losses[0]) < 1e-12 < 1e-10 < float(losses[1])


def test_scaling_becomes_ordinary_constants() -> None:
    X = torch.rand(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = 2.5 * torch.sin(X[:, 0]) - 4
    codes, values = make_primitives().encode(parse("sin(x0)"), 20) or ([], [])
    program = Programs(torch.tensor([codes]), torch.tensor([values]))
    rows = Rows.of(X, y[:, None], torch.ones(1, 100, dtype=torch.float64))
    (expression,) = build_expressions(program, make_primitives(), rows)
    found = evaluate_expression(expression, dict(zip(NAMES, X.unbind(1), strict=True)))
    torch.testing.assert_close(found, y)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_an_archive_holds_the_best_of_each_size(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    archive, best = Archive.empty(2, 12, 20, CPU), torch.full((2, 13), math.inf)
    for step in range(3):
        programs = make_sampler(seed + step).draw_trees(50)
        complexity, losses = (
            programs.compute_complexity(make_primitives()),
            torch.rand(50, 2, generator=generator),
        )
        archive.update(programs, complexity, losses)
        for output in range(2):
            for size in range(13):
                members = losses[complexity == size, output]
                best[output, size] = min([float(best[output, size]), *members.tolist()])
    assert torch.allclose(archive.losses.float(), best, rtol=2e-4)
    for output in range(2):
        sizes = torch.isfinite(archive.losses[output]).nonzero()[:, 0]
        assert torch.equal(archive.get_programs(output, sizes).compute_complexity(make_primitives()), sizes)


def test_ranks_are_fronts_and_repetitions_come_last() -> None:
    losses = torch.tensor([[0.5, 0.2, 0.2, 0.6, 0.1, math.inf]])
    sizes = torch.tensor([[1, 3, 5, 2, 6, 1]])
    rank = compute_pareto_ranks(losses, sizes, 6)[0]
    front = {i for i in range(6) if rank[i] < 1}
    assert front == {0, 1, 4}
    assert 1 <= float(rank[3]) < 2
    assert float(rank[2]) > float(rank[3])
    assert float(rank[5]) > float(rank[3])
