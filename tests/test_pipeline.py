"""The pipeline from data to a result, around a regressor that knows its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.events.records import (
    Callback,
    Event,
    Interrupted,
    OutputFinished,
    OutputInterrupted,
    OutputProgressed,
    StageAdvanced,
    StageFinished,
    StageStarted,
    notify,
)
from symtorch_core.expressions import parse
from symtorch_core.results.files import encode_distillation
from symtorch_core.storage.documents import write_document
from symtorch_core.storage.tensors import encode_tensors
from symtorch_core.testing.scripted import ScriptedRegressor

EQUATIONS = ("2.0*x0", "2.0*x0 + 3.0*x1", "2.0*x0 + 3.0*x1 + 0.5")


def change_document(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a saved result, and give it a checksum that fits, to show that more than the checksum is checked."""
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_text(write_document(content))


def rows(n: int = 200, d: int = 2) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(0))


def targets(X: Tensor, k: int = 1) -> Tensor:
    return torch.stack([(i + 1) * X[:, 0] - X[:, 1] + i + 0.5 for i in range(k)], dim=1)


def distill(block: Any, data: Any = None, *equations: str, **options: Any) -> st.Distillation:
    options = {
        "regressor": ScriptedRegressor(equations=equations or EQUATIONS),
        "select": "accuracy",
        "progress": False,
    } | options
    return st.distill(block, data, **options)


def exact(result: st.Distillation) -> bool:
    judged = [entry.held_out or entry.train for entry in result.fidelity]
    return len(judged) > 0 and all(entry.r2 > 1 - 1e-9 for entry in judged)


class TestWhatCanBeDistilled:
    def test_arrays(self) -> None:
        X = rows()
        for pair in (
            (X, targets(X, 2)),
            [X.numpy(), targets(X, 2).numpy()],
            (X.tolist(), targets(X, 2).tolist()),
        ):
            result = distill(pair)
            assert exact(result)
            assert (len(result.fronts), result.provenance.rows) == (2, (160, 40))
            assert result.provenance.source.block == "arrays"

    def test_activations(self) -> None:
        activations = st.Activations.of(rows(), targets(rows()), variable_names=["a", "b"])
        assert exact(distill(activations, None, "2.0*a + 3.0*b + 0.5"))

    @pytest.mark.parametrize(
        ("function", "data"),
        [
            (lambda x: 2 * x[:, :1] - x[:, 1:], rows()),
            (lambda x: 2 * x[:, :1] - x[:, 1:], rows().numpy()),
            (
                lambda x: (
                    np.dot(np.asfortranarray(x), [[2.0], [1.0]]) if isinstance(x, np.ndarray) else 1 / 0
                ),
                rows().numpy(),
            ),
            (lambda x: torch.where(x[:, 0] > 2, 0.0, x[:, 0]), rows()),
        ],
        ids=["torch", "numpy", "numpy only", "one number per row"],
    )
    def test_functions(self, function: Any, data: Any) -> None:
        result = distill(function, data)
        assert exact(result)
        assert result.fidelity[0].out_of_range is not None

    def test_a_fitted_estimator(self) -> None:
        X = rows().double().numpy()
        model = LinearRegression().fit(X, 2 * X[:, 0] - X[:, 1])
        result = distill(model.predict, X)
        assert exact(result)
        assert result.fidelity[0].out_of_range is not None

    def test_a_module_alone_and_inside_a_model(self) -> None:
        block = nn.Linear(2, 3)
        model = nn.Sequential(nn.Linear(4, 2), block, nn.ReLU())
        assert exact(distill(block, rows()))
        assert exact(distill(block, rows(d=4), parent=model))
        assert torch.equal(
            distill(block, rows(d=4), parent=model, test_fraction=0).train.inputs,
            model[0](rows(d=4)).detach(),
        )

    def test_rows_beyond_the_range_need_a_block_that_works_row_by_row(self) -> None:
        attention = nn.MultiheadAttention(2, 1, batch_first=True)
        X = rows(60).reshape(6, 10, 2)
        with pytest.warns(RuntimeWarning, match="MultiheadAttention.* mixes rows"):
            result = distill(attention, [(X, X, X)], capture_options={"select_input": 0})
        assert result.fidelity[0].out_of_range is None
        assert distill(nn.Linear(2, 1), X).fidelity[0].out_of_range is not None
        assert distill((rows(), targets(rows()))).fidelity[0].out_of_range is None

    def test_a_block_is_not_asked_beyond_the_range_where_that_is_not_wanted(self) -> None:
        seen: list[Tensor] = []

        def block(x: Tensor) -> Tensor:
            seen.append(x)
            return targets(x)

        result = distill(block, rows(), out_of_range=False)
        assert result.fidelity[0].out_of_range is None
        assert float(torch.cat(seen).max()) <= 1.0
        distill(block, rows())
        assert float(torch.cat(seen).max()) > 1.0

    def test_a_block_that_fails_beyond_the_range_loses_nothing(self) -> None:
        def block(x: Tensor) -> Tensor:
            if bool((x > 1.0).any()):
                raise ValueError("only numbers up to 1")
            return targets(x)

        with pytest.warns(RuntimeWarning, match=r"only numbers up to 1.*out_of_range=False"):
            result = distill(block, rows())
        assert exact(result)
        assert result.fidelity[0].out_of_range is None


