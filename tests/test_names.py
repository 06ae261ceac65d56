"""Names are text: whatever an output is called, every page, table, plot, program and terminal shows it as it is."""

from __future__ import annotations

import csv
import html.parser
import io
import math
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from rich.console import Console

import symtorch_core as st
from symtorch_core.components.escaping import (
    escape_comment,
    escape_csv,
    escape_html,
    escape_latex_math,
    escape_latex_text,
    escape_plot,
    make_python_names,
    show_hidden,
)
from symtorch_core.events import StageStarted, StageTold, progress_bars
from symtorch_core.exports import Deployed, to_c, to_python
from symtorch_core.expressions import Variable, parse
from symtorch_core.expressions.printing import name_to_latex, to_latex
from symtorch_core.results.choosing import choose_by_rule
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.studies import Claim, Drawing, Section, StudyReport, Table
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.views.page_parts import Equation, Page, render_math, render_name

TEXTS = (
    r"\xi", "$x_$", "$", "a\\$b", 'a"b', "a'b", "*/", "/*", "*/ int evil; /*", '"""', "'''", "a\nb", "a\r\nb", "a\tb",
    "\x1b[31mred\x1b[0m", "\x07", "a\0b", "\x9b31m", "=1+1", "+1+1", "-1+1", "@SUM(A1)", " =1",
    "<script>alert(1)</script>",
    "&amp;", "]]>", "{{ 7*7 }}", "{% raw %}", "{0}", "%s", "[bold]x[/bold]", "[/]", ":smile:", "α", "ü", "名前",
    "\U0001f600",
    "\u202egnp.exe", "a\u2028b", "e\u0301", "x" * 3000, "lambda", "np", "def", "double", "int", "main", "sin",
    "_", "_x", "x_", "x__y", "^", "~", "50%", "#", "a_b", "??/", "\\", "\\\\", "coding: utf-7", "a b", ".", "`", "```",
)  # fmt: skip
IDENTIFIERS = (
    "lambda", "np", "def", "None", "math", "double", "int", "main", "sin", "pi", "e", "E", "I", "_", "__", "x_", "α",
    "ü",
    "e\u0301", "ﬁ", "fi", "名前", "v", "v0", "x", "z", "what", "℘", "a·b", "n" * 300,
)  # fmt: skip
X = torch.rand(60, len(IDENTIFIERS), generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
compiler = shutil.which("cc") or shutil.which("gcc")


@pytest.fixture(scope="module")
def result() -> st.Distillation:
    """An output for each text, an input for each identifier; the first equation has them all."""
    found = distilled(TEXTS, IDENTIFIERS)
    total = " + ".join(f"{number}.5*sin({name})" for number, name in enumerate(IDENTIFIERS, 1))
    whole = ParetoFront([Candidate(parse(f"exp(0.01*({total}))*lambda", IDENTIFIERS), 9, 1.0, 1.0)])
    fronts = (whole, *found.fronts[1:])
    return replace(found, fronts=fronts, choices=choose_by_rule(fronts, "accuracy"))


def distilled(outputs: Sequence[str], inputs: Sequence[str]) -> st.Distillation:
    return st.distill(
        (X[:, : len(inputs)], X[:, :1] + torch.arange(len(outputs))),
        regressor=ScriptedRegressor(equations=(inputs[0],)),
        variable_names=inputs,
        output_names=outputs,
        select="accuracy",
        progress=False,
    )


def shown(text: str) -> str:
    """Text with its hidden characters written out, and no others changed."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


@final
class Reader(html.parser.HTMLParser):
    """Tags and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read_page(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@pytest.mark.parametrize("name", TEXTS, ids=ascii)
def test_terminals_get_no_control_characters(name: str) -> None:
    assert show_hidden(name) == shown(name)
    assert show_hidden(name).isprintable()
    show_hidden(name).encode()


def test_a_result_is_shown_in_a_terminal(result: st.Distillation) -> None:
    assert all(c.isprintable() or c == "\n" for c in str(result))
    names = ("[bold]x[/bold]", "[/]", ":smile:", "a\nb", "\x1b[31mred\x1b[0m", "\u202egnp.exe")
    lines = str(distilled(names, ("lambda", "np"))).splitlines()
    assert {shown(name) for name in names} <= {line.strip() for line in lines}
    assert result.equations().keys() == set(TEXTS)


def test_progress_bars_show_text() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with progress_bars(console) as show:
        show(StageStarted("fit [bold]\x07:smile:"))
        show(StageTold("fit [bold]\x07:smile:", "a\\[red]\x1b]0;title\x07"))
    written = console.file.getvalue()
    assert "fit [bold]\\x07:smile:" in written
    assert "a\\[red]\\x1b]0;title" in written
    assert "\x07" not in written


def test_the_python_module_runs_under_any_names(result: st.Distillation, tmp_path: Path) -> None:
    path = result.export(tmp_path / "law.py")
    np.save(tmp_path / "x.npy", X.numpy())
    code = (
        "import runpy, numpy as np; m = runpy.run_path('law.py'); assert 'evil' not in m; "
        "np.save('y.npy', m['equations'](np.load('x.npy')))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), result.surrogate()(X).numpy(), rtol=1e-10)
    assert r"# Outputs: \xi, $x_$" in path.read_text(encoding="utf-8")


@pytest.mark.skipif(compiler is None, reason="no C compiler on this machine")
def test_the_c_file_compiles_under_any_names(result: st.Distillation, tmp_path: Path) -> None:
    assert compiler is not None
    path = result.export(tmp_path / "law.c")
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-shared", "-fPIC"]
    subprocess.run(
        [compiler, *flags, "-o", tmp_path / "law.so", path, "-lm"], check=True, capture_output=True
    )
    symbols = subprocess.run(["nm", tmp_path / "law.so"], check=True, capture_output=True, text=True).stdout
    assert " T equations" in symbols
    assert "evil" not in symbols


@pytest.mark.parametrize("name", TEXTS, ids=ascii)
def test_a_name_stays_in_its_comment(name: str) -> None:
    comment = escape_comment(name)
    assert comment.isprintable()
    assert "*/" not in comment
    assert "/*" not in comment
    assert "??/" not in comment  # C's old name for a backslash
    deployed = Deployed(("x",), (), ("x",), (Variable("x"),), (name,))
    compile(to_python(deployed), "law.py", "exec")
    assert to_c(deployed).count("*/") == to_c(Deployed(("x",), (), ("x",), (Variable("x"),), ("y",))).count(
        "*/"
    )


@pytest.mark.parametrize("name", TEXTS, ids=ascii)
def test_latex_shows_a_name_and_obeys_none(name: str) -> None:
    commands = (
        r"\\(text(backslash|asciitilde|asciicircum)|backslash|sim|wedge|prime|math[tr][tm]|alpha|[&%$#_{} ])"
    )
    for text in (escape_latex_text(name), escape_latex_math(name), name_to_latex(name)):
        bare = re.sub(commands, "", text)
        if text != name_to_latex(name) or text == escape_latex_math(name):
            assert not re.search(r"[\\&%$#_^~]", bare), text
        braces = re.sub(r"\\[{}]", "", text)
        assert braces.count("{") == braces.count("}")


def test_names_in_formulas_have_the_usual_form_only_if_they_have_no_other() -> None:
    assert name_to_latex("x_12") == "x_{12}"
    assert name_to_latex("alpha") == r"\alpha"
    assert name_to_latex("θ_1") == r"\theta_{1}"
    assert name_to_latex("mass") == r"\mathrm{mass}"
    assert name_to_latex("v_max") == r"v_{\mathrm{max}}"
    assert name_to_latex("what") == r"\mathtt{what}"  # no w with a hat
    assert name_to_latex("_") == r"\mathtt{\_}"
    assert name_to_latex(r"\xi") == r"\mathtt{\backslash{}xi}"
    assert name_to_latex("$x_$") == r"\mathtt{\$x\_\$}"


def test_words_in_products_stay_apart() -> None:
    assert to_latex(parse("2*mass*theta")) == r"2 \, \mathrm{mass} \, \theta"
    assert to_latex(parse("2*x*y")) == "2 x y"
    product = ET.fromstring(render_math(parse("mass*theta")).replace("&InvisibleTimes;", "\u2062"))
    (row,) = product
    assert [child.text for child in row] == ["mass", "\u2062", "θ"]
    assert row[1].attrib["rspace"] != "0"


def test_a_name_alone_is_typeset_like_a_variable() -> None:
    for text, inner in (
        ("theta", "<mi>&#952;</mi>"),
        ("mass", "<mi>mass</mi>"),
        ("a<b", "<mtext>a&lt;b</mtext>"),
    ):
        assert inner in render_name(text)
    assert "<msub>" in render_name("v_max")


def test_latex_of_a_result(result: st.Distillation, tmp_path: Path) -> None:
    lines = result.latex().splitlines()
    assert len(lines) == len(TEXTS)
    assert lines[0].startswith(r"\mathtt{\backslash{}xi} = ")
    table = result.export(tmp_path / "law.tex").read_text(encoding="utf-8")
    assert table.count(r"\multicolumn") == len(TEXTS)
    assert len(table.splitlines()) == 4 + 2 * len(TEXTS) + sum(map(len, result.fronts)) + 1


def test_pages_and_notebooks_show_names(result: st.Distillation) -> None:
    pytest.importorskip("matplotlib")
    plain = read_page(Page("t", "s", (Section("h", (Table(("a",), (("b",),)),)),)).html())
    hostile = read_page(
        Page(
            TEXTS[0], TEXTS[1], tuple(Section(n, (Table((n,), ((n,),), n),)) for n in TEXTS), TEXTS[2]
        ).html()
    )
    assert hostile.tags.count("script") == plain.tags.count("script")
    for name in TEXTS:
        assert sum(text == escape_html(name) for text in hostile.texts) >= 4, name
    notebook = read_page(result._repr_html_())
    assert "script" not in notebook.tags
    assert all(c.isprintable() or c in "\n\t\u2062" for c in "".join(notebook.texts))  # and signs of products


def test_a_report_is_one_page_of_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    few = st.distill(
        (X[:, :2], X[:, :1] + torch.arange(6)),
        regressor=ScriptedRegressor(equations=("lambda", "lambda + np")),
        variable_names=["lambda", "np"],
        output_names=[
            "$x_$",
            "a\0b\x1b[31m",
            "<script>alert(1)</script>",
            "\u202e",
            "\U0001f600",
            "x" * 3000,
        ],
        progress=False,
    )
    page = few.report(tmp_path / "page.html", title="</title><b>\x07").read_text(encoding="utf-8")
    assert read_page(page).tags.count("script") == 1
    assert all(c.isprintable() or c in "\n\t\u2062" for c in page)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(
            svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
        )  # well-formed


def test_python_on_a_page_is_python() -> None:
    equation = Equation.of("y", parse("lambda*np + ﬁ*fi"))
    assert equation.python == "((lambda_ * np_) + (fi * fi_))"
    assert equation.sympy == "fi*fi_ + lambda_*np_"
    assert make_python_names(["a", "a_", "def"], taken=["a"]) == {"a": "a_", "a_": "a__", "def": "def_"}


@pytest.mark.parametrize("name", TEXTS, ids=ascii)
def test_plots_are_drawn(name: str) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.plot([0, 1], [0, 1], label=escape_plot(name))
    assert len(ax.get_legend_handles_labels()[1]) == 1  # matplotlib leaves out labels with a leading _
    label = ax.set_xlabel(escape_plot(name))
    assert label._preprocess_math(label.get_text())[1] is False
    if name.isascii():
        canvas.draw()


def test_a_result_is_drawn(result: st.Distillation) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot

    ax = result.plot("fit", TEXTS.index("$x_$"))
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == r"\$x_\$: block"
    pyplot.close("all")


@pytest.mark.parametrize("name", TEXTS, ids=ascii)
def test_no_cell_is_a_formula(name: str) -> None:
    cell = escape_csv(name)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert cell.lstrip("'") == show_hidden(name).lstrip("'")


def test_numbers_stay_numbers_in_csv() -> None:
    for number in ("-1.5", "+3", "-1e-30", "-inf", "-5%", "0.25"):
        assert escape_csv(number) == number
    assert escape_csv("-x0 + 1") == "'-x0 + 1"


def test_a_study_writes_and_shows_names(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table = Table(("name", "=HYPERLINK(1)"), tuple((name, "-1.5") for name in TEXTS), "caption [bold]")
    report = StudyReport(
        "hostile",
        TEXTS[0],
        claims=[Claim("=1+1", "[red]", "\x1b[31m", True)],
        tables={"names": table},
        drawings={"names": Drawing(lambda ax: ax.plot([1, 2]), caption="$x_$ \x07")},
        figures={"name": "\ud800"},
    )
    report.write(tmp_path)
    with (tmp_path / "names.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "'=HYPERLINK(1)"]
    assert [row[0] for row in rows[1:]] == [escape_csv(name) for name in TEXTS]
    assert {row[1] for row in rows[1:]} == {"-1.5"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figures.json", "names.csv", "names.png", "report.html",
    ]  # fmt: skip
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(report)
    assert all(c.isprintable() or c == "\n" for c in console.file.getvalue())
    assert "[red]" in console.file.getvalue()


def test_every_name_that_is_admitted_is_read_back(result: st.Distillation, tmp_path: Path) -> None:
    again = st.Distillation.load(result.export(tmp_path / "law.json"))
    assert again.output_names == TEXTS
    assert again.transforms.input_names == IDENTIFIERS
    assert [str(one) for one in again.fronts[0]] == [str(one) for one in result.fronts[0]]
    assert math.isfinite(again.fidelity[0].train.r2)


def test_half_a_character_is_refused_before_any_work() -> None:
    for options in ({"output_names": ["\ud800"]}, {"variable_names": ["x\ud800"]}):
        with pytest.raises(st.SearchError, match="half of a character"):
            st.distill((X[:, :1], X[:, :1]), progress=False, **options)
    with pytest.raises(st.SwitchError, match="half of a character"):
        st.SymbolicModel(torch.nn.Linear(1, 1), name="\udcff")
