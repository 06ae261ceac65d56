"""The core's own components against the contract suites that third parties run."""

from __future__ import annotations

import _thread
import time
import weakref
from dataclasses import dataclass
from typing import ClassVar, final

import pytest
import torch

from symtorch_core.expressions import Expression, parse
from symtorch_core.search.problem import Problem
from symtorch_core.search.regressor import OutputwiseRegressor
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.surrogate import Surrogate, TorchSurrogate
from symtorch_core.testing.laws import press_again_when_lost
from symtorch_core.testing.regressors import RegressorContract
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.testing.surrogates import SurrogateContract


class TestTorchSurrogate(SurrogateContract):
    @pytest.fixture
    def surrogate_type(self) -> type[Surrogate]:
        return TorchSurrogate


@final
class _Suite(RegressorContract):
    """The contract of regressors, called test by test."""


SUITE = _Suite()
POLYNOMIALS = ("alpha + beta", "alpha*alpha*alpha + beta", "2.0*alpha + beta*beta + 1.0")


@final
@dataclass(frozen=True)
class CarelessRegressor(OutputwiseRegressor):
    """A backend that fits lines itself, and forgets weights, definitions, units and the types of its options."""

    name: ClassVar[str] = "careless"
    effort: int = 1
    n_jobs: int = 1

    def check(self, search: SearchSpace) -> None:
        """Accept every search."""

    def search(self, problem: Problem) -> list[Expression]:
        if problem.y.std() < 1e-6:
            return []
        X = torch.from_numpy(problem.X)
        terms = torch.stack([torch.ones(len(X)).double(), X[:, 0], X[:, 1].square()], dim=1)
        b, slope, square = torch.linalg.lstsq(terms, torch.from_numpy(problem.y)).solution.tolist()
        # Fewer digits than rounding moves, so that every seed gives the same equation.
        text = f"({b:.6g})+({slope:.6g})*alpha+({square:.6g})*(beta*beta)"
        return [parse(text, problem.variable_names)]


@final
@dataclass(frozen=True)
class CrowdedRegressor(OutputwiseRegressor):
    """A backend whose result depends on the place of an output among others."""

    name: ClassVar[str] = "crowded"
    n_jobs: int = 1

    def check(self, search: SearchSpace) -> None:
        """Accept every search."""

    def search(self, problem: Problem) -> list[Expression]:
        return [parse(problem.variable_names[problem.output])]


def test_the_contract_notices_outputs_that_are_not_independent() -> None:
    SUITE.test_outputs_declared_independent_do_not_depend_on_their_company(CarelessRegressor())
    with pytest.raises(AssertionError):
        SUITE.test_outputs_declared_independent_do_not_depend_on_their_company(CrowdedRegressor())


def test_the_contract_notices_a_backend_that_ignores_definitions() -> None:
    with pytest.raises(AssertionError):
        SUITE.test_a_definition_is_honoured_or_refused(ScriptedRegressor(equations=POLYNOMIALS))
    honest = ScriptedRegressor(equations=("1.5*sin(5.0*alpha) + beta",))
    SUITE.test_a_definition_is_honoured_or_refused(honest)


def test_the_contract_notices_a_backend_that_forgets_weights_units_seeds_or_types() -> None:
    careless = CarelessRegressor()
    SUITE.test_an_easy_law_is_found(careless)
    with pytest.raises(AssertionError):
        SUITE.test_rows_of_weight_zero_do_not_matter(careless, 200, refine=False)
    with pytest.raises(AssertionError):
        SUITE.test_the_unit_of_the_target_does_not_matter(careless, 1e-12)
    with pytest.raises(AssertionError):
        SUITE.test_another_seed_is_another_search(careless)
    with pytest.raises(pytest.fail.Exception, match="careless's effort takes"):
        SUITE.test_options_of_a_wrong_type_are_refused_at_once(careless)


@final
@dataclass(frozen=True)
class SecretiveRegressor(OutputwiseRegressor):
    """A backend that hands nothing over before the end, and never asks whether it is late."""

    name: ClassVar[str] = "secretive"
    n_jobs: int = 1

    def check(self, search: SearchSpace) -> None:
        """Accept every search."""

    def search(self, problem: Problem) -> list[Expression]:
        line = parse("2.5*alpha", problem.variable_names)
        problem.report_improvement(line, 1.0)
        return [line]


def test_the_contract_notices_a_backend_that_loses_its_equations_on_ctrl_c() -> None:
    with pytest.raises(AssertionError, match="send OutputInterrupted"):
        SUITE.test_ctrl_c_keeps_equations_that_were_reported(SecretiveRegressor(), 1)


def test_ctrl_c_that_python_drops_is_pressed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    press_again_when_lost(monkeypatch)
    dropped = set()

    def raise_it(_: object) -> None:
        _thread.interrupt_main()
        time.sleep(0.01)  # raised here, and dropped with a message

    def lose_one() -> None:
        thing = ScriptedRegressor(())
        dropped.add(weakref.ref(thing, raise_it))
        del thing
        time.sleep(5.0)

    with pytest.raises(KeyboardInterrupt):
        lose_one()