class TestOptions:
    def test_names_are_used_throughout(self) -> None:
        result = distill(
            (rows(), targets(rows(), 2)),
            None,
            "2.0*mass + 3.0*t + 0.5",
            variable_names=["mass", "t"],
            output_names=["F", "G"],
        )
        assert list(result.equations()) == ["F", "G"]
        assert {symbol.name for symbol in result.equations()["G"].free_symbols} == {"mass", "t"}
        assert "mass" in str(result)

    def test_some_outputs(self) -> None:
        X = rows()
        result = distill((X, targets(X, 4)), outputs=[3, 1])
        assert (result.outputs, result.output_names, result.block_outputs) == ((3, 1), ("y3", "y1"), 4)
        surrogate = result.surrogate()
        assert torch.allclose(surrogate(X), targets(X, 4)[:, [3, 1]], atol=1e-5)

    def test_transforms_become_the_variables(self) -> None:
        X = rows()
        Y = (X[:, 0] ** 2 + X[:, 1] ** 2).sqrt()[:, None]
        result = distill((X, Y), None, "2.0*r + 0.1", transforms={"r": "sqrt(x0^2 + x1^2)"})
        assert exact(result)
        assert torch.allclose(result.surrogate()(X), Y, atol=1e-5)

    def test_weights_decide(self) -> None:
        X = torch.linspace(-1, 1, 100)[:, None]
        Y = torch.where(X < 0, torch.tensor(1.0), torch.tensor(5.0))
        weights = (X[:, 0] < 0).float()
        result = distill((X, Y), None, "x0", weights=weights, select="score")
        assert float(result.surrogate()(X[:1])) == pytest.approx(1.0, abs=1e-4)
        with pytest.raises(st.CaptureError, match="weights have 3 entries for 100 rows"):
            distill((X, Y), weights=[1, 2, 3])

    def test_held_out_rows_are_kept_out(self) -> None:
        X = rows()
        result = distill((X, targets(X)), test_fraction=0.25)
        assert result.provenance.rows == (150, 50)
        joined = torch.cat([result.train.inputs, result.held_out.inputs])
        assert torch.equal(joined.sort(0).values, X.sort(0).values)
        assert all(c.validation_loss is not None for c in result.fronts[0])
        nothing = distill((X, targets(X)), test_fraction=0)
        assert (nothing.provenance.rows, nothing.held_out, nothing.fidelity[0].held_out) == (
            (200, 0),
            None,
            None,
        )

    def test_search_fields_may_be_given_as_options_or_as_one(self) -> None:
        pair = (rows(), targets(rows()))
        assert distill(pair, maxsize=3, niterations=7).search.niterations == 7
        assert max(distill(pair, maxsize=3).fronts[0].complexities) <= 3
        assert distill(pair, search=st.SearchSpace(loss="mae")).search.loss == "mae"
        with pytest.raises(st.SearchError, match="not both: maxsize"):
            distill(pair, search=st.SearchSpace(), maxsize=3)

    def test_max_rows_bounds_a_capture(self) -> None:
        result = distill(nn.Linear(2, 1), rows(1000), max_rows=100)
        assert (sum(result.provenance.rows), result.provenance.source.rows_seen) == (100, 1000)

    def test_dropping_non_finite_rows(self) -> None:
        X, Y = rows(), targets(rows())
        Y[3] = float("nan")
        result = distill((X, Y), capture_options={"on_nonfinite": "drop"}, weights=torch.ones(200))
        assert (sum(result.provenance.rows), result.provenance.source.rows_dropped) == (199, 1)
        assert "1 row with non-finite values was left out" in str(result)

    def test_same_seed_same_result(self) -> None:
        pair = (rows(), targets(rows(), 2))
        first, again, other = (encode_distillation(distill(pair, seed=seed)) for seed in (1, 1, 2))
        for result in (first, again, other):
            result["provenance"].pop("seconds")
        assert first == again
        assert first != other

    @pytest.mark.slow
    def test_the_number_of_workers_does_not_matter(self) -> None:
        def front(n_jobs: int) -> tuple[st.ParetoFront, ...]:
            engine = ScriptedRegressor(equations=EQUATIONS, n_jobs=n_jobs)
            return distill((rows(), targets(rows(), 3)), regressor=engine).fronts

        assert front(1) == front(2)

    def test_the_world_is_left_alone(self) -> None:
        state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
        distill(nn.Linear(2, 1), rows())
        state_after_layer = torch.get_rng_state()
        layer = nn.Linear(2, 1)
        before = torch.get_rng_state()
        distill(layer, rows())
        assert torch.equal(torch.get_rng_state(), before)
        assert np.random.get_state()[1].tolist() == numpy_state
        assert not torch.equal(state, state_after_layer)


