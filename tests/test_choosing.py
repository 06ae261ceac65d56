"""Choices after the search, the fidelity of every equation of a front, names of outputs, and predictions."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

import symtorch_core as st
from symtorch_core.events import OutputEvent, OutputFinished
from symtorch_core.results.choosing import Choice
from symtorch_core.search import ParetoFront
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_pca.reducer import PCAReducer

X = torch.rand(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
EQUATIONS = ("x0", "x0 + x1", "x0 + x1 + 0.5*x0*x1")
NAMES = ("alpha", "mid", "beta")


def block(x: torch.Tensor) -> torch.Tensor:
    """The law of each output: a + b + ab/2, nothing to learn, and -2a."""
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a + b + 0.5 * a * b, torch.zeros_like(a), -2 * a + 0.1 * b], dim=1)


def found(**options: Any) -> st.Distillation:
    settings = {
        "regressor": ScriptedRegressor(equations=EQUATIONS),
        "output_names": NAMES,
        "outputs": ["alpha", "beta"],
        "progress": False,
    }
    return st.distill(block, X, **{**settings, **options})


@pytest.fixture(scope="module")
def result() -> st.Distillation:
    return found()


def reduced(**options: Any) -> st.Distillation:
    """One equation for two outputs that are twice and three times the same."""

    def pair(x: torch.Tensor) -> torch.Tensor:
        return block(x)[:, :1] * torch.tensor([2.0, 3.0], dtype=x.dtype)

    return st.distill(
        pair,
        X,
        regressor=ScriptedRegressor(equations=EQUATIONS),
        reducer=PCAReducer(k_out=1),
        output_names=["alpha", "beta"],
        progress=False,
        **options,
    )


# -- the fidelity of every equation ---------------------------------------------------------


@pytest.mark.parametrize("weights", [None, torch.linspace(0, 1, 200)])
def test_every_equation_has_its_own_fidelity(weights: torch.Tensor | None) -> None:
    result = found(weights=weights)
    for position, front in enumerate(result.fronts):
        for candidate in front:
            for rows, judged in (
                (result.train, candidate.fidelity.train),
                (result.held_out, candidate.fidelity.held_out),
            ):
                y = rows.outputs[:, result.outputs[position]]
                part = result.choose({result.outputs[position]: candidate.complexity})
                prediction = part.predict(rows.inputs)[:, position]
                assert judged.rows == len(rows)
                assert judged.r2 == pytest.approx(
                    r2_score(y, prediction, sample_weight=rows.weights), abs=1e-9
                )
                assert judged.max_error == pytest.approx(float((y - prediction).abs().max()), abs=1e-9)
    beyond = result.front("alpha").select("accuracy").fidelity.out_of_range
    assert beyond.r2 == pytest.approx(1)
    assert result.front("alpha")[0].fidelity.out_of_range.r2 < 0.9
    assert [f.held_out for f in result.fidelity] == [c.fidelity.held_out for c in result.chosen()]


def test_the_block_runs_out_of_range_once() -> None:
    calls = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return block(x)

    st.distill(counted, X, regressor=ScriptedRegressor(equations=EQUATIONS), progress=False)
    with_far = len(calls)
    calls.clear()
    st.distill(
        counted, X, regressor=ScriptedRegressor(equations=EQUATIONS), out_of_range=False, progress=False
    )
    assert with_far == len(calls) + 1


def test_behind_a_reducer_an_equation_is_judged_on_the_reduced_column() -> None:
    result = reduced()
    (front,) = result.fronts
    law = front.select("accuracy")
    assert law.fidelity.train.r2 == law.fidelity.held_out.r2 == pytest.approx(1)
    assert law.fidelity.out_of_range.r2 == pytest.approx(1)  # the block's outputs there, projected
    rows = result.held_out
    Z = result.reduction.reduce_inputs(rows.inputs)
    target = result.reduction.reduce_targets(rows.outputs, Z)[:, 0]
    simple = front[1]
    surrogate = result.surrogate(complexity=simple.complexity)
    value = surrogate.reduction.reduce_targets(surrogate.predict(rows.inputs), Z)[:, 0]
    assert simple.fidelity.held_out.r2 == pytest.approx(r2_score(target, value))


def test_the_table_and_the_file_have_it(result: st.Distillation, tmp_path: Path) -> None:
    result.save(tmp_path / "r.json")
    again = st.Distillation.load(tmp_path / "r.json")
    assert [[c.fidelity for c in front] for front in again.fronts[:1]] == [
        [c.fidelity for c in front] for front in result.fronts[:1]
    ]
    pytest.importorskip("pandas")
    frame = result.to_frame()
    assert frame["r2_held_out"].tolist() == [c.fidelity.held_out.r2 for f in result.fronts for c in f]
    assert frame["r2_out_of_range"].notna().all()
    assert frame[frame["chosen"]]["complexity"].tolist() == [c.complexity for c in result.chosen()]
    pytest.importorskip("matplotlib")
    page = result.report(tmp_path / "page.html").read_text()
    for candidate in result.front("alpha"):
        assert f"{candidate.fidelity.out_of_range.r2:.5f}" in page


# -- choosing -------------------------------------------------------------------------------


def test_each_way_to_choose(result: st.Distillation) -> None:
    first, last = result.front("alpha"), result.front("beta")
    sizes = [first.complexities[1], last.complexities[0]]
    for choice in (
        result.choose(complexity=sizes),
        result.choose(sizes),
        result.choose(np.array(sizes)),
        result.choose({"alpha": sizes[0], 2: sizes[1]}),
        result.choose(lambda front: front[1] if front is first else front.complexities[0]),
        result.choose("accuracy", complexity={"alpha": sizes[0], "beta": sizes[1]}),
        result.choose([first[1], last[0]]),
    ):
        assert choice.chosen() == (first[1], last[0])
        assert [entry.held_out for entry in choice.fidelity] == [
            first[1].fidelity.held_out,
            last[0].fidelity.held_out,
        ]
        assert [entry.linear for entry in choice.fidelity] == [entry.linear for entry in result.fidelity]
    partly = result.choose("accuracy").choose({"beta": last.complexities[0]})
    assert partly.chosen() == (first[-1], last[0])
    assert partly.choices == (
        Choice(first[-1].complexity, "accuracy"),
        Choice(last[0].complexity, "complexity"),
    )
    assert partly.select == "accuracy and complexity"
    assert result.choose(lambda front: front[0]).select == "own choice"
    assert result.choose("accuracy").select == "accuracy"
    assert result.choose({"alpha": "best", "beta": "best"}).select == "best"
    assert result.select == "knee"  # the result itself is as it was


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (None, {}, "choose takes a rule"),
        ({}, {}, "the choice is empty: name at least one of alpha, beta"),
        ([], {}, r"0 choices for 2 equations \(alpha, beta\)"),
        (None, {"complexity": [3]}, r"1 choices for 2 equations \(alpha, beta\): give one for each"),
        ("lucky", {}, "unknown rule 'lucky'"),
        ({"alfa": 3}, {}, r"no equation 'alfa'. Did you mean 'alpha'\? There are: 0 \(alpha\), 2 \(beta\)"),
        ({1: 3}, {}, r"no equation 1; there are: 0 \(alpha\), 2 \(beta\)"),
        ({True: 3}, {}, "must be a whole number, got True"),
        ({"beta": 3, 2: 1}, {}, "'beta' is named twice"),
        ({"beta": 99}, {}, r"equation 2 \(beta\): no equation of complexity 99 .*there are: 1"),
        ({"beta": True}, {}, r"equation 2 \(beta\): .*not True"),
        ({"beta": 3.0}, {}, r"equation 2 \(beta\): .*not 3.0"),
        (3.0, {}, "not 3.0"),
        (True, {}, "not True"),
        (None, {"complexity": "best"}, "a rule is given without complexity="),
        ("best", {"complexity": 3}, "give a rule or complexity=, not both"),
        (lambda front: None, {}, "not None"),
        (lambda front: "best", {}, "not 'best'"),
        (lambda front: replace(front[0], complexity=77), {}, "is not on the front; there are: "),
        ({3, 5}, {}, "cannot choose by"),
    ],
)
def test_choices_that_are_refused(
    result: st.Distillation, rule: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(st.SelectionError, match=message):
        result.choose(rule, **options)
    if rule is not None or options:  # the same words, in the same ways
        block_of = st.SymbolicModel(Law()).adopt(result)
        with pytest.raises(st.SelectionError, match=message):
            block_of.switch_to_symbolic(select=rule, **options)
        assert block_of.mode == "block"


class Law(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return block(x)


def test_all_views_and_files_follow(result: st.Distillation, tmp_path: Path) -> None:
    other = result.choose({"alpha": result.front("alpha").complexities[1]})
    assert str(other.equations()["alpha"]) == "x0 + x1"
    assert other.latex().startswith(r"\alpha = x_{0} + x_{1}")
    assert "chosen by 'complexity and knee'" in str(other)
    written = runpy.run_path(str(other.export(tmp_path / "law.py")))["equations"](X.numpy())
    np.testing.assert_allclose(written[:, 0], X.sum(1))
    other.save(tmp_path / "law.json")
    again = st.Distillation.load(tmp_path / "law.json")
    assert again.choices == other.choices
    assert again.fidelity[0] == other.fidelity[0]
    torch.testing.assert_close(again.predict(X)[:, 0], X.sum(1))
    torch.testing.assert_close(other.surrogate()(X)[:, 0], X.sum(1))
    model = st.SymbolicModel(Law()).adopt(again).switch_to_symbolic()
    torch.testing.assert_close(model(X)[:, 0], X.sum(1))
    torch.testing.assert_close(model(X)[:, 1], block(X)[:, 1])  # not distilled, stays neural


def test_a_choice_made_after_loading_is_judged_as_before(result: st.Distillation, tmp_path: Path) -> None:
    result.save(tmp_path / "law.json")
    again = st.Distillation.load(tmp_path / "law.json").choose(complexity=1)
    assert again.fidelity == result.choose(complexity=1).fidelity  # out of range too, without the block


def test_behind_a_reducer_the_outputs_are_judged_anew(tmp_path: Path) -> None:
    result = reduced()
    size = result.front("f0").complexities[1]
    changed = result.choose({"f0": size})
    rows = result.held_out
    expected = r2_score(
        rows.outputs, changed.predict(rows.inputs), multioutput="raw_values", sample_weight=rows.weights
    )
    assert [f.held_out.r2 for f in changed.fidelity] == pytest.approx(list(expected))
    assert [f.out_of_range for f in changed.fidelity] == [None, None]
    assert result.choose("score").fidelity == result.fidelity  # the same choice keeps all
    result.save(tmp_path / "law.json")
    again = st.Distillation.load(tmp_path / "law.json").choose({0: size})
    assert [f.train for f in again.fidelity] == [None, None]
    assert [f.held_out.r2 for f in again.fidelity] == pytest.approx(list(expected))
    bare = result.without_rows().choose({"f0": size})
    assert [f.held_out for f in bare.fidelity] == [None, None]
    assert [f.linear for f in bare.fidelity] == [f.linear for f in result.fidelity]
    assert "alpha" in str(bare)
    assert "<mi>f</mi>" in bare._repr_html_()


def test_measures_of_the_whole_model_belong_to_their_choice() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), Law()).double()
    wrapped = st.wrap(model, "1")
    result = wrapped.distill(
        X,
        parent=model,
        metric=lambda _: 1.0,
        regressor=ScriptedRegressor(equations=EQUATIONS),
        progress=False,
    )
    assert result.model_fidelity is not None
    same = result.choose(complexity=[c.complexity for c in result.chosen()])
    assert same.model_fidelity == result.model_fidelity
    assert same.task_metric == result.task_metric
    other = result.choose({0: 1})
    assert other.model_fidelity is other.task_metric is None


def test_an_empty_front_stays_empty(result: st.Distillation) -> None:
    hollow = replace(
        result,
        fronts=(ParetoFront([]), result.fronts[1]),
        choices=(Choice(None, "score"), result.choices[1]),
    )
    with pytest.raises(st.SelectionError, match=r"equation 0 \(alpha\): the front is empty"):
        hollow.choose("best")


def test_measurements_decide_instead_of_the_network() -> None:
    """The network has a ripple that the law lacks: beside the network the ripple wins, beside the data the law does."""
    result = found(outputs=["alpha"]).choose("accuracy")
    Y = X.sum(1, keepdim=True)
    assert "x0*x1" in str(result.chosen()[0])
    for data in (
        (X, Y),
        (X.numpy(), torch.cat([Y, Y * 7, Y * 9], dim=1)),
        st.Activations.of(X, Y),
    ):
        for rule in ("accuracy", "validation", "simplest", lambda front: front[-1], {"alpha": "accuracy"}):
            chosen = result.choose(rule, data=data)
            assert str(chosen.chosen()[0]) == "x0 + x1"
            assert chosen.fronts == result.fronts
            assert chosen.fidelity[0].held_out == result.front()[1].fidelity.held_out  # beside the block
    with pytest.raises(st.SelectionError, match="leave it out"):
        result.choose(complexity=1, data=(X, Y))
    with pytest.raises(st.CaptureError, match="the data have 2 outputs: give one for each of the block's 3"):
        result.choose("best", data=(X, X))
    with pytest.raises(st.CaptureError, match="take 2 inputs"):
        result.choose("best", data=(X[:, :1], Y))
    with pytest.raises(st.CaptureError, match="a pair"):
        result.choose("best", data=X)
    with pytest.raises(st.SelectionError, match="'pca' mixes outputs"):
        reduced().choose("best", data=(X, X))


def test_a_result_that_could_not_be_measured_is_shown(
    result: st.Distillation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("symtorch_core.pipeline.measures.add_fidelity", lambda *_: 1 / 0)
        with pytest.warns(RuntimeWarning, match="their fidelity could not be measured"):
            bare = found()
    assert bare.chosen() == result.chosen()
    assert "alpha" in str(bare)
    assert "&#945;" in bare._repr_html_()
    assert "R²" not in bare._repr_html_() + repr(bare)  # nothing is said of what was not measured
    pytest.importorskip("matplotlib")
    assert "alpha" in bare.report(tmp_path / "page.html").read_text()
    other = bare.choose(complexity=1).fidelity  # measured on the rows in memory
    expected = [f.held_out.r2 for f in result.choose(complexity=1).fidelity]
    assert [f.held_out.r2 for f in other] == pytest.approx(expected)


# -- names and numbers ----------------------------------------------------------------------


def test_outputs_have_the_numbers_of_the_block_and_their_names(result: st.Distillation) -> None:
    assert result.outputs == (0, 2)
    assert result.front(2) is result.front("beta") is result.fronts[1]
    assert result.front() is result.front(0)
    with pytest.raises(
        st.SelectionError, match=r"there is no equation 1; there are: 0 \(alpha\), 2 \(beta\)"
    ):
        result.front(1)
    model = st.SymbolicModel(Law()).adopt(result)
    assert model.front("beta") == result.front(2)
    simple = model.get_symbolic_function("beta", complexity=1)
    torch.testing.assert_close(simple(X), result.choose({"beta": 1}).predict(X)[:, 1])
    torch.testing.assert_close(model.get_symbolic_function(2)(X), result.predict(X)[:, 1])
    model.switch_to_symbolic(outputs=["beta"], complexity={"beta": 1})
    assert model.symbolic_outputs == (2,)
    torch.testing.assert_close(model(X)[:, 2], simple(X))
    with pytest.raises(st.SwitchError, match=r"no output 'mid'; there are: 0 \(alpha\), 2 \(beta\)"):
        model.switch_to_symbolic(outputs=["mid"])


def test_plots_take_names(result: st.Distillation) -> None:
    pytest.importorskip("matplotlib")
    for output in (2, "beta"):
        (line, *_) = result.plot("fit", output).get_lines()
        torch.testing.assert_close(torch.tensor(line.get_xdata()), result.held_out.outputs[:, 2])
        assert result.plot("front", output).get_lines()
        assert st.plot_slice(result, block, "x0", output).get_ylabel() == "beta"
    with pytest.raises(st.SelectionError, match="there is no output 1"):
        result.plot("residuals", 1)
    behind = reduced()
    assert behind.plot("front", "f0").get_lines()
    assert behind.plot("fit", "beta").get_xlabel() == "beta: block"
    with pytest.raises(st.SelectionError, match="no equation 'beta'"):
        behind.plot("front", "beta")


def test_events_have_the_numbers_of_the_block() -> None:
    events: list[Any] = []
    found(callbacks=[events.append])
    assert [e.output for e in events if isinstance(e, OutputFinished)] == [0, 2]
    assert {e.output for e in events if isinstance(e, OutputEvent)} == {0, 2}
    events.clear()
    reduced(callbacks=[events.append])
    assert {e.output for e in events if isinstance(e, OutputEvent)} == {0}


def test_a_loss_that_overflows_names_the_column_of_the_block() -> None:
    huge = torch.cat([X[:, :1], X[:, :1] * 1e200], dim=1)
    with pytest.raises(st.SearchError, match="of output 1, whose values"):
        st.distill((X, huge), regressor=ScriptedRegressor(equations=("x0",)), outputs=[1], progress=False)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["gamma"], "no output 'gamma'"),
        (["alpha", "alpha"], "different"),
        ("alpha", r"takes a list of output columns or their names, like \['alpha'\]"),
        (["alpha", 0], "different"),
    ],
)
def test_names_of_outputs_that_are_refused(outputs: Any, message: str) -> None:
    with pytest.raises(st.SearchError, match=message):
        found(outputs=outputs)


# -- predictions ----------------------------------------------------------------------------


def test_arrays_give_arrays_and_tensors_tensors(result: st.Distillation) -> None:
    expected = result.surrogate()(X)
    array = result.predict(X.numpy())
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(result(X.numpy().tolist()), expected)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        values = result(X.to(dtype))
        assert isinstance(values, torch.Tensor)
        assert (values.dtype, values.shape) == (dtype, (200, 2))
    assert result(X.float().numpy()).dtype == np.float32
    assert result(torch.zeros(3, 4, 2)).shape == (3, 4, 2)
    assert not result(X.clone().requires_grad_()).requires_grad
    whole = result.predict(np.array([[1, 2]]))
    np.testing.assert_allclose(whole, result.predict([[1.0, 2.0]]), rtol=1e-6)
    if torch.cuda.is_available():
        assert result(X.cuda()).is_cuda


def test_frames_are_matched_by_name(result: st.Distillation) -> None:
    pandas = pytest.importorskip("pandas")
    expected = result.predict(X)
    plain = pandas.DataFrame(X.numpy(), columns=["x0", "x1"])
    for frame in (
        plain,
        plain[["x1", "x0"]],
        plain.assign(other="text")[["other", "x1", "x0"]],
        plain.set_axis(["p", "q"], axis=1),
        plain.set_axis([0, 1], axis=1),
    ):
        np.testing.assert_allclose(result.predict(frame), expected)
    with pytest.raises(st.CaptureError, match=r"X has no column 'x1'. Did you mean 'x_1'\?"):
        result.predict(plain.set_axis(["x0", "x_1"], axis=1))
    with pytest.raises(st.CaptureError, match="two columns"):
        result.predict(pandas.concat([plain, plain], axis=1))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1.0, 2.0], r"got 2 numbers: reshape a single row with X.reshape\(1, -1\)"),
        (torch.zeros(2), r"reshape"),
        (3.0, "a single number"),
        (np.zeros((4, 3)), r"take 2 inputs \(x0, x1\), X has 3 columns"),
        (np.zeros((4, 2), dtype=complex), "complex"),
        (torch.zeros(4, 2, dtype=torch.complex64), "complex"),
        ([["a", "b"]], "not an array of numbers"),
    ],
)
def test_rows_that_are_refused(result: st.Distillation, rows: Any, message: str) -> None:
    for predict in (result.predict, result):
        with pytest.raises(st.CaptureError, match=message):
            predict(rows)
