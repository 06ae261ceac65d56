"""The estimator of scikit-learn: its habits, and the right equations."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import symtorch_core as st
from symtorch_core.events import Event, OutputFinished
from symtorch_core.testing import ScriptedRegressor

X = np.random.default_rng(0).uniform(-2, 2, size=(120, 3))
Y = np.stack([2 * X[:, 0] + X[:, 1], X[:, 1] - 3], axis=1)

SMALL = {"unary_operators": (), "niterations": 1, "maxsize": 9, "refine": False}
QUICK = (
    st.SymbolicRegressor(
        "sparse", **{**SMALL, "maxsize": 15}, test_fraction=0, regressor_options={"degree": 1}
    ),
    st.SymbolicRegressor("torchgp", **SMALL, regressor_options={"population_size": 40, "search_rows": 64}),
    st.SymbolicRegressor(
        "operon", **SMALL, regressor_options={"population_size": 20, "search_rows": 64, "islands": 1}
    ),
)


def list_expected_failures(model: st.SymbolicRegressor) -> dict[str, str]:
    if model.regressor == "sparse":
        return {}
    return {
        "check_sample_weight_equivalence_on_dense_data": "other rows are other samples for a random search"
    }


@parametrize_with_checks(list(QUICK), expected_failed_checks=list_expected_failures)
def test_what_scikit_learn_expects(estimator: Any, check: Any) -> None:
    check(estimator)


def sparse(**options: Any) -> st.SymbolicRegressor:
    return st.SymbolicRegressor("sparse", **{"unary_operators": (), **options})


class TestValues:
    def test_one_output(self) -> None:
        model = sparse().fit(X, Y[:, 0])
        assert str(model.sympy()) == "2*x0 + x1"
        assert model.latex() == "y_{0} = 2 x_{0} + x_{1}"
        assert model.predict([[1.0, 5.0, 9.0]]) == pytest.approx([7])
        assert model.score(X, Y[:, 0]) == pytest.approx(1)
        assert (model.n_features_in_, model.n_outputs_) == (3, 1)
        assert model.distillation_.fidelity[0].held_out is not None
        table = model.equations_
        assert table["equation"].iloc[-1] == "2*x0 + x1"
        assert set(table["output"]) == {"y0"}

    @pytest.mark.parametrize("columns", [1, 2])
    def test_a_table_of_outputs(self, columns: int) -> None:
        model = sparse().fit(X, Y[:, :columns])
        assert model.predict(X).shape == (120, columns)
        np.testing.assert_allclose(model.predict(X), Y[:, :columns], atol=1e-9)
        assert model.n_outputs_ == columns

    def test_outputs_by_number_and_name(self) -> None:
        model = sparse().fit(X, pd.DataFrame(Y, columns=["force", "shift"]))
        assert str(model.sympy(1)) == str(model.sympy("shift")) == "x1 - 3"
        with pytest.raises(st.SelectionError, match="'forse'.*'force'"):
            model.sympy("forse")
        with pytest.raises(st.SelectionError, match="no equation 2"):
            model.sympy(2)

    def test_columns_name_variables(self) -> None:
        frame = pd.DataFrame(X, columns=["mass (kg)", "exp", "v"])
        model = sparse().fit(frame, pd.Series(Y[:, 0], name="force"))
        assert str(model.sympy("force")) == "exp_ + 2*mass_kg"
        assert "mass_kg is the column 'mass (kg)'" in str(model.distillation_)
        assert model.feature_names_in_.tolist() == ["mass (kg)", "exp", "v"]
        np.testing.assert_allclose(model.predict(frame), Y[:, 0], atol=1e-9)
        with pytest.raises(ValueError, match="feature names"):
            model.predict(frame[["v", "exp", "mass (kg)"]])
        assert str(sparse(variable_names=list("abc")).fit(frame, Y[:, 0]).sympy()) == "2*a + b"

    def test_rows_without_weight_do_not_count(self) -> None:
        y, weight = Y[:, 0].copy(), np.ones(120)
        y[:40], weight[:40] = 99, 0
        assert str(sparse().fit(X, y, weight).sympy()) == "2*x0 + x1"
        assert str(sparse().fit(X, y).sympy()) != "2*x0 + x1"

    def test_transforms_and_a_reducer(self) -> None:
        model = sparse(transforms={"r": "x0 + x1"}).fit(X, X[:, 0] + X[:, 1] + 1)
        assert str(model.sympy()) == "r + 1"
        model = sparse(reducer="pca", reducer_options={"k_in": 3, "k_out": 2}).fit(X, Y)
        np.testing.assert_allclose(model.predict(X), Y, atol=1e-6)


class TestSurroundings:
    def test_cross_validation_and_a_search_over_settings(self) -> None:
        assert cross_val_score(sparse(), X, Y[:, 0], cv=3) == pytest.approx([1, 1, 1])
        y = X[:, 0] * X[:, 1] * X[:, 2]
        grid = {"regressor_options": [{"degree": 1}, {"degree": 3}]}
        found = GridSearchCV(sparse(), grid, cv=2).fit(X, y)
        assert found.best_params_ == {"regressor_options": {"degree": 3}}
        assert str(found.best_estimator_.sympy()) == "x0*x1*x2"
        options = {"regressor": "sparse", "regressor_options": {"degree": 3}, "progress": False}
        assert st.distill(found, X, **options).chosen()[0].text() == "x0*x1*x2"

    def test_names_that_a_pipeline_hands_over(self) -> None:
        frame = pd.DataFrame(X, columns=["a", "b", "c"])
        first = ColumnTransformer([("all", StandardScaler(), ["b", "a"])]).set_output(transform="pandas")
        pipe = make_pipeline(first, sparse()).fit(frame, Y[:, 0])
        assert {str(name) for name in pipe[-1].sympy().free_symbols} == {"all__a", "all__b"}
        assert pipe.score(frame, Y[:, 0]) == pytest.approx(1)

    def test_clones_and_settings(self) -> None:
        model = sparse(maxsize=11, regressor_options={"degree": 3}).fit(X, Y[:, 0])
        again = clone(model)
        assert again.get_params() == model.get_params()
        with pytest.raises(NotFittedError):
            again.predict(X)
        assert again.set_params(maxsize=1).fit(X, Y[:, 0]).sympy().is_number

    def test_pickles_hold_no_rows(self, tmp_path: Path) -> None:
        rows = np.random.default_rng(1).normal(size=(5000, 3))
        model = sparse().fit(rows, rows[:, 0] + 1)
        assert model.distillation_.train is not None
        joblib.dump(model, tmp_path / "model")
        assert tmp_path.joinpath("model").stat().st_size < 40_000  # the rows alone are 160 kB
        for again in (joblib.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
            assert np.array_equal(again.predict(rows), model.predict(rows))
            assert again.distillation_.train is None
        assert len(pickle.loads(pickle.dumps(sparse())).get_params()) == len(model.get_params())

    def test_it_is_imported_when_it_is_used(self) -> None:
        code = (
            "import sys, symtorch_core as st; print('SymbolicRegressor' in dir(st), 'sklearn' in sys.modules)\n"
            "st.SymbolicRegressor; print('sklearn' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["True", "False", "True"]
        with pytest.raises(AttributeError, match="no attribute 'SymbolicRegresor'"):
            st.SymbolicRegresor  # noqa: B018


class TestParameters:
    def test_they_are_those_of_a_distillation(self) -> None:
        ours = set(inspect.signature(st.SymbolicRegressor).parameters)
        fields = st.SearchSpace.field_names()
        assert fields < ours
        theirs = set(inspect.signature(st.distill).parameters)
        of_blocks = {
            "block",
            "data",
            "parent",
            "capture",
            "capture_options",
            "surrogate",
            "out_of_range",
            "max_rows",
        }
        named_otherwise = {"seed", "weights", "search", "search_fields", "output_names", "outputs", "y_true"}
        assert ours - fields == theirs - of_blocks - named_otherwise | {"random_state"}

    def test_fields_reach_the_search(self) -> None:
        given = {"maxsize": 9, "loss": "mae", "constraints": {"*": (1, 1)}, "complexity_of_variables": 2}
        search = sparse(**given, select="accuracy", test_fraction=0.5).fit(X, Y[:, 0]).distillation_.search
        assert (search.maxsize, search.loss, search.complexity_of_variables) == (9, "mae", 2)
        assert search.constraints == {"*": (1, 1)}
        assert search.parsimony == st.SearchSpace().parsimony

    def test_rule_rows_and_callbacks(self) -> None:
        seen: list[Event] = []
        model = sparse(select="accuracy", test_fraction=0.5, callbacks=[seen.append]).fit(X, Y[:, 0])
        assert model.distillation_.select == "accuracy"
        assert model.distillation_.provenance.rows == (60, 60)
        assert any(isinstance(event, OutputFinished) for event in seen)

    def test_random_states(self) -> None:
        def fit(state: Any) -> int:
            return sparse(random_state=state).fit(X, Y[:, 0]).distillation_.provenance.seed

        assert (fit(7), fit(np.int64(7))) == (7, 7)
        assert fit(np.random.RandomState(0)) == fit(np.random.RandomState(0))
        assert fit(None) != fit(None)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"maxsize": 0}, "maxsize must be at least 1"),
            ({"regressor_options": {"degre": 2}}, "Did you mean 'degree'"),
            ({"select": "bets"}, "Did you mean 'best'"),
            ({"random_state": -1}, "seed must be at least 0"),
            ({"test_fraction": 1}, "test_fraction"),
        ],
    )
    def test_wrong_ones_are_refused_by_fit(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(st.SymTorchError, match=message):
            sparse(**wrong).fit(X, Y[:, 0])

    def test_columns_that_are_not_numbers(self) -> None:
        with pytest.raises(st.CaptureError, match="'city'.*get_dummies"):
            sparse().fit(pd.DataFrame({"a": [1.0, 2.0], "city": ["Rome", "Oslo"]}), [1.0, 2.0])


class TestFailures:
    def test_a_search_that_was_stopped_before_each_output_had_an_equation(self) -> None:
        def stop(event: Event) -> None:
            if isinstance(event, OutputFinished):
                raise KeyboardInterrupt

        one_by_one = ScriptedRegressor(equations=("2.0*x0 + x1",))
        model = st.SymbolicRegressor(one_by_one, callbacks=[stop]).fit(X, Y)
        assert model.distillation_.output_names == ("y0",)
        with pytest.raises(st.SearchError, match="only y0 had an equation"):
            model.predict(X)

    def test_without_pandas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = sparse().fit(X, Y[:, 0])
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(st.MissingDependencyError, match="pip install pandas"):
            model.equations_  # noqa: B018

    @pytest.mark.parametrize("use", ["sympy", "latex", "equations_"])
    def test_unfitted(self, use: str) -> None:
        with pytest.raises(NotFittedError):
            getattr(sparse(), use)()
