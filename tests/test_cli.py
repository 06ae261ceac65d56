"""The command line, as a user meets it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import symtorch_core as st
from symtorch_core import cli, distill
from symtorch_core.components.registry import registry
from symtorch_core.errors import SearchError, UnknownComponentError
from symtorch_core.testing.scripted import ScriptedRegressor

SITE = {
    "acme_ok.py": "class Thing: pass",
    "acme_lacking.py": "import quite_absent",
    "acme_faulty.py": "raise ValueError('odd [bold]')",
    "acme_astray.py": "import acme_astray.nowhere",
    "acme_unfit.py": "from json import no_such_function",
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Install components by name, each with the target module `acme_NAME`, and nothing else."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.syspath_prepend(tmp_path)
    for file, source in SITE.items():
        tmp_path.joinpath(file).write_text(source)

    def install(*names: str, extra: str = "") -> None:
        lines = ["from symtorch_core.components.hookspecs import Component, hookimpl", extra, "@hookimpl"]
        lines += ["def symtorch_studies():", "    yield from ()"]
        lines += [
            f"    yield Component('{name}', 'acme_{name}:Thing', 'about [{name}]', 'pip install acme')"
            for name in names
        ]
        tmp_path.joinpath("acme_plugin.py").write_text("\n".join(lines))
        info = tmp_path / "acme-1.5.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.5\n")
        info.joinpath("entry_points.txt").write_text("[symtorch]\nacme = acme_plugin\n")
        points = next(iter(metadata.distributions(path=[str(tmp_path)]))).entry_points
        monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "symtorch" else ())

    before = set(sys.modules)
    registry.cache_clear()
    yield install
    registry.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("acme_"):
            del sys.modules[name]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def row(output: str, name: str) -> list[str]:
    """The cells of the table row whose second cell is that name."""
    rows = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in output.splitlines()]
    (found,) = [cells for cells in rows if len(cells) > 1 and cells[1] == name]
    return found


def test_plugins_lists_every_kind_and_where_it_came_from(install) -> None:
    install("ok")
    code, output = run("plugins")
    assert code == 0
    assert row(output, "ok") == ["studies", "ok", "about [ok]", "acme", "1.5"]
    assert row(output, "identity")[0] == "reducers"
    assert "failed" not in output


def test_plugins_can_list_one_kind(install) -> None:
    install("ok")
    _, output = run("plugins", "--kind", "studies")
    assert "ok" in output
    assert "identity" not in output


def test_plugins_shows_what_failed_below(install) -> None:
    install("ok", extra="raise RuntimeError('no [licence]')")
    code, output = run("plugins")
    assert code == 0
    assert output.rstrip().endswith("failed: plugin 'acme' of acme 1.5: RuntimeError: no [licence]")


def test_doctor_is_content_when_all_can_be_imported(install) -> None:
    install("ok")
    code, output = run("doctor")
    assert code == 0
    assert row(output, "ok")[3] == "ok"
    for name in ("symtorch-core", "torch", "python"):
        assert any(line.startswith(f"{name} ") for line in output.splitlines())


CHECKED = """
from symtorch_core.components.options import Configurable, Finding

class Thing(Configurable):
    name = "checked"

    @classmethod
    def checkup(cls):
        return Finding(True, "the tank [1]"), Finding(False, "no water: fill it")
