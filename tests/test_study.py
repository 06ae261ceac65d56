"""Studies: the contract, what a report writes, and the command that runs them."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, final

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from symtorch_core import cli, distill
from symtorch_core.components.hookspecs import Component, hookimpl
from symtorch_core.components.registry import registry
from symtorch_core.errors import BackendError, MissingDependencyError, SearchError
from symtorch_core.events import Callback, StageFinished, StageStarted, notify
from symtorch_core.studies import (
    Chapter,
    Claim,
    Drawing,
    Section,
    Study,
    StudyReport,
    Table,
    Text,
    require_finished,
    setting,
)
from symtorch_core.testing import ScriptedRegressor, StudyContract


@final
@dataclass(frozen=True)
class CircleStudy(Study):
    """Measures pi with a polygon."""

    name: ClassVar[str] = "circle"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"fine": {"corners": 96, "side": "outer"}}

    corners: int = setting(12, "Corners of the polygon.")
    side: Literal["inner", "outer"] = setting("inner", "Where the polygon lies.")
    limit: float | None = setting(None, "Largest error allowed.")
    loud: bool = setting(False, "Whether to shout.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        notify(callbacks, StageStarted("measure"))
        angle = math.pi / self.corners
        value = self.corners * (math.sin(angle) if self.side == "inner" else math.tan(angle))
        notify(callbacks, StageFinished("measure", 0.0))
        error = abs(value - math.pi)
        table = Table(("corners", "pi"), ((str(self.corners), f"{value:.4f}"),), "A polygon [bold]")
        drawing = Drawing(lambda ax: ax.plot([0, 1], [value, math.pi]), "Towards pi", width=9.0)
        met = None if self.limit is None else error <= self.limit
        return StudyReport(
            name="circle",
            title="PI!" if self.loud else "pi",
            claims=[Claim("error of [pi]", f"<= {self.limit}", f"{error:.2e}", met)],
            tables={"polygon": table},
            drawings={"towards": drawing},
            sections=[Section("Polygon", (Text("<script>"), table, drawing.part()))],
            figures={"pi": value},
        )


class TestCircleStudy(StudyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def study(cls) -> CircleStudy:
        return CircleStudy(corners=6)


def test_a_report_is_written_in_four_forms(tmp_path: Path) -> None:
    report = CircleStudy(limit=1e-9).run(tmp_path)
    page = report.write(tmp_path / "new" / "folder")
    text = page.read_text()
    assert "&lt;script&gt;" in text
    assert '<figure class="wide">' in text
    assert "NO" in text
    folder = page.parent
    with folder.joinpath("polygon.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["corners", "pi"], ["12", "3.1058"]]
    assert folder.joinpath("towards.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads(folder.joinpath("figures.json").read_text())
    assert written["pi"] == report.figures["pi"]
    assert written["claims"][0]["met"] is False


@final
@dataclass(frozen=True)
class ScaledStudy(Study):
    """Has scales, and runs over a table."""

    name: ClassVar[str] = "scaled"
    scales: ClassVar[dict[str, int]] = {"tiny": 1, "paper": 100}

    scale: str = setting("tiny", "How much.")
    shape: str = setting("all", "Which shape.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        return StudyReport("scaled", "Scaled")


def test_a_scale_has_settings_and_all_means_every_entry() -> None:
    shapes = {"circle": 0, "square": 4}
    assert ScaledStudy().settings == 1
    assert ScaledStudy(scale="paper").settings == 100
    assert ScaledStudy().expand("shape", shapes) == [0, 4]
    assert ScaledStudy(shape="square").expand("shape", shapes) == [4]
    with pytest.raises(SearchError, match="Did you mean 'paper'"):
        ScaledStudy(scale="papre").settings  # noqa: B018
    with pytest.raises(SearchError, match="Did you mean 'square'.*circle, square, all"):
        ScaledStudy(shape="sqare").expand("shape", shapes)


def test_chapters_become_sections_and_files() -> None:
    table, drawing = Table(("a",), (("1",),)), Drawing(lambda ax: None)
    chapter = Chapter("heat", "Heat in a rod", {"front": drawing}, [Text("warm")])
    report = StudyReport.of_chapters(
        "rods",
        "Rods",
        [chapter],
        overview="All rods",
        tables={"rods": table},
        figures={},
        versions={"torch": "2"},
    )
    assert [section.title for section in report.sections] == ["All rods", "Heat in a rod"]
    assert report.sections[0].parts == (table,)
    assert list(report.drawings) == ["heat-front"]
    assert report.footer.startswith("torch 2, ")


def test_a_search_that_was_stopped_ends_a_study() -> None:
    x = torch.rand(50, 1)
    result = distill((x, 2 * x), regressor=ScriptedRegressor(equations=("2.0*x0",)), progress=False)
    assert require_finished(result) is result
    with pytest.raises(BackendError, match="run it again with the same options"):
        require_finished(replace(result, interrupted=True))


def test_of_many_claims_the_terminal_shows_those_not_met() -> None:
    claims = [
        Claim(f"claim {number}", "yes", "no" if number == 7 else "yes", number != 7) for number in range(20)
    ]
    told = Console(width=100, record=True, file=io.StringIO())
    told.print(StudyReport("many", "Many", claims=[*claims, Claim("only told", "-", "3")]))
    text = told.export_text()
    assert "claim 7" in text
    assert "claim 8" not in text
    assert "19 of 20 claims are met" in text


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The study above as the only plugin there is."""

    @hookimpl
    def symtorch_studies() -> Iterator[Component]:
        yield Component("circle", "circle_plugin:CircleStudy", "About [pi]")
        yield Component("broken", "circle_plugin_absent:Nothing", "Lacks a module", "pip install it")

    plugin = ModuleType("circle_plugin")
    plugin.__dict__.update(symtorch_studies=symtorch_studies, CircleStudy=CircleStudy)
    monkeypatch.setitem(sys.modules, "circle_plugin", plugin)
    point = metadata.EntryPoint("circle", "circle_plugin", "symtorch")
    monkeypatch.setattr(metadata, "entry_points", lambda group: (point,))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    registry.cache_clear()
    yield
    registry.cache_clear()


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["run", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_without_a_name_it_lists_the_studies(arguments: tuple[str, ...]) -> None:
    code, output = run(*arguments)
    assert code == 0
    assert "circle" in output
    assert "About [pi]" in output
    assert "broken" in output  # listed without being imported


@pytest.mark.usefixtures("installed")
def test_the_options_of_a_study_are_its_fields() -> None:
    code, output = run("circle", "--help")
    assert code == 0
    assert "Measures pi with a polygon." in output
    for text in ("--corners", "Corners of the polygon.", "inner|outer", "--limit", "--loud", "--out"):
        assert text in output


@pytest.mark.usefixtures("installed")
def test_a_preset_gives_options_and_what_is_typed_counts_before_it() -> None:
    shown = run("circle", "--help")[1]
    assert "fine (corners 96, side outer)" in " ".join(shown.replace("│", " ").split())
    outer, inner = (f"{96 * f(math.pi / 96):.4f}" for f in (math.tan, math.sin))
    assert outer in run("circle", "--preset", "fine")[1]
    assert inner in run("circle", "--preset", "fine", "--side", "inner")[1]  # the default, but typed
    with pytest.raises(SearchError, match=r"unknown preset of circle 'fin'\. Did you mean 'fine'"):
        run("circle", "--preset", "fin")


@pytest.mark.usefixtures("installed")
def test_it_runs_prints_and_writes(tmp_path: Path) -> None:
    code, output = run("circle", "--corners", "100", "--side", "outer", "--limit", "0.01", "--loud")
    assert code == 0
    for text in ("3.1426", "error of [pi]", "<= 0.01", "yes", "A polygon [bold]", "PI!"):
        assert text in output
    assert tmp_path.joinpath("studies", "circle", "report.html").is_file()
    code, output = run("circle", "--limit", "1e-9", "--out", "elsewhere")
    assert (code, "NO" in output) == (0, True)
    assert tmp_path.joinpath("elsewhere", "towards.png").is_file()


@pytest.mark.usefixtures("installed")
def test_one_that_is_stopped_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(study: CircleStudy, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        notify(callbacks, StageStarted("measure"))
        raise KeyboardInterrupt

    monkeypatch.setattr(CircleStudy, "run", stopped)
    code, output = run("circle", "--out", "here")
    assert code == 130
    assert "the same command goes on with what is finished in here" in output


@pytest.mark.usefixtures("installed")
def test_a_second_one_in_its_folder_is_refused_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, refused = CircleStudy.run, []

    def run_within(study: CircleStudy, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        with pytest.raises(
            SearchError, match="another run is doing a study in here now .*another folder"
        ) as caught:
            run("circle", "--out", "here")
        refused.append(caught.value)
        return measure(study, folder, callbacks)

    monkeypatch.setattr(CircleStudy, "run", run_within)
    assert run("circle", "--out", "here")[0] == 0
    assert len(refused) == 1


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("circle", "--side", "left"), "'left' is not one of"), (("circle", "--corner", "3"), "No such option")],
)
def test_wrong_options_are_told(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, output = run(*arguments)
    assert code == 2
    assert message in output
    assert not tmp_path.joinpath("studies").exists()


@pytest.mark.usefixtures("installed")
def test_a_study_that_lacks_a_module_says_which() -> None:
    with pytest.raises(MissingDependencyError, match="circle_plugin_absent.*pip install it"):
        run("broken")
