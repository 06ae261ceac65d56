"""The end of the demonstration: what it leaves, and what it says about the law out of range."""

from __future__ import annotations

import io
import webbrowser
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import symtorch_core as st
from symtorch_core import demo
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.views import plots

pytest.importorskip("matplotlib")
X = torch.rand(100, 5, generator=torch.Generator().manual_seed(0)) * 4 - 2


class Inside(nn.Module):
    """A network that knows the law where the data were, and is flat beyond."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return demo.law(x.clamp(-2, 2))[:, None]


class Everywhere(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return demo.law(x)[:, None]


@pytest.fixture
def results() -> dict[str, st.Distillation]:
    engine = ScriptedRegressor(equations=("x0^2 + 3.0*sin(x4) - 4.0",))
    return {"law": st.distill((X, demo.law(X)), regressor=engine, unary_operators=["sin"], progress=False)}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    return addresses


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, color_system=None, width=100)


def test_it_leaves_a_page_and_says_what_is_next(
    results: dict[str, st.Distillation], opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    screen = console(terminal=True)
    demo.show_next(screen, tmp_path, results, "sparse", open_page=True)
    lines = screen.file.getvalue().splitlines()
    assert lines[0] == "Next"
    assert len(lines) == 4
    assert lines[1].split() == ["the", "pages", str(tmp_path / "law.html")]
    assert lines[2].endswith(f"symtorch show {tmp_path / 'law.json'}")
    assert lines[3].endswith('st.distill(model, X, regressor="sparse").report("page.html")')
    assert "<h1>Equation</h1>" in (tmp_path / "law.html").read_text(encoding="utf-8")
    assert st.Distillation.load(tmp_path / "law.json").output_names == ("y0",)
    assert opened == [(tmp_path / "law.html").as_uri()]


@pytest.mark.parametrize(
    ("terminal", "display", "wanted"), [(False, ":0", True), (True, "", True), (True, ":0", False)]
)
def test_no_browser_opens_without_a_terminal_a_display_and_leave(
    terminal: bool,
    display: str,
    wanted: bool,
    results: dict[str, st.Distillation],
    opened: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    demo.show_next(console(terminal=terminal), tmp_path, results, "sparse", open_page=wanted)
    assert opened == []


def test_without_matplotlib_it_says_how_to_have_pages(
    results: dict[str, st.Distillation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    screen = console(terminal=False)
    demo.show_next(screen, tmp_path, results, "sparse", open_page=True)
    assert "no pages: plots need matplotlib. Try: pip install matplotlib" in screen.file.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["law.json"]


def test_out_of_range_the_law_is_the_judge() -> None:
    screen = console(terminal=False)
    demo.compare_out_of_range(screen, Inside(), Everywhere(), X)
    text = " ".join(screen.file.getvalue().split())
    assert "1.0000 on the equation: it is the network that fails there" in text
    screen = console(terminal=False)
    demo.compare_out_of_range(screen, Everywhere(), Inside(), X)
    assert "fails" not in screen.file.getvalue()
