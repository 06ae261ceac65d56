"""Plots, notebook representations and logs."""

from __future__ import annotations

import json
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import symtorch_core as st
from symtorch_core import cli
from symtorch_core.events.logs import jsonl_log, tensorboard_log
from symtorch_core.events.records import OutputImproved, StageStarted
from symtorch_core.expressions import parse
from symtorch_core.results.choosing import Choice
from symtorch_core.search.fidelity import EquationFidelity, Fidelity
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.views import plots
from symtorch_core.views.page import build_page
from symtorch_core.views.page_fronts import build_equation_front, get_equation_rows
from symtorch_core.views.wording import describe_left_out
from symtorch_pca.reducer import PCAReducer

mpl.use("agg")
X = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 4 - 2


class Block(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([2 * torch.sin(x[:, 0]) + x[:, 1], x[:, 0] * x[:, 1]], dim=1)


@pytest.fixture(scope="module")
def result() -> st.Distillation:
    engine = ScriptedRegressor(equations=("2.0*x0", "2.0*sin(x0) + x1 + 0.1", "1.1*x0*x1"))
    return st.distill(Block(), X, regressor=engine, select="best", progress=False)


@pytest.fixture
def ax() -> Any:
    from matplotlib import pyplot

    axes = pyplot.subplots()[1]
    yield axes
    pyplot.close("all")


def test_fronts_fits_and_residuals_on_the_callers_axes(result: st.Distillation, ax: Any) -> None:
    assert result.plot("front", 0, ax) is ax
    assert result.front().plot(ax) is ax
    marks = next(line for line in ax.lines if line.get_label() == "rows of the fit")
    assert list(marks.get_xdata()) == list(result.front().complexities)


def test_a_fit_lies_on_the_diagonal_and_residuals_on_zero(result: st.Distillation, ax: Any) -> None:
    result.plot("fit", 1, ax)
    dots = ax.lines[0]
    assert dots.get_xdata() == pytest.approx(dots.get_ydata(), abs=1e-5)
    ax.clear()
    result.plot("residuals", 1, ax)
    assert abs(ax.lines[1].get_ydata()).max() < 1e-5


def test_new_axes_are_made_where_none_are_given(result: st.Distillation) -> None:
    from matplotlib import pyplot

    assert result.plot().get_xlabel() == "complexity"
    pyplot.close("all")


def test_slices_along_one_input_and_two(result: st.Distillation, ax: Any) -> None:
    plots.plot_slice(result, Block(), "x0", at={"x1": 1.0}, ax=ax)
    block, equations = ax.lines
    assert block.get_ydata() == pytest.approx(
        2 * torch.sin(torch.tensor(block.get_xdata())).numpy() + 1, abs=1e-5
    )
    assert equations.get_ydata() == pytest.approx(block.get_ydata(), abs=1e-4)
    plots.plot_slice(result, Block(), ("x0", "x1"), output=1)
    with pytest.raises(st.SelectionError, match="no 'x7'"):
        plots.plot_slice(result, Block(), "x7")
    with pytest.raises(st.SelectionError, match="one or two"):
        plots.plot_slice(result, Block(), ("x0", "x1", "x0"))


def test_what_cannot_be_drawn(result: st.Distillation) -> None:
    with pytest.raises(
        st.SelectionError, match="unknown kind of plot 'pie'; there are: front, fit, residuals"
    ):
        result.plot("pie")
    with pytest.raises(st.SelectionError, match="no output 5"):
        result.plot("fit", 5)
    with pytest.raises(st.SelectionError, match="no rows in memory"):
        replace(result, train=None, held_out=None).plot("fit")


def test_without_matplotlib_it_says_so(result: st.Distillation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(st.MissingDependencyError, match="pip install matplotlib"):
        result.plot()


def test_notebooks_show_tables_and_formulas(result: st.Distillation) -> None:
    html = result._repr_html_()
    assert html.count("<mi>sin</mi>") == 1  # the chosen equations only, not the fronts
    assert html.count("R² 1.00000 on held-out rows") == 2
    assert "<table" not in html
    assert r"\sin" in result._repr_latex_()
    assert result.front()._repr_html_().count("<tr") == 1 + len(result.front())
    assert result.front()._repr_latex_().count(r"\\") == len(result.front()) - 1
    assert result.chosen()[0]._repr_latex_().startswith(r"$\displaystyle ")
    block = st.SymbolicModel(Block(), name="<b>")
    assert "&lt;b&gt;" in block._repr_html_()
    assert block._repr_latex_() == ""
    block.distill(X, regressor=ScriptedRegressor(equations=("x0",)), progress=False)
    assert "<math" in block._repr_html_()


def test_a_result_is_short_where_it_is_only_named(result: st.Distillation) -> None:
    lines = repr(result).splitlines()
    assert lines[0] == "Equations of Block, found by scripted"
    assert lines[1].startswith(f"  y0 = {result.chosen()[0]}  (R² 1.00000 on held-out rows, complexity ")
    assert len(lines) == 3


def test_plots_say_what_they_show_in_mathematics(result: st.Distillation, ax: Any) -> None:
    assert result.plot("front", 0, ax).get_title().startswith("$y_{0} = ")
    assert r"\sin" in ax.get_title()
    assert result.plot("fit", 1, ax).get_title().endswith("\nR² 1.00000 on held-out rows")
    ax.figure.canvas.draw()
    odd = replace(result, output_names=("50% of $x$", "a"), equation_names=("50% of $x$", "a"))
    assert odd.plot("residuals", 0, ax).get_title().startswith(r"50% of \$x\$ = ")
    ax.figure.canvas.draw()


def test_an_explorer_is_a_frame_that_reaches_nothing_outside(result: st.Distillation) -> None:
    explorer = replace(result, equation_names=('"><script>evil', "b")).explore()
    frame = explorer._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert 'sandbox="allow-scripts"' in frame
    assert frame.count("<") == 2  # the frame and its end
    assert explorer.html().count("<script") == 1
    assert repr(explorer) == f"Explorer({len(result.fronts[0])} equations; a notebook shows them)"
    with pytest.raises(st.SelectionError, match="no equation 2"):
        result.explore(2)


def test_a_low_r2_out_of_range_is_explained_where_it_is_high_within() -> None:
    def block(x: torch.Tensor) -> torch.Tensor:  # as a network that holds inside of [-2, 2] only
        return torch.stack([2 * x[:, 0].clamp(-2, 2) + x[:, 1].clamp(-2, 2), 2 * x[:, 0]], dim=1)

    engine = ScriptedRegressor(equations=("2.0*x0", "2.0*x0 + x1"))
    options: dict[str, Any] = {"select": "best", "progress": False, "regressor": engine}
    explained = "equation and block part for y0, though"
    result = st.distill(block, X, **options)
    assert explained in " ".join(str(result).split())
    assert explained in result._repr_html_()
    assert explained in build_page(result).html()
    assert "Beyond the range" not in str(st.distill(block, X / 2, **options))


def with_fronts(result: st.Distillation, name: str = "it's") -> st.Distillation:
    """The same result with a front that falls steeply beyond the first equation's choice, and one that does not."""
    steep, flat = (
        ParetoFront(
            Candidate(parse(text), complexity, loss, loss)
            for text, complexity, loss in zip(
                ("x0", "2*x0", "x0 + x1", "x1"), (1, 8, 12, 18), losses, strict=True
            )
        )
        for losses in ((50.0, 0.709, 0.0506, 0.045), (50.0, 0.709, 0.7, 0.6))
    )
    choices = (Choice(8, "complexity"),) * 2
    names = (name, "b")
    return replace(result, fronts=(steep, flat), choices=choices, equation_names=names, output_names=names)


def test_a_steep_fall_of_the_loss_beyond_the_choice_is_told(result: st.Distillation) -> None:
    found = with_fronts(result)
    line = "it's: at complexity 12, 4 more, the loss is 93 % lower: "
    assert describe_left_out(found) == {0: f"""{line}choose(complexity={{"it's": 12}})"""}
    html = found._repr_html_(), build_page(found).html()
    for shown in (" ".join(str(found).split()), *map(unescape, html)):
        assert shown.count(line) == 1
        assert shown.count("more, the loss is") == 1
    taken = found.choose(complexity={"it's": 12})
    assert describe_left_out(taken) == {}
    assert "more, the loss is" not in str(taken) + taken._repr_html_() + build_page(taken).html()


def test_what_to_take_is_named_so_that_it_can_be_taken(result: st.Distillation) -> None:
    for name in ("b", "n" * 300):  # the name of the other one, or too long to copy
        line = describe_left_out(with_fronts(result, name))[0]
        assert line.endswith("choose(complexity={0: 12})")
        assert len(line) < 150
    exact = ParetoFront([Candidate(parse("x0"), 1, 1.0, 1.0), Candidate(parse("x0*2"), 3, 1e-9, 1e-9)])
    choices = (Choice(1, "complexity"), result.choices[1])
    found = replace(result, fronts=(exact, result.fronts[1]), choices=choices)
    assert "2 more, the loss is over 99 % lower" in describe_left_out(found)[0]


def test_fidelity_is_that_of_the_search(result: st.Distillation) -> None:
    def judge(r2: float) -> Fidelity:
        return Fidelity(r2, 1 - r2, 0.0, 0.0, 60)

    known = EquationFidelity(judge(0.25), judge(0.5), judge(-0.125), judge(0.75))
    front = ParetoFront(replace(candidate, fidelity=known) for candidate in result.fronts[0])
    found = replace(result, fronts=(front, result.fronts[1]))
    point = build_equation_front(found, 0, get_equation_rows(found, 0)).points[0]
    assert point.r2 == "0.50000"
    assert point.facts[-3:] == (
        ("R², held-out rows", "0.50000"),
        ("R² out of range", "-0.12500"),
        ("R² against your data", "0.75000"),
    )
    chosen = list(found.fronts[0]).index(found.chosen()[0])
    unknown = ParetoFront(replace(candidate, fidelity=None) for candidate in front)
    measured = replace(result, fronts=(unknown, result.fronts[1]))
    point = build_equation_front(measured, 0, get_equation_rows(measured, 0)).points[chosen]
    assert point.r2 == "1.00000"
    assert point.facts[-1] == ("R², held-out rows", "1.00000")


def test_a_note_says_on_which_rows_even_when_they_are_gone(result: st.Distillation) -> None:
    assert repr(result.without_rows()) == repr(result)
    assert "R² 1.00000 on held-out rows" in repr(result)


def test_agreement_with_measurements_is_in_the_notes() -> None:
    Y = torch.stack([2 * X[:, 0], X[:, 1]], dim=1)
    options: dict[str, Any] = {"regressor": ScriptedRegressor(equations=("2.0*x0", "x1")), "progress": False}
    found = st.distill((X, Y), y_true=Y, **options)
    assert found._repr_html_().count("R² 1.00000 on held-out rows, R² 1.00000 against your data") == 2
    assert "R² against your data: y0 1.00000, y1 1.00000" in str(found)
    mixed = st.distill((X, Y), y_true=Y, reducer=PCAReducer(k_out=1), **options)
    assert not mixed.reduction.keeps_outputs
    assert mixed._repr_html_().count("R² against your data: y0 ") == 1


def test_a_block_is_called_what_its_owner_calls_it() -> None:
    class Pipeline:
        def predict(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1]

    def law(x: torch.Tensor) -> torch.Tensor:
        return x[:, :1]

    engine = ScriptedRegressor(equations=("x0",))
    for block, headline in (
        (Pipeline().predict, "Equation of Pipeline.predict"),
        (law, "Equation of law"),
        (lambda x: x[:, :1], "Equation of function"),
        (Block(), "Equations of Block"),
    ):
        page = build_page(st.distill(block, X, regressor=engine, progress=False))
        assert page.title == headline
    arrays = build_page(st.distill((X, X[:, :1]), regressor=engine, progress=False))
    assert arrays.title == "Equation"
    assert arrays.subtitle == "1 equation by scripted, 240 rows fitted, 60 held out"


def test_the_log_is_one_json_object_for_each_event(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with jsonl_log(path) as log:
        engine = ScriptedRegressor(equations=("2.0*x0",))
        st.distill((X, X[:, :1]), regressor=engine, callbacks=[log], progress=False)
        log(OutputImproved(0, "x0", 0.5))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = [line["event"] for line in lines]
    assert names[-1] == "OutputImproved"
    assert {"StageStarted", "OutputFinished", "StageFinished"} <= set(names)
    finished = next(line for line in lines if line["event"] == "OutputFinished")
    assert finished["front"]["equations"][0]["equation"] == "x0"
    assert [line["elapsed"] for line in lines] == sorted(line["elapsed"] for line in lines)
    with jsonl_log(path) as log:
        log(StageStarted("again"))
    assert len(path.read_text().splitlines()) == len(lines) + 1


def test_tensorboard_gets_losses_and_equations(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard_log(tmp_path) as log:
        for loss in (0.5, 0.7, 0.1):
            log(OutputImproved(3, f"x0 + {loss}", loss))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [entry.value for entry in events.Scalars("loss/output 3")] == pytest.approx([0.5, 0.1])


def test_the_command_shows_reports_and_exports(result: st.Distillation, tmp_path: Path) -> None:
    saved, page, code = tmp_path / "r.json", tmp_path / "r.html", tmp_path / "r.py"
    result.save(saved)
    run = CliRunner()
    shown = run.invoke(cli.app, ["show", str(saved)])
    assert shown.exit_code == 0
    assert "R2 linear" in shown.output
    assert run.invoke(cli.app, ["report", str(saved), "-o", str(page), "--title", "Mine"]).exit_code == 0
    assert "<title>Mine</title>" in page.read_text()
    assert run.invoke(cli.app, ["export", str(saved), "-o", str(code)]).exit_code == 0
    assert "def equations" in code.read_text()
    missing = run.invoke(cli.app, ["show", str(tmp_path / "none.json")])
    assert isinstance(missing.exception, st.FileFormatError)
