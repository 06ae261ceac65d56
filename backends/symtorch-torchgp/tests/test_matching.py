"""Children by matching are what a hole needs, judged on laws whose missing piece is known."""

import pytest
import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.expressions import parse
from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.fitting.scaling import score
from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import Primitives
from symtorch_torchgp.variation.inverses import INVERSES, invert_targets
from symtorch_torchgp.variation.matching import match_subtrees
from symtorch_torchgp.variation.sampler import Sampler

NAMES = ("x0", "x1", "x2")
CPU = torch.device("cpu")


def make_primitives(*unary: str, binary: tuple[str, ...] = ("+", "-", "*", "/")) -> Primitives:
    return Primitives.of(SearchSpace(binary_operators=binary, unary_operators=unary), NAMES, CPU)


def encode(table: Primitives, *texts: str) -> Programs:
    entries = [table.encode(parse(text), 30) for text in texts]
    assert all(entries)
    return Programs(
        torch.tensor([entry[0] for entry in entries if entry]),
        torch.tensor([entry[1] for entry in entries if entry]),
    )


def make_inputs() -> Tensor:
    return torch.rand(300, 3, generator=torch.Generator().manual_seed(0)) + 0.5


def find_best_loss(
    table: Primitives,
    y: Tensor,
    parent: str,
    subtrees: tuple[str, ...],
    *,
    at_root: float,
    inside: bool = False,
) -> float:
    """Return the loss of the best child of 60 copies of the same parent."""
    rows = Rows.of(make_inputs(), y[:, None], torch.ones(1, len(y)))
    sampler = Sampler(table, 30, torch.Generator().manual_seed(0), CPU)
    parents, owner = encode(table, *[parent] * 60), torch.zeros(60, dtype=torch.long)
    known = invert_targets(rows, table) if inside else []
    children = match_subtrees(
        parents, owner, encode(table, *subtrees), sampler, rows, known, 30, each=2, at_root=at_root
    )
    assert len(children) == 120
    return float(score(children, table, rows).min())


@pytest.mark.parametrize(
    ("law", "partner"),
    [
        (lambda a, b: a + 2.5 * torch.sin(b), "sin(x1)"),
        (lambda a, b: 3 * (a - torch.sin(b)) + 7, "sin(x1)"),
        (lambda a, b: a * torch.exp(b), "exp(x1)"),
        (lambda a, b: 5 - a / (b + b * b), "x1 + x1*x1"),
    ],
    ids=["sum", "difference", "product", "quotient"],
)
def test_a_program_finds_its_partner(law, partner: str) -> None:
    X, table = make_inputs(), make_primitives("sin", "exp")
    y = law(X[:, 0], X[:, 1])
    decoys = ("x2", "sin(x2)", "x1*x2", "exp(x2)")
    assert find_best_loss(table, y, "x0", (*decoys, partner), at_root=1.0) < 1e-10
    assert find_best_loss(table, y, "x0", decoys, at_root=1.0) > 1e-4


def test_a_hole_inside_is_filled_with_what_belongs_there() -> None:
    X, table = make_inputs(), make_primitives("sin", "exp")
    y = X[:, 2] + torch.exp(X[:, 0]) * torch.sin(X[:, 1])
    assert find_best_loss(table, y, "x2 + exp(x0)*x1", ("exp(x1)", "x1*x1", "sin(x1)"), at_root=0.0) < 1e-10


def test_without_a_multiplication_no_factor_is_made_up() -> None:
    X, table = make_inputs(), make_primitives("sin", binary=("+",))
    y = X[:, 0] + 2.5 * torch.sin(X[:, 1])
    assert find_best_loss(table, y, "x0", ("sin(x1)",), at_root=1.0) > 1e-4
    assert find_best_loss(table, X[:, 0] + torch.sin(X[:, 1]), "x0", ("sin(x1)",), at_root=1.0) < 1e-10


@pytest.mark.parametrize("name", INVERSES)
def test_what_is_inside_an_operator_is_found(name: str) -> None:
    X, table = make_inputs(), make_primitives(name)
    a, b = X[:, 0], X[:, 1]
    y = {
        "exp": lambda: 3 * torch.exp(-0.8 * a * b),
        "inv": lambda: 2 / (a * b + 0.7),
        "square": lambda: 1.5 * (a * b + 0.4).square(),
        "sqrt": lambda: 4 * torch.sqrt(a * b + 0.3),
        "log": lambda: torch.log(a * b + 0.6) - 2,
    }[name]()
    found = find_best_loss(table, y, "x0", ("x1", "x2", "x1*x2"), at_root=1.0, inside=True)
    assert found < 1e-9
    assert find_best_loss(table, y, "x0", ("x1", "x2", "x1*x2"), at_root=1.0) > 1e-6


def test_targets_that_an_operator_cannot_give_are_left_out() -> None:
    X = make_inputs()
    Y = torch.stack([X[:, 0] - 1, X[:, 0]], 1)  # of both signs; positive
    rows = Rows.of(X, Y, torch.ones(2, len(X)))
    possible = {
        seen.operator: seen.possible.tolist() for seen in invert_targets(rows, make_primitives(*INVERSES))
    }
    assert possible == {
        "exp": [False, True],
        "inv": [False, True],
        "square": [False, True],
        "sqrt": [False, True],
        "log": [True, True],
    }
    assert invert_targets(rows, make_primitives("sin")) == []
