"""What a search may be asked, and what is refused before any work."""

from __future__ import annotations

import pickle

import pytest

from symtorch_core.errors import SearchError
from symtorch_core.expressions import parse
from symtorch_core.search.losses import LOSSES
from symtorch_core.search.space import SearchSpace


def test_the_defaults_are_those_of_the_paper() -> None:
    search = SearchSpace()
    assert search.binary_operators == ("+", "*")
    assert search.unary_operators == ("inv", "sin", "exp")
    assert search.operators == ("+", "*", "inv", "sin", "exp")
    assert search.complexity_of_operators == {"sin": 3, "exp": 3}
    assert search.niterations == 400
    assert search.rules.count(parse("sin(x)*2")) == 6


def test_aliases_and_repetitions_become_one_name() -> None:
    search = SearchSpace(
        binary_operators=["plus", "+", "pow"],
        unary_operators=[],
        complexity_of_operators={"pow": 2},
        constraints={"pow": (-1, 1)},
        nested_constraints={"pow": {"pow": 0}},
    )
    assert search.binary_operators == ("+", "^")
    assert search.complexity_of_operators == {"^": 2}
    assert search.constraints == {"^": (-1, 1)}
    assert search.nested_constraints == {"^": {"^": 0}}


def test_one_number_constrains_a_unary_operator() -> None:
    search = SearchSpace(constraints={"sin": 3})
    assert search.constraints == {"sin": (3,)}
    assert search.admits(parse("sin(x + 1)"))
    assert not search.admits(parse("sin(x + 1 + y)"))


def test_what_it_admits() -> None:
    search = SearchSpace(maxsize=5, complexity_of_variables={"x": 2}, nested_constraints={"exp": {"exp": 0}})
    assert search.admits(parse("y + y*y"))
    assert not search.admits(parse("y + y*x"))
    assert not SearchSpace(nested_constraints={"exp": {"exp": 0}}).admits(parse("exp(1 + exp(x))"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"binary_operators": ("sin",)}, "'sin' does not take 2 argument.*binary_operators"),
        ({"unary_operators": ("+",)}, r"'\+' does not take 1 argument.*unary_operators"),
        ({"unary_operators": ("sine",)}, "unknown operator 'sine'. Did you mean 'sin'"),
        ({"unary_operators": "sin"}, "takes a list of names"),
        ({"complexity_of_operators": {"sine": 3}}, "unknown operator 'sine'"),
        ({"nested_constraints": {"sin": {"cosine": 0}}}, "unknown operator 'cosine'"),
        ({"constraints": {"^": (1,)}}, "needs 2 number"),
        ({"constraints": {"^": 1}}, "needs 2 number"),
        ({"constraints": {"sin": (1, 2)}}, "needs 1 number"),
        ({"loss": "maee"}, "unknown loss 'maee'. Did you mean 'mae'.*Known losses: mse, mae, huber"),
        ({"niterations": 0}, "niterations"),
        ({"maxsize": 0}, "maxsize"),
        ({"parsimony": -1.0}, "parsimony"),
        ({"timeout_in_seconds": 0}, "timeout_in_seconds must be positive"),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        SearchSpace(**fields)  # type: ignore[arg-type]


def test_it_travels_to_workers() -> None:
    search = SearchSpace(loss="huber", constraints={"exp": 4}, timeout_in_seconds=2.5)
    assert pickle.loads(pickle.dumps(search)) == search
    assert search.loss_function is LOSSES["huber"]


def test_its_field_names_are_what_distill_may_pass_on() -> None:
    assert {"binary_operators", "maxsize", "loss", "refine"} <= SearchSpace.field_names()
