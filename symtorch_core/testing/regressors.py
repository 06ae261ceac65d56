"""The test suite that every regressor must pass."""

from __future__ import annotations

import _thread
import dataclasses
import threading
import time
from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from symtorch_core.errors import SearchError
from symtorch_core.events.records import (
    Callback,
    Event,
    OutputFinished,
    OutputImproved,
    OutputProgressed,
)
from symtorch_core.expressions import OPERATORS, parse, variables
from symtorch_core.search.deadline import Deadline
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.problem import Problem
from symtorch_core.search.regressor import OutputwiseRegressor, Regressor
from symtorch_core.search.space import SearchSpace
from symtorch_core.testing.laws import (
    NAMES,
    ROWS,
    assert_something_is_kept,
    catch_refusal,
    count_improvements,
    get_random_states,
    inputs,
    law,
    noisy_law,
    predict,
    press_again_when_lost,
    r2,
)
from symtorch_core.testing.options import check_options_refuse_wrong_types


class RegressorContract(ABC):  # noqa: B024 - the fixture that a subclass gives is pytest's business
    """Tests of a regressor: subclass it, define a fixture ``regressor``, and run pytest.

    The fixture returns an instance with options that make it quick: it must solve ``2.5 alpha + beta^2 - 1``
    with + and * in ``niterations`` iterations.

        class TestMine(RegressorContract):
            @pytest.fixture
            def regressor(self):
                return MyRegressor(population=100)
    """

    niterations: ClassVar[int] = 40
    """Effort of each search of the suite; each backend defines an iteration."""
    deterministic: ClassVar[bool] = False
    """Whether nothing is drawn at random, so that every seed gives the same fronts."""

    def fit(
        self,
        regressor: Regressor,
        Y: Tensor,
        *,
        X: Tensor | None = None,
        weights: Tensor | None = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 3,
        **search: Any,
    ) -> list[ParetoFront]:
        """Run a small search, with + and * by default."""
        settings = {"unary_operators": (), "maxsize": 12, "niterations": self.niterations, **search}
        return regressor.fit(
            inputs() if X is None else X,
            Y if Y.ndim == 2 else Y[:, None],
            search=SearchSpace(**settings),
            variable_names=NAMES,
            weights=weights,
            seed=seed,
            callbacks=callbacks,
        )

    def test_every_column_gets_a_valid_front(self, regressor: Regressor) -> None:
        Y = torch.stack([law(inputs()), inputs()[:, 0] * inputs()[:, 1]], dim=1)
        fronts = self.fit(regressor, Y)
        assert len(fronts) == 2
        for front in fronts:
            assert len(front) > 0
            complexities, losses = [c.complexity for c in front], [c.loss for c in front]
            assert complexities == sorted(set(complexities))
            assert losses == sorted(set(losses), reverse=True)

    @pytest.mark.parametrize("loss", ["mse", "mae"])
    def test_losses_and_complexities_are_those_of_the_core(self, regressor: Regressor, loss: str) -> None:
        weights = torch.linspace(0.5, 2.0, ROWS, dtype=torch.float64)
        search = SearchSpace(loss=loss)
        (front,) = self.fit_or_skip(regressor, law(inputs()), weights=weights, loss=loss)
        for candidate in front:
            again = search.loss_function(predict(candidate.expression, inputs()), law(inputs()), weights)
            assert candidate.loss == pytest.approx(again, rel=1e-9, abs=1e-18)
            assert candidate.complexity == search.rules.count(candidate.expression)

    def test_an_easy_law_is_found(self, regressor: Regressor) -> None:
        (front,) = self.fit(regressor, law(inputs()))
        assert r2(front.select("best").expression) > 0.999

    @pytest.mark.parametrize("unit", [1e-12, 1e12])
    def test_the_unit_of_the_target_does_not_matter(self, regressor: Regressor, unit: float) -> None:
        (front,) = self.fit(regressor, unit * law(inputs()))
        best = front.select("best")
        assert r2(best.expression, unit) > 0.999
        assert best.loss < 1e-3 * unit**2

    @pytest.mark.parametrize("unit", [1.0, 1e3])
    def test_parsimony_does_not_depend_on_the_unit_of_the_target(
        self, regressor: Regressor, unit: float
    ) -> None:
        (front,) = self.fit_or_skip(regressor, unit * law(inputs()), parsimony=0.01)
        assert r2(front.select("best").expression, unit) > 0.999

    def test_an_offset_does_not_hide_the_law(self, regressor: Regressor) -> None:
        (front,) = self.fit(regressor, 1e9 + law(inputs()))
        assert r2(front.select("best").expression, offset=1e9) > 0.999

    def test_variables_have_the_given_names(self, regressor: Regressor) -> None:
        (front,) = self.fit(regressor, law(inputs()))
        assert sorted(variables(front.select("accuracy").expression)) == sorted(NAMES)

    def test_same_seed_same_fronts(self, regressor: Regressor) -> None:
        target = torch.sin(3 * inputs()[:, 0]) + inputs()[:, 1]
        assert self.fit(regressor, target, niterations=5) == self.fit(regressor, target, niterations=5)

    def test_another_seed_is_another_search(self, regressor: Regressor) -> None:
        noise = torch.from_numpy(np.random.default_rng(0).normal(size=ROWS))
        target = torch.sin(3 * inputs()[:, 0]) * inputs()[:, 1] + noise
        settings: dict[str, Any] = {"unary_operators": ("sin",), "maxsize": 20, "niterations": 2}
        fronts = [self.fit(regressor, target, seed=seed, **settings) for seed in (0, 1, 2)]
        alike = fronts[0] == fronts[1], fronts[1] == fronts[2]
        assert alike == (self.deterministic, self.deterministic)

    def test_workers_do_not_change_the_result(self, regressor: Regressor) -> None:
        outputwise = self.outputwise_or_skip(regressor)
        Y = torch.stack([law(inputs()), inputs()[:, 0] * inputs()[:, 1], inputs()[:, 1]], dim=1)
        alone = dataclasses.replace(outputwise, n_jobs=1)  # type: ignore[type-var]
        shared = dataclasses.replace(outputwise, n_jobs=2)  # type: ignore[type-var]
        assert self.fit(alone, Y, niterations=3) == self.fit(shared, Y, niterations=3)

    def test_outputs_declared_independent_do_not_depend_on_their_company(self, regressor: Regressor) -> None:
        if not regressor.independent_outputs:
            pytest.skip("searches all outputs together")
        Y = torch.stack([law(inputs()), torch.sin(3 * inputs()[:, 0]) * inputs()[:, 1]], dim=1)
        together = self.fit(regressor, Y, niterations=3)
        assert together == [
            *self.fit(regressor, Y[:, :1], niterations=3),
            *self.fit(regressor, Y[:, 1:], niterations=3),
        ]

    @pytest.mark.parametrize("refine", [True, False])
    @pytest.mark.parametrize("rows", [ROWS, 3000])
    def test_rows_of_weight_zero_do_not_matter(self, regressor: Regressor, rows: int, refine: bool) -> None:
        X = inputs(rows=rows)
        target, weights = law(X), torch.zeros(rows, dtype=torch.float64)
        weights[::5] = 1.0
        target[weights == 0] = 40.0 * X[weights == 0, 1]
        (front,) = self.fit(regressor, target, X=X, weights=weights, refine=refine)
        assert r2(front.select("best").expression) > 0.999

    def test_weights_decide_which_rows_are_outliers_under_mae(self, regressor: Regressor) -> None:
        target, weights = law(inputs()), torch.full((ROWS,), 0.02, dtype=torch.float64)
        weights[::3] = 1.0
        target[weights < 1] = 40.0 * inputs()[weights < 1, 1]
        (front,) = self.fit_or_skip(regressor, target, weights=weights, loss="mae")
        assert r2(front.select("best").expression) > 0.99

    def test_mae_withstands_outliers_or_is_refused(self, regressor: Regressor) -> None:
        target = law(inputs())
        target[::10] += 60.0
        (front,) = self.fit_or_skip(regressor, target, loss="mae")
        assert r2(front.select("best").expression) > 0.99

    def test_a_constant_column_gives_one_constant(self, regressor: Regressor) -> None:
        (front,) = self.fit(regressor, torch.full((ROWS,), 7.25, dtype=torch.float64))
        assert [str(candidate.expression) for candidate in front] == ["7.25"]

    @pytest.mark.parametrize(
        "limits",
        [
            {"maxsize": 7},
            {"constraints": {"sin": 1}},
            {"constraints": {"*": (-1, 3)}},
            {"nested_constraints": {"sin": {"sin": 0}}},
        ],
        ids=["maxsize", "constraint", "constraint_of_two", "nested"],
    )
    def test_limits_are_respected_or_refused(self, regressor: Regressor, limits: dict[str, Any]) -> None:
        target = torch.sin(2 * inputs()[:, 0] + torch.sin(3 * inputs()[:, 1]) + 0.5) * inputs()[:, 1]
        settings = {"unary_operators": ("sin",), "maxsize": 16, "niterations": 10, **limits}
        (front,) = self.fit_or_skip(regressor, target, **settings)
        search = SearchSpace(**settings)
        assert len(front) > 1
        for candidate in front:
            assert search.admits(candidate.expression), str(candidate.expression)

    def test_an_operator_it_lacks_is_refused_by_name(self, regressor: Regressor) -> None:
        for name, operator in OPERATORS.items():
            if operator.arity > 2:
                continue
            kind = "unary_operators" if operator.arity == 1 else "binary_operators"
            settings: dict[str, Any] = {"binary_operators": ("+",), "unary_operators": (), kind: (name,)}
            if isinstance(regressor, OutputwiseRegressor) and not catch_refusal(
                regressor.check, SearchSpace(**settings)
            ):
                continue
            events: list[Event] = []
            settings |= {"niterations": 1, "callbacks": [events.append]}
            error = catch_refusal(self.fit, regressor, law(inputs()), **settings)
            if error is not None:
                assert repr(name) in str(error)
                assert events == []

    def test_a_definition_is_honoured_or_refused(self, regressor: Regressor) -> None:
        target = 2.0 * torch.sin(5.0 * inputs()[:, 0]) + inputs()[:, 1]
        (front,) = self.fit_or_skip(regressor, target, unary_operators=("wave(x) = sin(5.0*x)",))
        best = front.select("accuracy")
        assert best.loss < 1e-3  # without the definition, sums and products come nowhere near
        assert "sin" in str(best.expression)
        for candidate in front:  # expanded: in operators of the table
            assert str(candidate.expression) == str(parse(str(candidate.expression), NAMES))

    def test_options_of_a_wrong_type_are_refused_at_once(self, regressor: Regressor) -> None:
        check_options_refuse_wrong_types(regressor)

    def test_an_unknown_option_is_refused(self, regressor: Regressor) -> None:
        with pytest.raises(SearchError, match="no_such_option"):
            type(regressor).with_options({"no_such_option": 1})

    def test_every_finished_column_is_reported(self, regressor: Regressor) -> None:
        events: list[Event] = []
        Y = torch.stack([law(inputs()), inputs()[:, 1]], dim=1)
        fronts = self.fit(regressor, Y, niterations=3, callbacks=[events.append])
        finished = [(event.output, event.front) for event in events if isinstance(event, OutputFinished)]
        assert sorted(finished, key=lambda entry: entry[0]) == list(enumerate(fronts))

    def test_ctrl_c_stops_the_search_after_finished_columns(self, regressor: Regressor) -> None:
        finished: list[int] = []

        def watch(event: Event) -> None:
            if isinstance(event, OutputFinished):
                finished.append(event.output)
            if isinstance(event, OutputProgressed | OutputImproved | OutputFinished) and event.output == 2:
                raise KeyboardInterrupt

        x = inputs()
        Y = torch.stack([law(x), x[:, 1], torch.sin(3 * x[:, 0]) * x[:, 1], x[:, 0] - x[:, 1]], dim=1)
        with pytest.raises(KeyboardInterrupt):
            self.fit(regressor, Y, niterations=5, callbacks=[watch])
        assert 3 not in finished or not isinstance(regressor, OutputwiseRegressor)
        if isinstance(regressor, OutputwiseRegressor):
            assert finished[:2] == [0, 1]

    @pytest.mark.parametrize("times", [1, 3])
    def test_ctrl_c_keeps_equations_that_were_reported(self, regressor: Regressor, times: int) -> None:
        events: list[Event] = []

        def watch(event: Event) -> None:
            events.append(event)
            if isinstance(event, OutputImproved) and count_improvements(events) == times:
                raise KeyboardInterrupt

        settings: dict[str, Any] = {"niterations": 1_000_000, "timeout_in_seconds": 3.0, "maxsize": 8}
        try:
            self.fit(regressor, noisy_law(), callbacks=[watch], **settings)
        except KeyboardInterrupt:
            assert_something_is_kept(events)
        else:
            assert count_improvements(events) < times

    @pytest.mark.parametrize("seconds", [0.0, 0.01, 0.1, 0.4])
    def test_ctrl_c_at_any_moment_keeps_what_there_is(
        self, regressor: Regressor, seconds: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        press_again_when_lost(monkeypatch)
        events: list[Event] = []
        ctrl_c = threading.Timer(seconds, _thread.interrupt_main)

        def watch(event: Event) -> None:
            events.append(event)
            if isinstance(event, OutputImproved) and not ctrl_c.ident:
                ctrl_c.start()

        def run() -> None:
            settings: dict[str, Any] = {"niterations": 1_000_000, "timeout_in_seconds": 5.0, "maxsize": 8}
            self.fit(regressor, noisy_law(), callbacks=[watch], **settings)
            if not ctrl_c.ident:
                pytest.skip("reports no equations as it goes")
            ctrl_c.join()  # the search was over before it
            time.sleep(0.1)

        with pytest.raises(KeyboardInterrupt):
            run()
        assert_something_is_kept(events)

    def test_a_search_ends_soon_after_it_is_late(self, regressor: Regressor) -> None:
        problem = Problem(
            inputs().numpy(),
            noisy_law().numpy(),
            None,
            SearchSpace(unary_operators=(), niterations=1_000_000),
            NAMES,
            seed=0,
            deadline=Deadline(is_stopped=lambda: True),
        )
        search = self.outputwise_or_skip(regressor).search
        ctrl_c = threading.Timer(30.0, _thread.interrupt_main)
        ctrl_c.start()
        try:
            list(search(problem))
        except KeyboardInterrupt:
            pytest.fail("search() must look at problem.is_late() between its steps, and end when it is")
        finally:
            ctrl_c.cancel()

    def test_the_timeout_is_kept(self, regressor: Regressor) -> None:
        started = time.monotonic()
        (front,) = self.fit(regressor, noisy_law(), niterations=1_000_000, timeout_in_seconds=1.0, maxsize=8)
        assert time.monotonic() - started < 20.0
        assert len(front) > 0

    def test_two_rows_are_enough_or_refused(self, regressor: Regressor) -> None:
        few: dict[str, Any] = {"Y": law(inputs())[:2], "X": inputs()[:2], "niterations": 2}
        error = catch_refusal(self.fit, regressor, **few)
        if error is None:
            (front,) = self.fit(regressor, **few)
            assert len(front) > 0
        else:
            assert "row" in str(error)

    def test_the_callers_random_state_is_untouched(self, regressor: Regressor) -> None:
        before = get_random_states()
        self.fit(regressor, law(inputs()), niterations=2)
        assert get_random_states() == before

    def fit_or_skip(self, regressor: Regressor, target: Tensor, **arguments: Any) -> list[ParetoFront]:
        """Run a search; skip the test if the backend refuses it."""
        try:
            return self.fit(regressor, target, **arguments)
        except SearchError as error:
            pytest.skip(f"refused, as it may: {error}")

    def outputwise_or_skip(self, regressor: Regressor) -> OutputwiseRegressor:
        """Return the regressor if it searches outputs one by one; skip the test otherwise."""
        if not isinstance(regressor, OutputwiseRegressor):
            pytest.skip("searches all outputs together")
        return regressor
