"""What a search may be asked, and what is refused before any work."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np
import pytest
import torch

from symtorch_core import distill
from symtorch_core.errors import SearchError
from symtorch_core.expressions import Expression, parse
from symtorch_core.search.losses import LOSSES
from symtorch_core.search.regressor import OutputwiseRegressor, Problem
from symtorch_core.search.space import SearchSpace
from symtorch_core.testing.scripted import ScriptedRegressor


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


NO_NUMBERS: tuple[object, ...] = (None, "1", [1], {"x": 1}, object(), True, math.nan)
NO_WHOLE_NUMBERS = (*NO_NUMBERS, 1.0, 2.5, math.inf)
NO_NAMES: tuple[object, ...] = (
    None,
    3,
    math.nan,
    True,
    object(),
    "sin",
    {"sin": 1},
    {"sin"},
    [1],
    [None],
    [["sin"]],
)
NO_DICTIONARIES: tuple[object, ...] = (None, 3, math.nan, True, object(), "sin", [("sin", 1)], {"sin"})
WRONG: dict[str, tuple[object, ...]] = {
    "binary_operators": (*NO_NAMES, ["+", "sin"], [""], ["f(x, y) = x", "f(x, y) = y"]),
    "unary_operators": (*NO_NAMES, ["+"], [""], ["f(x) = "]),
    "niterations": (*NO_WHOLE_NUMBERS, 0, -1),
    "maxsize": (*NO_WHOLE_NUMBERS, 0, -1),
    "parsimony": (*NO_NUMBERS, -1.0, math.inf),
    "complexity_of_operators": (
        *NO_DICTIONARIES,
        {1: 1},
        {None: 1},
        {"sine": 1},
        *({"sin": value} for value in (*NO_WHOLE_NUMBERS, -1)),
    ),
    "complexity_of_constants": (*NO_WHOLE_NUMBERS, -1, 31),
    "complexity_of_variables": (
        *(value for value in NO_WHOLE_NUMBERS if not isinstance(value, dict)),
        -1,
        {1: 1},
        *({"x": value} for value in (*NO_WHOLE_NUMBERS, -1)),
    ),
    "constraints": (
        *NO_DICTIONARIES,
        {1: 1},
        {"sine": 1},
        {"^": (1,)},
        {"sin": ()},
        {"sin": {1}},
        {"^": "12"},
        *({"sin": value} for value in NO_WHOLE_NUMBERS if value != [1]),
        {"sin": -2},
        {"^": (1, True)},
        {"^": (1.0, 1)},
    ),
    "nested_constraints": (
        *NO_DICTIONARIES,
        {1: {}},
        {"sin": {1: 1}},
        {"sin": {"sine": 1}},
        *({"sin": value} for value in NO_DICTIONARIES),
        *({"sin": {"exp": value}} for value in (*NO_WHOLE_NUMBERS, -1)),
    ),
    "loss": (None, 3, math.nan, True, object(), ["mse"], {"mse": 1}, "", "mean", "r", "-r^2", len, str),
    "timeout_in_seconds": (*(value for value in NO_NUMBERS if value is not None), 0, -1.0, math.inf),
    "refine": (None, 0, 1, "yes", math.nan, [True], object()),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}-{number}")
        for field, values in WRONG.items()
        for number, value in enumerate(values)
    ],
)
def test_a_wrong_value_of_a_field_is_refused(field: str, value: object) -> None:
    with pytest.raises(SearchError):
        SearchSpace(**{field: value})  # type: ignore[arg-type]


def test_the_table_of_wrong_values_has_every_field() -> None:
    assert WRONG.keys() == SearchSpace.field_names()


def test_what_is_unusual_and_right() -> None:
    search = SearchSpace(
        binary_operators=(name for name in ("+", "*")),
        unary_operators=[],
        maxsize=np.int64(9),
        parsimony=0,
        complexity_of_operators={},
        complexity_of_constants=0,
        constraints={"^": [-1, 1], "sin": -1},
        timeout_in_seconds=1,
    )
    assert (search.operators, search.maxsize) == (("+", "*"), 9)
    assert search.constraints == {"^": (-1, 1), "sin": (-1,)}


def test_a_maxsize_that_holds_no_constant_is_refused() -> None:
    with pytest.raises(
        SearchError, match="no equation fits into maxsize=3: a constant alone has the complexity 4"
    ):
        SearchSpace(maxsize=3, complexity_of_constants=4)


def test_complexities_of_variables_that_there_are_not_are_refused_before_the_search() -> None:
    X = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    engine = ScriptedRegressor(equations=("speed",))
    settings: dict[str, Any] = {"regressor": engine, "variable_names": ["mass", "speed"], "progress": False}
    with pytest.raises(
        SearchError, match="names 'sped', which is no input.*Did you mean 'speed'.*mass, speed"
    ):
        distill((X, X[:, 1:]), complexity_of_variables={"sped": 2}, **settings)
    result = distill((X, X[:, 1:]), complexity_of_variables={"speed": 2}, **settings)
    assert result.front()[-1].complexity == 2


@final
@dataclass(frozen=True)
class Recorder(OutputwiseRegressor):
    """A backend that notes the seed of each output."""

    name: ClassVar[str] = "recorder"
    n_jobs: int = 1
    seeds: list[int] = field(default_factory=list)

    def check(self, search: SearchSpace) -> None:
        """Accept every search."""

    def search(self, problem: Problem) -> list[Expression]:
        self.seeds.append(problem.seed)
        return []


def test_the_seed_of_an_output_depends_on_the_seed_and_on_its_data_alone() -> None:
    X = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    recorder = Recorder()

    def record(Y: torch.Tensor, seed: int) -> list[int]:
        recorder.seeds.clear()
        recorder.fit(X, Y, search=SearchSpace(), variable_names=["a", "b"], seed=seed)
        return list(recorder.seeds)

    found = [record(Y, seed)[0] for Y in (X[:, :1], X[:, 1:], 2 * X[:, :1]) for seed in (0, 1, 7)]
    assert len(set(found)) == 9
    assert record(X, 0) == [found[0], found[3]]


def test_it_travels_to_workers() -> None:
    search = SearchSpace(loss="huber", constraints={"exp": 4}, timeout_in_seconds=2.5)
    assert pickle.loads(pickle.dumps(search)) == search
    assert search.loss_function is LOSSES["huber"]


def test_its_field_names_are_what_distill_may_pass_on() -> None:
    assert {"binary_operators", "maxsize", "loss", "refine"} <= SearchSpace.field_names()
