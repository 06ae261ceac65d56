"""Exports of equations whose constants changed after the search; and files that are whole or as they were."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import symtorch_core as st
from symtorch_core.exports import FORMATS
from symtorch_core.search.front import ParetoFront
from symtorch_core.studies import Drawing, StudyReport
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.views.page_parts import Page
from symtorch_pca.reducer import PCAReducer

X = torch.rand(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
Y = (2 * X[:, 0] + 3 * X[:, 1] ** 2)[:, None]
EQUATIONS = ("4.0*x0", "1.9*x0 + 2.9*x1^2", "2.1*x0 + 2.9*x1^2 + 0.3*sin(x1)")


class Block(torch.nn.Module):
    """The law itself, so that refining has something to find."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (2 * x[:, 0] + 3 * x[:, 1] ** 2)[:, None]


def distilled(select: str = "accuracy") -> st.SymbolicModel:
    block = st.SymbolicModel(Block())
    block.distill(X, regressor=ScriptedRegressor(equations=EQUATIONS), select=select, progress=False)
    return block


@pytest.mark.parametrize("select", ["score", "best", "accuracy", "validation", "simplest"])
def test_a_loaded_file_chooses_the_equation_in_use(select: str, tmp_path: Path) -> None:
    block = distilled(select)
    for complexity in block.front().complexities:
        block.switch_to_symbolic(complexity=complexity)
        with torch.no_grad():
            block.surrogate.constants.add_(0.01)
        again = st.Distillation.load(block.export(tmp_path / "law.json"))
        (chosen,) = again.chosen()
        assert chosen.expression == block.surrogate.expressions()[0]
        assert chosen.complexity == complexity
        torch.testing.assert_close(again.surrogate()(X), block.surrogate(X))


def test_losses_and_fidelity_are_those_of_the_present_constants(tmp_path: Path) -> None:
    block = distilled()
    block.switch_to_symbolic()
    with torch.no_grad():
        block.surrogate.constants.mul_(1.1)
    again = st.Distillation.load(block.export(tmp_path / "law.json"))
    train, held_out = block.distillation.train, block.distillation.held_out
    assert train is not None
    assert held_out is not None
    (chosen,) = again.chosen()
    for rows, loss, fidelity in (
        (train, chosen.loss, again.fidelity[0].train),
        (held_out, chosen.validation_loss, again.fidelity[0].held_out),
    ):
        error = (block.surrogate(rows.inputs) - rows.outputs).square().mean()
        assert loss == pytest.approx(float(error), rel=1e-9)
        assert fidelity is not None
        assert fidelity.nmse == pytest.approx(float(error / rows.outputs.var(correction=0)), rel=1e-9)
    assert again.model_fidelity is None
    assert again.fidelity[0].out_of_range is None
    assert again.fidelity[0].linear == block.distillation.fidelity[0].linear


def test_simpler_equations_stay_on_the_front_of_an_improved_one(tmp_path: Path) -> None:
    result = distilled().distillation
    front = result.front()
    assert len(front) >= 2
    worse = ParetoFront([replace(c, loss=c.loss + 1 / c.complexity, validation_loss=None) for c in front])
    surrogate = result.surrogate()
    with torch.no_grad():
        surrogate.constants.add_(1e-9)
    again = st.Distillation.load(
        replace(result, fronts=(worse,)).export(tmp_path / "law.json", surrogate)
    ).front()
    assert again.complexities == worse.complexities
    assert [c.loss for c in again][:-1] == [c.loss for c in worse][:-1]


def test_the_table_has_the_present_constants(tmp_path: Path) -> None:
    result = distilled().distillation
    surrogate = result.surrogate()
    with torch.no_grad():
        surrogate.constants.fill_(7.25)
    assert "7.25" not in result.export(tmp_path / "old.tex").read_text()
    assert "7.25" in result.export(tmp_path / "new.tex", surrogate).read_text()


def test_maps_are_the_present_ones_too(tmp_path: Path) -> None:
    result = st.distill(
        (X, torch.cat([Y, Y + X], dim=1)),
        regressor=ScriptedRegressor(equations=("z0",)),
        reducer=PCAReducer(k_in=2, k_out=1),
        select="accuracy",
        progress=False,
    )
    surrogate = result.surrogate().trainable(maps=True)
    with torch.no_grad():
        for parameter in surrogate.parameters():
            parameter.mul_(1.5)
    again = st.Distillation.load(result.export(tmp_path / "law.json", surrogate))
    torch.testing.assert_close(again.surrogate()(X), surrogate(X).detach())
    assert any(parameter.requires_grad for parameter in surrogate.parameters())


def test_a_surrogate_is_not_changed_by_its_export(tmp_path: Path) -> None:
    result = distilled().distillation
    surrogate = result.surrogate().double()
    for ending in (".py", ".tex", ".json", ".pt2"):
        result.export(tmp_path / f"law{ending}", surrogate)
    assert surrogate(X).dtype == torch.float64
    again = st.Distillation.load(tmp_path / "law.json")
    assert again.fronts == result.fronts  # nothing had changed


def test_without_rows_the_losses_of_the_search_stay_and_a_warning_says_so(tmp_path: Path) -> None:
    result = replace(distilled().distillation, train=None, held_out=None)
    surrogate = result.surrogate()
    with torch.no_grad():
        surrogate.constants.mul_(2)
    with pytest.warns(RuntimeWarning, match="no rows in memory"):
        path = result.export(tmp_path / "law.json", surrogate)
    again = st.Distillation.load(path)
    assert again.chosen()[0].expression == surrogate.expressions()[0]
    assert again.chosen()[0].loss == result.chosen()[0].loss
    assert again.fidelity[0].train is None


def test_what_cannot_be_adopted_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    result, path = distilled().distillation, tmp_path / "law.json"
    path.write_text("old")
    surrogate = result.surrogate()
    with torch.no_grad():
        surrogate.constants.fill_(1e300)
    with pytest.raises(st.FileFormatError, match="no finite loss with its present constants"):
        result.export(path, surrogate)
    other = st.distill(
        (X, torch.cat([Y, Y], dim=1)), regressor=ScriptedRegressor(equations=("x0",)), progress=False
    )
    with pytest.raises(st.FileFormatError, match="computes 2 equations, the distillation has 1"):
        result.export(path, other.surrogate())
    assert path.read_text() == "old"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full when a file is to be finished."""

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.usefixtures("full_disk")
def test_exports_are_whole_or_as_they_were(ending: str, tmp_path: Path) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxscript")
    path = tmp_path / f"law{ending}"
    path.write_text("old")
    with pytest.raises(OSError, match="disk is full"):
        distilled().distillation.export(path)
    assert path.read_text() == "old"


@pytest.mark.usefixtures("full_disk")
def test_pages_and_reports_are_whole_or_as_they_were(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawing = Drawing(lambda ax: ax.plot([1, 2]))
    for name, write in (
        ("page.html", lambda path: Page("t", "s", ()).write(path)),
        ("d.png", lambda path: drawing.png(path)),
        ("figures.json", lambda path: StudyReport("s", "t").write(path.parent)),
    ):
        path = tmp_path / name
        path.write_text("old")
        with pytest.raises(OSError, match="disk is full"):
            write(path)
        assert path.read_text() == "old"
