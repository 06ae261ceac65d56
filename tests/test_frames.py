"""Data frames: their columns name the variables, and a function that was given a frame is given frames throughout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import symtorch_core as st
from symtorch_core.activations.frames import Column, build_frame
from symtorch_core.components.escaping import make_variable_names
from symtorch_core.events import Event, StageTold
from symtorch_core.testing import ScriptedRegressor

LAW = ScriptedRegressor(equations=("mass_kg", "2.0*mass_kg + 3.0*exp_ - n + flag"))
FIRST = ScriptedRegressor(equations=("x0",))


def make_frame(rows: int = 200) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "mass (kg)": generator.uniform(1, 5, rows),
            "exp": generator.normal(size=rows),
            "n": generator.integers(0, 9, rows),
            "flag": generator.random(rows) > 0.5,
        },
        index=np.arange(rows)[::-1],
    )


def compute(frame: pd.DataFrame) -> pd.Series:
    assert isinstance(frame, pd.DataFrame)
    return 2 * frame["mass (kg)"] + 3 * frame["exp"] - frame["n"] + frame["flag"]


def make_pipe() -> Pipeline:
    """A pipeline that finds its columns by name, and so needs a frame."""
    columns = ColumnTransformer(
        [("scaled", StandardScaler(), ["n", "exp", "mass (kg)"])], remainder="passthrough"
    )
    return make_pipeline(columns, LinearRegression()).fit(make_frame(), compute(make_frame()))


def distilled(*given: Any, **options: Any) -> st.Distillation:
    return st.distill(*given, **{"regressor": LAW, "select": "accuracy", "progress": False, **options})


def test_columns_name_variables_and_outputs(tmp_path: Path) -> None:
    frame = make_frame()
    result = distilled((frame, compute(frame).rename("force [N]")))
    assert result.transforms.input_names == ("mass_kg", "exp_", "n", "flag")
    assert result.output_names == ("force [N]",)
    assert result.chosen()[0].text() == "2*mass_kg + 3*exp_ - n + flag"
    assert result.fidelity[0].train.r2 == 1
    assert "mass_kg is the column 'mass (kg)', exp_ is the column 'exp'" in str(result)
    result.save(tmp_path / "result.json")
    again = st.Distillation.load(tmp_path / "result.json")
    assert again.provenance.source.columns == result.provenance.source.columns
    assert again.provenance.source.columns[2] == Column("n", "int64")
    assert "exp_ is the column 'exp'" in str(again)
    assert "mass_kg: mass (kg)" in result.report(tmp_path / "page.html").read_text(encoding="utf-8")


def test_frames_of_outputs_and_names_of_the_user() -> None:
    frame = make_frame()
    Y = pd.DataFrame({"force": compute(frame), "": frame["exp"]})
    assert distilled((frame, Y)).output_names == ("y0", "y1")
    assert distilled((frame, Y.set_axis(["force", "e"], axis=1))).output_names == ("force", "e")
    first = ScriptedRegressor(equations=("a",))
    result = distilled((frame, Y), regressor=first, variable_names=list("abcd"), output_names=["p", "q"])
    assert (result.transforms.input_names, result.output_names) == (tuple("abcd"), ("p", "q"))
    assert "a is the column 'mass (kg)'" in str(result)
    assert st.Activations.of(frame["mass (kg)"], frame["exp"]).input_names == ("mass_kg",)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a", "a", "a_2", "a"], ("a", "a_3", "a_2", "a_4")),
        (["exp", "exp_", "pi", "+"], ("exp__2", "exp_", "pi_", "x")),
        (["1", "2nd", "1.5", ""], ("x1", "x2nd", "x1_5", "x")),
        (["a b", "a-b", "a_b", " a b "], ("a_b_2", "a_b_3", "a_b", "a_b_4")),
        (
            ["m²", "_x", "x_", "α/β", "½", "名前", "lambda"],
            ("m2", "_x", "x_", "α_β", "x1_2", "名前", "lambda"),
        ),
    ],
)
def test_names_of_variables(given: list[str], names: tuple[str, ...]) -> None:
    assert make_variable_names(given, ["exp", "pi", "+"]) == names


def test_index_and_repeated_columns_do_not_matter() -> None:
    frame = make_frame()
    twice = pd.concat([frame[["mass (kg)"]], frame[["mass (kg)"]]], axis=1)
    rows = st.Activations.of(twice, compute(frame).reset_index(drop=True))
    assert rows.input_names == ("mass_kg", "mass_kg_2")
    assert rows.outputs[:, 0].tolist() == compute(frame).tolist()


@pytest.mark.parametrize(
    "dtype", ["Int64", "Float64", "Float32", "int8", "uint64", "float32", "boolean", "bool"]
)
def test_types_of_numbers(dtype: str) -> None:
    frame = pd.DataFrame({"a": [0, 1, 1, 0], "b": [0.5, 1.5, 2.5, 3.5]}).astype({"a": dtype})
    rows = st.Activations.of(frame, frame["b"])
    assert rows.inputs.tolist() == [[0, 0.5], [1, 1.5], [1, 2.5], [0, 3.5]]
    again = build_frame(rows.inputs.numpy(), rows.source.columns)
    pd.testing.assert_frame_equal(again, frame)
    halves = build_frame(rows.inputs.numpy() / 2, rows.source.columns)
    assert halves["a"].tolist() == [0, 0.5, 0.5, 0]


def test_large_whole_numbers_keep_their_digits() -> None:
    rows = st.Activations.of(pd.DataFrame({"t": [2**40 + 1, 2**40 + 2]}), [1.0, 2.0])
    assert rows.inputs[:, 0].tolist() == [2**40 + 1, 2**40 + 2]


class TestFunctions:
    def test_a_function_is_given_frames_throughout(self) -> None:
        seen: list[pd.DataFrame] = []

        def function(frame: pd.DataFrame) -> pd.Series:
            seen.append(frame)
            return compute(frame)

        result = distilled(function, make_frame())
        assert result.transforms.input_names == ("mass_kg", "exp_", "n", "flag")
        assert result.fidelity[0].out_of_range is not None
        assert result.fidelity[0].out_of_range.r2 == pytest.approx(1)
        assert [frame.columns.tolist() for frame in seen] == [make_frame().columns.tolist()] * len(seen)
        pd.testing.assert_frame_equal(seen[0], make_frame())
        assert seen[1].dtypes.tolist() == make_frame().dtypes.tolist()  # the rows of the data, again

    def test_a_pipeline_that_picks_columns_by_name(self) -> None:
        result = distilled(make_pipe().predict, make_frame())
        assert result.fidelity[0].held_out is not None
        assert result.fidelity[0].held_out.r2 == pytest.approx(1)
        assert result.fidelity[0].out_of_range is not None
        assert result.fidelity[0].out_of_range.r2 == pytest.approx(1)

    @pytest.mark.parametrize(
        "cut",
        [
            lambda f: [f[:100], f[100:]],
            lambda f: iter([f[:100], f[100:]]),
            lambda f: [(f, "labels, which it does not take")],
        ],
    )
    def test_batches(self, cut: Any) -> None:
        result = distilled(make_pipe().predict, cut(make_frame()))
        assert result.provenance.source.rows_seen == 200
        assert result.transforms.input_names == ("mass_kg", "exp_", "n", "flag")

    def test_batches_with_other_columns(self) -> None:
        frame = make_frame()
        with pytest.raises(st.CaptureError, match="different columns"):
            distilled(compute, [frame, frame[frame.columns[::-1]]])

    def test_a_module_is_given_numbers_and_keeps_the_names(self) -> None:
        net = torch.nn.Linear(4, 1)
        result = distilled(net, make_frame())
        assert result.transforms.input_names == ("mass_kg", "exp_", "n", "flag")
        assert result.fidelity[0].out_of_range is not None

    def test_a_hidden_block_has_other_inputs(self) -> None:
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
        result = distilled(net[1], make_frame(), parent=net, regressor=FIRST)
        assert result.transforms.input_names == ("x0", "x1", "x2", "x3")
        assert result.provenance.source.columns == ()

    def test_equations_in_its_place_find_columns_by_name(self) -> None:
        frame, model = make_frame(), st.SymbolicModel(make_pipe().predict)
        model.distill(frame, regressor=LAW, select="accuracy", progress=False)
        model.switch_to_symbolic()
        turned = frame[frame.columns[::-1]].assign(other=0.0)
        np.testing.assert_allclose(model(turned), compute(frame), rtol=1e-6)
        with pytest.raises(st.CaptureError, match="has no column 'n'"):
            model(frame.drop(columns="n"))

    def test_constants_are_refined_towards_the_function(self) -> None:
        frame, model = make_frame(), st.SymbolicModel(compute)
        near = ScriptedRegressor(equations=("1.9*mass_kg + 3.2*exp_ - n + flag",))
        model.distill(frame, regressor=near, refine=False, progress=False)
        done = model.switch_to_symbolic().refine(frame, epochs=100, batch_size=50)
        assert done.after < 0.01 * done.before

    def test_a_function_of_arrays_is_told_why_it_fails(self) -> None:
        with pytest.raises(Exception) as caught:  # noqa: PT011  (pandas' own)
            distilled(lambda x: x[:, 0], make_frame())
        assert "frame.to_numpy()" in caught.value.__notes__[0]


class TestEstimators:
    def test_a_regressor_stands_for_its_predict(self) -> None:
        events: list[Event] = []
        result = distilled(make_pipe(), make_frame(), callbacks=[events.append])
        assert result.chosen()[0].text() == "2*mass_kg + 3*exp_ - n + flag"
        assert result.provenance.source.block == "Pipeline.predict"
        assert StageTold("capture", "Pipeline.predict is distilled") in events

    def test_in_a_wrapper(self) -> None:
        model = st.SymbolicModel(make_pipe())
        assert model.name == "Pipeline.predict"
        model.distill(make_frame(), regressor=LAW, select="accuracy", progress=False)
        np.testing.assert_allclose(model.switch_to_symbolic()(make_frame()), compute(make_frame()), rtol=1e-6)

    def test_in_a_plot(self) -> None:
        pipe = make_pipe()
        axes = st.plot_slice(distilled(pipe, make_frame()), pipe, "mass_kg")
        block, equations = (line.get_ydata() for line in axes.lines)
        np.testing.assert_allclose(block, equations, rtol=1e-5)

    def test_a_search_over_settings_is_one_too(self) -> None:
        search = GridSearchCV(LinearRegression(), {"fit_intercept": [True, False]}, cv=2)
        search.fit(make_frame(), compute(make_frame()))
        assert distilled(search, make_frame()).fidelity[0].train.r2 == pytest.approx(1)

    @pytest.mark.parametrize(
        ("estimator", "message"),
        [
            (make_pipeline(StandardScaler(), LinearRegression()), r"not fitted yet: call its fit\(X, y\)"),
            (LogisticRegression(), r"distill\(model.predict_proba, data\)"),
            (StandardScaler(), r"distill\(model.transform, data\)"),
            (KMeans(), "no regressor"),
        ],
    )
    def test_others_are_refused_with_the_line_to_write(self, estimator: Any, message: str) -> None:
        with pytest.raises(st.CaptureError, match=message):
            distilled(estimator, make_frame())

    def test_a_sweep_of_reducers(self) -> None:
        sweep = st.sweep_reducers(make_pipe(), make_frame(), reducers=["pca"], k_in=[4], progress=False)
        assert sweep.rows[0].r2 == pytest.approx(1)


class TestRefusals:
    WORDS = {  # noqa: RUF012
        "city": "Rome",
        "day": pd.Timestamp("2020-01-01"),
        "kind": pd.Categorical(["a"] * 200),
        "span": pd.Timedelta("1s"),
        "z": 1j,
    }

    @pytest.mark.parametrize("give", [lambda f: (f, f["n"]), lambda f: (compute, f), lambda f: (f[["n"]], f)])
    def test_columns_that_are_not_numbers(self, give: Any) -> None:
        frame = make_frame().assign(**self.WORDS)
        given = give(frame)
        names = "'city' .*'day' .*'kind' .*'span' .*'z' "
        with pytest.raises(st.CaptureError, match=names + ".*get_dummies"):
            distilled(*given) if callable(given[0]) else distilled(given)

    @pytest.mark.parametrize("kind", ["float64", "Float64"])
    def test_missing_values_are_counted_by_column(self, kind: str) -> None:
        frame = make_frame()[["mass (kg)", "exp"]].astype(kind)
        frame.iloc[:3, 0], frame.iloc[2:4, 1] = None, None
        y = pd.Series(np.ones(200))
        counts = r"4 of 200 rows .*\(3 in 'mass \(kg\)', 2 in 'exp'\)"
        with pytest.raises(st.CaptureError, match=counts + '.*on_nonfinite="drop"'):
            st.Activations.of(frame, y)
        assert len(st.Activations.of(frame, y, on_nonfinite="drop")) == 196
        with pytest.raises(st.CaptureError, match=counts + r".*dropna\(\)"):
            distilled(
                lambda rows: rows["exp"], frame
            )  # before the function, which may refuse them in its own words
        with pytest.raises(st.CaptureError, match=r"\(3 in 'mass \(kg\)'\)"):
            st.Activations.of(y, frame["mass (kg)"])

    def test_columns_in_levels_and_arrays_with_fields(self) -> None:
        levels = pd.DataFrame({("a", "b"): [1.0, 2.0]})
        with pytest.raises(st.CaptureError, match="no plain name.*join"):
            st.Activations.of(levels, [1.0, 2.0])
        with pytest.raises(st.CaptureError, match=r"structured_to_unstructured.*variable_names=\['a'\]"):
            st.Activations.of(pd.DataFrame({"a": [1.0, 2.0]}).to_records(index=False), [1.0, 2.0])

    def test_nothing(self) -> None:
        frame = make_frame()
        with pytest.raises(st.CaptureError, match="X has no columns"):
            st.Activations.of(frame[[]], frame["n"])
        with pytest.raises(st.CaptureError, match="empty"):
            distilled(compute, frame[:0])

    @pytest.mark.parametrize("rows", [[[1.0, 2.0], [3.0, 4.0]], [1.0, 2.0], ((1, 2), (3, 4))])
    def test_rows_in_lists(self, rows: Any) -> None:
        with pytest.raises(st.CaptureError, match=r"numpy.array\(data\)"):
            distilled(lambda x: x[:, 0], rows)


def test_pandas_and_scikit_learn_are_not_imported_for_arrays() -> None:
    code = (
        "import sys, torch, symtorch_core as st; from symtorch_core.testing import ScriptedRegressor as S\n"
        "X = torch.rand(50, 1); r = st.distill((X, X), regressor=S(equations=('x0',)), progress=False)\n"
        "st.distill(lambda x: 2 * x, X.numpy(), regressor=S(equations=('x0',)), progress=False)\n"
        "print('pandas' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_measurements_in_a_frame_are_found_by_the_names_of_its_columns() -> None:
    frame = make_frame()
    law = 2 * frame["mass (kg)"] + 3 * frame["exp"] - frame["n"] + frame["flag"]
    result = st.distill((frame, law), regressor=LAW, select="accuracy", progress=False)
    simple = result.choose(complexity=result.front().complexities[0])
    turned = frame[["flag", "n", "exp", "mass (kg)"]]
    assert result.predict(turned)[:, 0] == pytest.approx(law.to_numpy(), abs=1e-9)
    assert simple.choose("accuracy", data=(turned, law.to_numpy())).chosen() == result.chosen()
    with pytest.raises(st.CaptureError, match="has no column 'exp'"):
        simple.choose("accuracy", data=(turned.drop(columns="exp"), law.to_numpy()))