class TestBadInput:
    X = rows(20)
    Y = targets(rows(20))

    @pytest.mark.parametrize(
        ("block", "options", "error", "message"),
        [
            (
                (X, torch.full((20, 1), float("nan"))),
                {},
                st.CaptureError,
                r"20 of 20 rows .*on_nonfinite=\"drop\"",
            ),
            ((X[:0], Y[:0]), {}, st.CaptureError, "no rows"),
            ((X[:1], Y[:1]), {}, st.CaptureError, "1 row is too few"),
            ((X, Y[:-1]), {}, st.CaptureError, "X has 20 rows, Y has 19"),
            (nn.Linear(2, 1), {}, st.CaptureError, "give the data to run the block on"),
            (7, {}, st.CaptureError, "cannot distill a int"),
            ((X, Y), {"data": X}, st.CaptureError, "leave out data and parent"),
            (
                (X, Y),
                {"capture_options": {"select_input": 0}},
                st.SearchError,
                "select_input: the rows are given",
            ),
            ((X, Y), {"transforms": {"r": "x0 + q"}}, st.SearchError, "transform 'r'.*q"),
            (
                (X, Y),
                {"transforms": {"r": "log(x0 - 5)"}},
                st.SearchError,
                "'r' is not finite on 16 of 16 rows",
            ),
            (
                (X, Y),
                {"regressor": "magic"},
                st.UnknownComponentError,
                "no component 'magic' among the regressors; ins",
            ),
            ((X, Y), {"reducer": "magic"}, st.UnknownComponentError, "installed: .*identity"),
            ((X, Y), {"capture": "magic"}, st.UnknownComponentError, "installed: hooks"),
            ((X, Y), {"surrogate": "magic"}, st.UnknownComponentError, "installed: torch"),
            ((X, Y), {"regressor": 3}, st.SearchError, "by name or as an instance of Regressor, not int"),
            ((X, Y), {"reducer_options": {"k": 3}}, st.SearchError, "'identity' has no option 'k'"),
            ((X, Y), {"select": "luck"}, st.SelectionError, "unknown rule 'luck'"),
            ((X, Y), {"select": "validation", "test_fraction": 0}, st.SelectionError, "test_fraction > 0"),
            ((X, Y), {"test_fraction": 1.5}, st.CaptureError, "at least 0 and less than 1"),
            ((X, Y), {"outputs": [1]}, st.SearchError, r"no output 1; there are: 0 \(y0\)"),
            ((X, Y), {"outputs": []}, st.SearchError, "outputs"),
            ((X, Y), {"variable_names": ["a"]}, st.CaptureError, "1 input names for 2 inputs"),
            ((X, Y), {"loss": "mes"}, st.SearchError, "Did you mean 'mse'"),
            ((X, Y), {"unary_operators": ["sine"]}, st.SearchError, "sine"),
        ],
    )
    def test_is_refused_before_any_search(
        self, block: Any, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        events: list[Event] = []
        with pytest.raises(error, match=message):
            distill(block, callbacks=[events.append], **options)
        assert not any(isinstance(event, OutputProgressed) for event in events)

    def test_the_default_backend_names_what_is_installed_and_how_to_get_it(self) -> None:
        code = "import symtorch_core as st, torch; st.distill((torch.rand(20, 2), torch.rand(20, 1)))"
        without = {**os.environ, "SYMTORCH_DISABLE_PLUGINS": "symtorch-pysr"}
        done = subprocess.run([sys.executable, "-c", code], env=without, capture_output=True, text=True)
        assert "UnknownComponentError" in done.stderr
        assert "pip install symtorch-pysr" in done.stderr

    @pytest.mark.parametrize(("backend", "module"), [("gplearn", "gplearn"), ("operon", "pyoperon")])
    def test_a_misspelt_option_is_suggested(self, backend: str, module: str) -> None:
        pytest.importorskip(module)
        with pytest.raises(st.SearchError, match="no option 'niteration'. Did you mean 'niterations'"):
            st.distill((self.X, self.Y), regressor=backend, niteration=3, progress=False)

    def test_an_operator_that_the_backend_lacks(self) -> None:
        pytest.importorskip("pyoperon")
        with pytest.raises(st.SearchError, match="erf"):
            st.distill((self.X, self.Y), regressor="operon", unary_operators=["erf"], progress=False)

    def test_a_complexity_that_is_not_on_the_front(self) -> None:
        result = distill((self.X, self.Y))
        there = ", ".join(map(str, result.front().complexities))
        with pytest.raises(
            st.SelectionError, match=rf"equation 0 \(y0\): no equation of complexity 77.*: {there}$"
        ):
            result.chosen(complexity=77)
        with pytest.raises(st.SelectionError, match=r"no equation 3; there are: 0 \(y0\)"):
            result.front(3)

    def test_a_constant_output_is_a_front_of_one_constant(self) -> None:
        Y = torch.cat([torch.full((20, 1), 2.5), self.Y], dim=1)
        result = distill((self.X, Y))
        assert [c.text() for c in result.fronts[0]] == ["2.5"]
        assert result.fidelity[0].train.max_error == 0
        assert exact(result) or result.fidelity[1].train.r2 > 1 - 1e-9


@final
@dataclass(frozen=True)
class Stopped(st.Regressor):
    """Finishes the first output, and is stopped in the second."""

    name: ClassVar[str] = "stopped"
    independent_outputs: ClassVar[bool] = True

    def fit(
        self, X: Tensor, Y: Tensor, *, callbacks: Sequence[Callback] = (), **_: Any
    ) -> list[st.ParetoFront]:
        front = st.ParetoFront([st.Candidate(parse("2.0*x0"), 3, 0.5)])
        notify(callbacks, OutputFinished(0, front))
        notify(callbacks, OutputInterrupted(1, front))
        raise KeyboardInterrupt


@final
@dataclass(frozen=True)
class Broken(st.Regressor):
    """Breaks down, with or without something to show."""

    name: ClassVar[str] = "broken"
    neutral_options: ClassVar[tuple[str, ...]] = ("shows",)
    shows: bool = True

    def resolve_search(self, search: st.SearchSpace) -> st.SearchSpace:
        return replace(search, loss="mae")

    def fit(
        self,
        X: Tensor,
        Y: Tensor,
        *,
        search: st.SearchSpace,
        callbacks: Sequence[Callback] = (),
        folder: Path | None = None,
        **_: Any,
    ) -> list[st.ParetoFront]:
        assert search.loss == "mae"
        if folder is not None:
            folder.mkdir(exist_ok=True)
        if self.shows:
            notify(callbacks, OutputInterrupted(0, st.ParetoFront([st.Candidate(parse("2.0*x0"), 3, 0.5)])))
        raise st.BackendError("it ran out of memory")


class TestBreakdown:
    def test_what_was_found_is_kept_with_a_warning(self) -> None:
        with pytest.warns(RuntimeWarning, match="out of memory.*\\n.*is kept"):
            result = distill((rows(), targets(rows())), regressor=Broken(), select="accuracy")
        assert result.interrupted
        assert str(result.chosen()[0]) == "2*x0"
        assert result.search.loss == "mae"  # as the backend ran it

    def test_with_nothing_to_keep_it_is_an_error(self) -> None:
        with pytest.raises(st.BackendError, match="out of memory"):
            distill((rows(), targets(rows())), regressor=Broken(shows=False))

    def test_a_repetition_gets_the_same_folder_and_other_data_another(self, tmp_path: Path) -> None:
        for pair, shows in (((rows(), targets(rows())), True), ((rows(), targets(rows())), False)):
            with pytest.raises(st.BackendError) if not shows else pytest.warns(RuntimeWarning):
                distill(pair, regressor=Broken(shows=shows), resume=tmp_path)
        assert len(list(tmp_path.glob("search-*/"))) == 1
        with pytest.raises(st.BackendError):
            distill((rows(), 2 * targets(rows())), regressor=Broken(shows=False), resume=tmp_path)
        assert len(list(tmp_path.glob("search-*/"))) == 2


class TestInterrupted:
    def interrupted(self, **options: Any) -> tuple[st.Distillation, list[Event]]:
        events: list[Event] = []
        engine = ScriptedRegressor(equations=options.pop("equations", EQUATIONS), interrupt_at=2)
        pair = (rows(d=3), targets(rows(d=3), 4))
        return distill(pair, regressor=engine, callbacks=[events.append], **options), events

    def test_in_the_third_output_two_are_kept(self) -> None:
        result, events = self.interrupted()
        assert result.interrupted
        assert (result.outputs, len(result.fronts), result.block_outputs) == ((0, 1), 2, 4)
        assert exact(result)
        assert Interrupted(2) in events
        assert "interrupted" in str(result)
        assert result.surrogate()(rows(d=3)).shape == (200, 2)

    def test_behind_a_reducer_the_missing_dimensions_are_held_at_their_mean(self) -> None:
        result, _ = self.interrupted(
            reducer="pca", reducer_options={"k_out": 3}, equations=("2.0*x0", "2.0*x0 + 3.0*x1 + 0.5")
        )
        assert result.interrupted
        assert (result.outputs, len(result.fronts)) == ((0, 1, 2, 3), 3)
        assert result.fronts[2].complexities == (1,)
        assert result.surrogate()(rows(d=3)).shape == (200, 4)
        assert result.fidelity[3].train.r2 > 0.99  # three outputs of rank two: the third dimension is nothing

    def test_before_anything_is_finished_it_is_an_interruption(self) -> None:
        engine = ScriptedRegressor(equations=EQUATIONS, interrupt_at=0)
        with pytest.raises(KeyboardInterrupt):
            distill((rows(), targets(rows())), regressor=engine)

    def test_the_best_so_far_is_kept_but_searched_again_on_resume(self, tmp_path: Path) -> None:
        result = distill(
            (rows(), targets(rows(), 2)), regressor=Stopped(), resume=tmp_path, niterations=5, maxsize=9
        )
        assert result.interrupted
        assert [str(front[-1].expression) for front in result.fronts] == ["2.0*x0", "2.0*x0"]
        assert len(list(tmp_path.glob("fronts-*"))) == 1  # the finished output, not the stopped one

    def test_a_callback_may_interrupt(self) -> None:
        def enough(event: Event) -> None:
            if isinstance(event, OutputFinished) and event.output == 1:
                raise KeyboardInterrupt

        result = distill((rows(), targets(rows(), 3)), callbacks=[enough])
        assert (result.outputs, result.interrupted) == ((0, 1), True)

    def test_a_wrapped_block_keeps_the_rest_neural(self) -> None:
        model = nn.Sequential(nn.Linear(2, 4))
        block = st.wrap(model, "0")
        neural = model(rows())
        engine = ScriptedRegressor(equations=("2.0*x0",), interrupt_at=2)
        block.distill(rows(), regressor=engine, progress=False)
        block.switch_to_symbolic()
        assert block.symbolic_outputs == (0, 1)
        assert torch.equal(model(rows())[:, 2:], neural[:, 2:])
        assert not torch.equal(model(rows())[:, :2], neural[:, :2])


class TestResume:
    def searched(self, folder: Path, **options: Any) -> tuple[list[int], st.Distillation]:
        """The outputs that were really searched, and the result."""
        events: list[Event] = []
        pair = (rows(), targets(rows(), options.pop("k", 3)))
        result = distill(pair, resume=folder, callbacks=[events.append], **options)
        assert [e.output for e in events if isinstance(e, OutputFinished)] == list(range(len(result.fronts)))
        return [event.output for event in events if isinstance(event, OutputProgressed)], result

    def test_a_second_run_searches_nothing(self, tmp_path: Path) -> None:
        first, result = self.searched(tmp_path / "new" / "folder")
        second, again = self.searched(tmp_path / "new" / "folder")
        assert (first, second) == ([0, 1, 2], [])
        assert again.fronts == result.fronts

    def test_new_outputs_are_searched_beside_old_ones(self, tmp_path: Path) -> None:
        self.searched(tmp_path, k=2)
        assert self.searched(tmp_path, k=4)[0] == [2, 3]

    @pytest.mark.parametrize(
        "change",
        [
            {"maxsize": 9},
            {"loss": "mae"},
            {"test_fraction": 0.3},
            {"weights": torch.arange(1.0, 201)},
            {"variable_names": ["a", "b"], "regressor": ScriptedRegressor(equations=("a", "b"))},
            {"regressor": ScriptedRegressor(equations=EQUATIONS[:1])},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_changed_setting_searches_again(self, tmp_path: Path, change: dict[str, Any]) -> None:
        self.searched(tmp_path)
        assert self.searched(tmp_path, **change)[0] == [0, 1, 2]

    def test_losses_given_as_functions_are_told_apart(self, tmp_path: Path) -> None:
        shares = [0.1, 0.9, 0.1]
        losses = [lambda r, share=share: torch.maximum(share * r, (share - 1) * r) for share in shares]
        searched, fronts = [], []
        for loss in losses:
            outputs, result = self.searched(tmp_path, k=1, loss=loss)
            searched.append(outputs)
            fronts.append(result.fronts[0])
        assert searched == [[0], [0], []]
        assert fronts[0] != fronts[1]
        assert fronts[0] == fronts[2]

    def test_a_loss_that_no_other_run_could_know_again_is_refused_before_any_work(
        self, tmp_path: Path
    ) -> None:
        lock = threading.Lock()

        def loss(r: Tensor) -> Tensor:
            with lock:
                return r.abs()

        def block(x: Tensor) -> Tensor:
            raise AssertionError("this is work")

        with pytest.raises(
            st.SearchError, match="'lock' of 'loss' of the search, the function 'loss' holds a lock"
        ):
            st.distill(block, rows(), loss=loss, resume=tmp_path / "new", regressor=ScriptedRegressor())
        assert not (tmp_path / "new").exists()

    def test_other_workers_are_no_other_setting(self, tmp_path: Path) -> None:
        self.searched(tmp_path)
        files = sorted(tmp_path.iterdir())
        self.searched(tmp_path, regressor=ScriptedRegressor(equations=EQUATIONS, n_jobs=2))
        assert sorted(tmp_path.iterdir()) == files

    def test_another_seed_is_another_run_even_on_the_same_rows(self, tmp_path: Path) -> None:
        self.searched(tmp_path, test_fraction=0)
        assert self.searched(tmp_path, test_fraction=0, seed=1)[0] == [0, 1, 2]
        assert self.searched(tmp_path, test_fraction=0)[0] == []

    def test_a_stopped_run_goes_on(self, tmp_path: Path) -> None:
        pair = (rows(), targets(rows(), 3))

        def crash(event: Event) -> None:
            if isinstance(event, OutputFinished) and event.output == 1:
                raise SystemExit

        with pytest.raises(SystemExit):
            distill(pair, resume=tmp_path, callbacks=[crash])
        searched, result = self.searched(tmp_path)
        assert searched == [2]
        assert exact(result)

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        self.searched(tmp_path)
        path = min(tmp_path.glob("fronts-*"))
        path.write_text(path.read_text()[:-9])
        with pytest.raises(st.FileFormatError, match=rf"{path.name} is damaged .*delete it"):
            self.searched(tmp_path)


def test_events_come_in_order_and_once() -> None:
    events: list[Event] = []
    distill(nn.Linear(2, 2), rows(3000), callbacks=[events.append])
    kinds = [
        (event.stage, type(event).__name__)
        for event in events
        if isinstance(event, (StageStarted, StageAdvanced, StageFinished))
    ]
    stages = [name for name, kind in kinds if kind == "StageStarted"]
    assert stages == ["capture", "reduce", "regress", "verify"]
    assert [name for name, kind in kinds if kind == "StageFinished"] == stages
    assert kinds.count(("capture", "StageAdvanced")) == 3
    (started,) = [e for e in events if isinstance(e, StageStarted) and e.stage == "regress"]
    assert started.total == 2
    assert [e.output for e in events if isinstance(e, OutputFinished)] == [0, 1]


@pytest.fixture(scope="module")
def result() -> st.Distillation:
    X = rows()
    return distill(
        (X, targets(X, 3)),
        None,
        "2.0*z0 + 0.5",
        "sin(2.0*z0)",
        reducer="pca",
        reducer_options={"k_in": 1, "k_out": 2},
        variable_names=["a", "b"],
        output_names=["u", "v", "w"],
    )


def first_column(x: Tensor) -> Tensor:
    return x[..., 0]


def quartic(residual: Tensor) -> Tensor:
    return residual**4


def encode(result: st.Distillation) -> dict[str, Any]:
    with pytest.warns(RuntimeWarning, match="not saved"):
        return encode_distillation(result)


class TestResult:
    def test_saving_and_loading_gives_the_same(self, result: st.Distillation, tmp_path: Path) -> None:
        result.save(tmp_path / "result.json")
        loaded = st.Distillation.load(tmp_path / "result.json")
        assert encode_distillation(loaded) == encode_distillation(result)
        assert loaded.fronts == result.fronts
        assert torch.equal(loaded.surrogate()(rows()), result.surrogate()(rows()))
        assert str(loaded) == str(result)
        assert loaded.train is None
        assert torch.equal(loaded.held_out.outputs, result.held_out.outputs)  # few enough to be kept whole

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[:-5],
            lambda text: "[]",
            lambda text: "{}",
            lambda text: json.dumps(json.loads(text) | {"schema": 99}),
            lambda text: json.dumps(json.loads(text) | {"fronts": [[{"equation": "exit()"}]]}),
            lambda text: json.dumps(json.loads(text) | {"reduction": {"variable_names": ["z0"]}}),
            lambda text: json.dumps(json.loads(text) | {"reduction_tensors": ""}),
            lambda text: json.dumps(json.loads(text) | {"reduction_tensors": "AAAA"}),
            lambda text: json.dumps(
                json.loads(text) | {"transforms": {"input_names": ["a"], "definitions": {"r": "q"}}}
            ),
        ],
    )
    def test_what_is_no_saved_result_is_refused(
        self, result: st.Distillation, tmp_path: Path, damage: Any
    ) -> None:
        path = tmp_path / "result.json"
        result.save(path)
        path.write_text(damage(path.read_text()))
        with pytest.raises(st.FileFormatError):
            st.Distillation.load(path)

    def test_everything_that_a_result_says_survives_its_file(self, tmp_path: Path) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.block = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))

            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.block(x).square()
                return y

        torch.manual_seed(0)
        model = Model()
        found = st.wrap(model, "block").distill(
            rows(),
            parent=model,
            metric=lambda m: float(m(rows()).detach().mean()),
            regressor=ScriptedRegressor(equations=EQUATIONS),
            outputs=[2, 0],
            transforms={"r": "x0 + x1", "x0": "x0", "x1": "x1"},
            constraints={"pow": (-1, 1)},
            complexity_of_variables=2,
            select="accuracy",
            seed=7,
            progress=False,
        )
        result = replace(found, interrupted=True)
        result.save(tmp_path / "result.json")
        loaded = st.Distillation.load(str(tmp_path / "result.json"))
        for entry in fields(st.Distillation):
            if entry.name not in ("train", "held_out", "transforms", "reduction"):
                assert getattr(loaded, entry.name) == getattr(result, entry.name), entry.name
        assert loaded.outputs == (2, 0)
        assert loaded.block_outputs == 3
        assert loaded.model_fidelity is not None
        assert loaded.task_metric is not None
        assert loaded.provenance.seed == 7
        assert loaded.transforms.to_json() == result.transforms.to_json()
        assert torch.equal(loaded.surrogate()(rows()), result.surrogate()(rows()))
        assert loaded.held_out is not None
        assert loaded.held_out.source == result.provenance.source
        assert loaded.held_out.input_names == ("x0", "x1")
        # And so does the file of what was loaded.
        loaded.save(tmp_path / "again.json")
        texts = [(tmp_path / name).read_text() for name in ("again.json", "result.json")]
        assert json.loads(texts[0]) == json.loads(texts[1])

    def test_held_out_rows_keep_their_weights_in_a_file(self, tmp_path: Path) -> None:
        X = rows()
        Y = targets(X)
        Y[:100] += 1.0
        weights = torch.linspace(0, 2, 200)
        result = distill(st.Activations.of(X, Y, weights=weights))
        result.save(tmp_path / "result.json")
        loaded = st.Distillation.load(tmp_path / "result.json")
        assert loaded.held_out is not None
        assert result.held_out is not None
        assert torch.equal(loaded.held_out.weights, result.held_out.weights)
        assert loaded.judge(loaded.held_out) == result.judge(result.held_out)
        unweighted = replace(loaded.held_out, weights=None)
        assert loaded.judge(unweighted) != result.judge(result.held_out)

    @pytest.mark.parametrize(("width", "kept"), [(2, 300), (999, 200)])
    def test_a_file_holds_a_few_hundred_rows_of_all_columns(
        self, tmp_path: Path, width: int, kept: int
    ) -> None:
        X = rows(800, width)
        result = distill((X, targets(X)), None, "x0", test_fraction=0.5)
        result.save(tmp_path / "result.json")
        loaded = st.Distillation.load(tmp_path / "result.json").held_out
        assert result.held_out is not None
        assert loaded is not None
        assert torch.equal(loaded.inputs, result.held_out.inputs[:kept])
        assert torch.equal(loaded.outputs, result.held_out.outputs[:kept])

    def test_a_file_without_rows_is_read(self, result: st.Distillation, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        replace(result, held_out=None).save(path)
        assert st.Distillation.load(path).held_out is None
        change_document(path, lambda data: data.update(held_out_sample=encode_tensors({"inputs": rows()})))
        with pytest.raises(st.FileFormatError, match="sample of held-out rows is damaged"):
            st.Distillation.load(path)

    def test_what_cannot_be_saved_loaded_or_asked(self, result: st.Distillation, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        result.save(path)
        load = st.Distillation.load
        for act in (result.save, load, result.report):
            with pytest.raises(st.FileFormatError, match="path must be the path of a file, got 3"):
                act(3)
        for options, message in (
            ({"transforms": [quartic]}, "transforms takes a dictionary"),
            ({"transforms": {"r": 3}}, "transforms: 'r' must be a function of the inputs"),
            ({"loss": 3}, "loss must be a function of the residual"),
            ({"loss": quartic}, "the file has its loss, 'mse'"),
            ({"transforms": {"r": quartic}}, "lacks no function of a transform 'r'; it lacks: none"),
        ):
            with pytest.raises(st.FileFormatError, match=message):
                load(path, **options)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
        with pytest.raises(st.FileFormatError, match="schema 99, not 5"):
            load(path)
        for number in (2, -1, True):
            with pytest.raises(st.SelectionError, match="equation"):
                result.front(number)
            with pytest.raises(st.SelectionError, match="equation"):
                result.chosen(complexity={number: 1})
        with pytest.raises(st.SelectionError, match="digits must be at least 1"):
            result.latex(0)
        with pytest.raises(st.SelectionError, match=r"equation 1 \(f1\): .*99"):
            result.chosen(complexity={1: 99})
        with pytest.raises(st.CaptureError, match="must be Activations, not a Tensor"):
            result.judge(rows())  # type: ignore[arg-type]

    def test_equations_are_chosen_by_rule_and_by_complexity(self) -> None:
        X = rows()
        result = distill((X, targets(X, 2)), None, "x0", "2.0*x0 + 3.0*x1", "1.0*x0 + 1.0*x1 + 1.0")
        first, last = (front.complexities for front in result.fronts)
        assert len(first) > 1
        assert [c.complexity for c in result.chosen()] == [first[-1], last[-1]]
        assert [c.complexity for c in result.chosen(complexity=first[0])] == [first[0], first[0]]
        mixed = {1: last[0]}
        assert [c.complexity for c in result.chosen(complexity=mixed)] == [first[-1], last[0]]
        assert result.chosen("accuracy", mixed) == result.chosen(complexity=mixed)
        assert list(result.equations()) == list(result.equation_names)
        assert list(result.equations().values()) == [c.equation for c in result.chosen()]
        # Judged is what was chosen: the law itself, or a part of it.
        assert result.held_out is not None
        exact_one, part = result.judge(result.held_out, complexity=mixed)
        assert exact_one.r2 == pytest.approx(1)
        values = result.surrogate(complexity=mixed)(result.held_out.inputs)[:, 1].double()
        y = result.held_out.outputs[:, 1].double()
        residual = (values - y).square().sum() / (y - y.mean()).square().sum()
        assert part.r2 == pytest.approx(1 - float(residual), rel=1e-5)
        assert part.r2 < 0.99

    def test_notebooks_show_one_line_for_each_equation(self, result: st.Distillation) -> None:
        first, second = result.latex().splitlines()
        assert result._repr_latex_() == (
            rf"$\displaystyle \begin{{gathered}} {first} \\ {second} \end{{gathered}}$"
        )

    def test_it_is_drawn_where_it_should_be(self, result: st.Distillation, tmp_path: Path) -> None:
        pyplot = pytest.importorskip("matplotlib.pyplot")
        _, axes = pyplot.subplots(1, 2)
        for kind in ("front", "fit", "residuals"):
            assert result.plot(kind, 1, axes[1]) is axes[1]
            assert result.plot(kind, output=1).get_title() == axes[1].get_title()
            axes[1].clear()
        assert not axes[0].has_data()
        pyplot.close("all")
        page = result.report(tmp_path / "page.html", title="Of <two> laws")
        assert "Of &lt;two&gt; laws" in page.read_text()

    def test_python_functions_are_left_out_and_can_be_given_again(self, tmp_path: Path) -> None:
        result = distill(
            (rows(), targets(rows())),
            None,
            "r",
            "r + b",
            transforms={"r": first_column, "b": "x1"},
            loss=quartic,
        )
        path = tmp_path / "result.json"
        with pytest.warns(RuntimeWarning, match="not saved.*: transform 'r', the loss"):
            result.save(path)
        loaded = st.Distillation.load(path)
        assert loaded.fronts == result.fronts
        assert loaded.equations() == result.equations()
        assert loaded.fidelity == result.fidelity
        assert str(loaded) == str(result)
        assert loaded._repr_html_() == result._repr_html_()
        assert "first_column" in repr(loaded.transforms)
        for use in (
            lambda: loaded.surrogate()(rows()),
            lambda: loaded.judge(loaded.held_out),
            lambda: loaded.search.loss_function(rows(), rows()),
            lambda: loaded.plot("fit"),
            lambda: loaded.export(tmp_path / "law.py"),
            lambda: loaded.export(tmp_path / "law.onnx"),
            lambda: loaded.export(tmp_path / "law.pt2"),
        ):
            with pytest.raises(st.FileFormatError, match="Python function"):
                use()
        again = st.Distillation.load(path, transforms={"r": first_column}, loss=quartic)
        assert torch.equal(again.surrogate()(rows()), result.surrogate()(rows()))
        assert again.search == result.search
        with pytest.raises(st.FileFormatError, match="lacks no function of a transform 'b'; it lacks: r"):
            st.Distillation.load(path, transforms={"b": first_column})
        with pytest.warns(RuntimeWarning, match="transform 'r', the loss"):
            loaded.save(path)
        assert encode(st.Distillation.load(path)) == encode(result)

    def test_a_page_says_what_it_cannot_draw(self, tmp_path: Path) -> None:
        result = distill((rows(), targets(rows())), None, "r", transforms={"r": first_column})
        with pytest.warns(RuntimeWarning, match="transform 'r'"):
            result.save(tmp_path / "result.json")
        page = st.Distillation.load(tmp_path / "result.json").report(tmp_path / "page.html").read_text()
        assert "r came from Python functions" in page
        assert "r = first_column(...)" in page

    def test_it_prints_fronts_fidelity_and_how_it_was_made(self, result: st.Distillation) -> None:
        text = str(result)
        for part in (
            "f0",
            "f1",
            "u",
            "w",
            "complexity",
            "R2 held-out",
            "reducer pca",
            "'accuracy'",
            "seed 0",
        ):
            assert part in text
        assert max(map(len, text.splitlines())) <= 110

    def test_latex_has_a_line_for_each_equation(self, result: st.Distillation) -> None:
        lines = result.latex(digits=3).splitlines()
        assert [line.split(" = ")[0] for line in lines] == ["f_{0}", "f_{1}"]
        assert "z_{0}" in lines[0]

    def test_all_fronts_as_a_frame(self, result: st.Distillation) -> None:
        pytest.importorskip("pandas")
        frame = result.to_frame()
        assert len(frame) == sum(map(len, result.fronts))
        assert list(frame["output"]) == ["f0"] * len(result.fronts[0]) + ["f1"] * len(result.fronts[1])
        assert list(frame.index) == list(range(len(frame)))

    def test_versions_and_seconds_are_there(self, result: st.Distillation) -> None:
        assert {"python", "torch", "symtorch-core"} <= set(result.provenance.versions)
        assert list(result.provenance.seconds) == ["capture", "reduce", "regress", "verify"]

    def test_it_judges_any_rows(self, result: st.Distillation) -> None:
        again = result.judge(result.held_out)
        assert again == [entry.held_out for entry in result.fidelity]

    def test_a_surrogate_is_a_copy(self, result: st.Distillation) -> None:
        before = result.surrogate()(rows())
        result.surrogate().double().reduction.up.bias.data.zero_()
        assert torch.equal(result.surrogate()(rows()), before)