"""


def test_doctor_knows_a_component_that_is_not_ready(install, tmp_path: Path) -> None:
    tmp_path.joinpath("acme_checked.py").write_text(CHECKED)
    install("checked")
    code, output = run("doctor")
    assert code == 0  # nothing is broken
    assert row(output, "checked")[3] == "not ready"
    assert "- checked: no water: fill it (more: symtorch doctor checked)" in output


def test_doctor_of_one_component_tells_everything(install, tmp_path: Path) -> None:
    tmp_path.joinpath("acme_checked.py").write_text(CHECKED)
    install("checked", "ok")
    code, output = run("doctor", "checked")
    assert code == 1
    assert output.splitlines() == [
        "checked (studies, acme 1.5): ok",
        "ok  the tank [1]",
        "NO  no water: fill it",
    ]
    assert run("doctor", "ok") == (0, "ok (studies, acme 1.5): ok\n")
    with pytest.raises(UnknownComponentError, match=r"no component 'absent'; installed: .*checked"):
        run("doctor", "absent")


def test_doctor_tolerates_a_missing_dependency_and_gives_the_hint(install) -> None:
    install("lacking")
    code, output = run("doctor")
    assert code == 0
    assert row(output, "lacking")[3] == "missing"
    (reason,) = [line for line in output.splitlines() if line.startswith("- ")]
    assert "'quite_absent'" in reason
    assert reason.endswith("Try: pip install acme")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("faulty", "odd [bold]"), ("astray", "'acme_astray.nowhere'"), ("unfit", "cannot import name")],
)
def test_doctor_fails_on_a_component_that_is_broken(install, name: str, reason: str) -> None:
    install("ok", name)
    code, output = run("doctor")
    assert code == 1
    assert row(output, name)[3] == "broken"
    (line,) = [line for line in output.splitlines() if line.startswith("- ")]
    assert reason in line
    assert row(output, "ok")[3] == "ok"


def test_doctor_fails_on_a_name_that_is_offered_twice(install) -> None:
    install("ok", "ok")
    code, output = run("doctor")
    assert code == 1
    assert "SYMTORCH_DISABLE_PLUGINS" in output


def test_doctor_fails_on_a_plugin_that_is_broken(install) -> None:
    install(extra="raise RuntimeError('no licence')")
    code, output = run("doctor")
    assert code == 1
    assert "RuntimeError: no licence" in output


def test_doctor_shows_what_is_disabled(install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMTORCH_DISABLE_PLUGINS", "acme")
    install(extra="raise RuntimeError('no licence')")
    code, output = run("doctor")
    assert code == 0
    assert "disabled: acme" in output


def test_demo_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[dict[str, object]] = []
    stand_in = ModuleType("symtorch_core.demo")
    stand_in.run = lambda console, **options: calls.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "symtorch_core.demo", stand_in)
    assert run("demo")[0] == 0
    options = ["--regressor", "gplearn", "--seed", "3", "--quick", "--out", str(tmp_path), "--no-open"]
    assert run("demo", *options)[0] == 0
    assert calls == [
        {"regressor": "torchgp", "seed": 0, "quick": False, "out": Path("symtorch-demo"), "open_page": True},
        {"regressor": "gplearn", "seed": 3, "quick": True, "out": tmp_path, "open_page": False},
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "Error: seed must be at least 0"),
        (["--seed", str(2**40)], "Error: seed must be at most"),
        (["--regressor", "torchpg"], "Error: .*torchpg"),
    ],
)
def test_the_demo_refuses_what_it_cannot_do_before_it_trains(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["symtorch", "demo", "--out", str(tmp_path), *options])
    with pytest.raises(SystemExit):
        cli.main()
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_main_tells_an_error_in_a_paragraph(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def fail(console: object, **options: object) -> None:
        raise SearchError("give [at least] two rows")

    stand_in = ModuleType("symtorch_core.demo")
    stand_in.run = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "symtorch_core.demo", stand_in)
    monkeypatch.setattr(sys, "argv", ["symtorch", "demo"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert captured.err == "Error: give [at least] two rows\n"
    assert captured.out == ""


def test_main_tells_an_unknown_kind_in_a_paragraph(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["symtorch", "plugins", "--kind", "nonsense"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "the kinds are captures" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "report", "export"])
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 10**6, bytes(3_400_000), b"PK\x03\x04" * 10**5, b'{"schema": 1}', None]
)
def test_a_file_that_is_no_result_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path, command: str, content: bytes | None
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content) if content is not None else path.mkdir()
    arguments = [command, str(path), *([] if command == "show" else ["-o", str(tmp_path / "out.py")])]
    monkeypatch.setattr(sys, "argv", ["symtorch", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert str(path) in error
    assert len(error) < 700
    assert not (tmp_path / "out.py").exists()


def test_a_file_that_cannot_be_written_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    X = torch.rand(50, 1, generator=torch.Generator().manual_seed(0))
    result = distill((X, 2 * X), regressor=ScriptedRegressor(equations=("2.0*x0",)), progress=False)
    result.save(tmp_path / "result.json")
    (tmp_path / "taken.py").mkdir()
    for command, target in (("export", "taken.py"), ("report", "result.json/page.html")):
        arguments = [command, str(tmp_path / "result.json"), "-o", str(tmp_path / target)]
        monkeypatch.setattr(sys, "argv", ["symtorch", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 1
        assert capsys.readouterr().err.startswith("Error: ")
    assert st.Distillation.load(tmp_path / "result.json").fronts == result.fronts
