"""The study as a user runs it, small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from symtorch_core import SearchError, SymTorchError
from symtorch_core.studies import StudyReport
from symtorch_core.testing import StudyContract, run_command
from symtorch_gnn.experiment import choose_messages, compute_components
from symtorch_gnn.forces import FORCES
from symtorch_gnn.messages import compute_messages, sample_edges
from symtorch_gnn.network import VARIANTS, build_network
from symtorch_gnn.simulation import simulate
from symtorch_gnn.study import GnnStudy


class TestGnnStudy(StudyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def study(cls) -> GnnStudy:
        return GnnStudy(force="spring", variant="l1", scale="tiny")

    def test_messages_and_components_are_judged(self, report: StudyReport) -> None:
        (model,) = report.figures["models"]
        assert [law["carrier"] for law in model["laws"]] == ["messages", "components"]
        for law in model["laws"]:
            assert len(law["equations"]) == len(law["verdicts"]) == 2
            assert all(0 < r2 <= 1 for r2 in law["linear_r2"])
            assert law["error"] > 0
        assert len(model["laws"][0]["columns"]) == 2
        assert model["drift"] < 1e-4
        assert len(report.tables["laws"].rows) == 4


def test_unknown_names_are_errors_before_any_work(tmp_path: Path) -> None:
    for options, closest in (({"force": "sprong"}, "spring"), ({"variant": "prunning"}, "pruning")):
        with pytest.raises(SearchError, match=f"Did you mean '{closest}'"):
            GnnStudy.with_options(options).run(tmp_path)
    for options, message in (
        ({"regressor": "torchpg"}, "torchpg"),
        ({"seed": -1}, "gnn's seed must be at least 0"),
    ):
        with pytest.raises(SymTorchError, match=message):
            GnnStudy.with_options({"scale": "tiny"} | options).run(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variant", ["bottleneck", "kl"])
def test_from_the_command_line(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = [
        "run",
        "gnn",
        "--force",
        "charge",
        "--variant",
        variant,
        "--scale",
        "tiny",
        "--out",
        str(tmp_path),
    ]
    result = run_command(arguments)
    assert result.exit_code == 0, result.output
    assert f"charge, {variant}: messages of the law's form" in result.output
    assert tmp_path.joinpath("report.html").is_file()
    assert tmp_path.joinpath(f"charge-{variant}-messages-linear.png").is_file()


def test_the_papers_choice_of_messages() -> None:
    rows = sample_edges(simulate(FORCES["spring"], 3, 0), 500)
    standard = build_network(VARIANTS["standard"], 8, "silu", 0)
    spread = compute_messages(standard, rows).std(0)
    assert choose_messages(standard, rows) == tuple(sorted(spread.argsort(descending=True)[:2].tolist()))
    sampled = build_network(VARIANTS["kl"], 8, "silu", 0)
    assert len(choose_messages(sampled, rows)) == 2
    assert choose_messages(build_network(VARIANTS["bottleneck"], 8, "silu", 0), rows) == (0, 1)


def test_components_hold_what_was_spread_over_many_messages() -> None:
    generator = torch.Generator().manual_seed(0)
    force, mixing = torch.randn(400, 2, generator=generator), torch.randn(2, 50, generator=generator)
    found = compute_components(force @ mixing + 3.0).float()
    inverse = torch.linalg.lstsq(found, force - force.mean(0)).solution
    torch.testing.assert_close(found @ inverse, force - force.mean(0), atol=1e-4, rtol=0)
