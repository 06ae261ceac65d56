"""Training that can be stopped, and the study as a user runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from symtorch_core import BackendError, SymTorchError
from symtorch_core.events import Event, OutputProgressed, StageAdvanced, StageStarted
from symtorch_core.studies import StudyReport
from symtorch_core.testing import StudyContract, run_command
from symtorch_pinn.experiment import Scale, run_experiment
from symtorch_pinn.problem import HEAT, LOGISTIC, PROBLEMS, Condition, Problem
from symtorch_pinn.study import PinnStudy
from symtorch_pinn.training import Settings, train

SHORT = Settings(adam_steps=150, lbfgs_steps=100, collocation_points=20)


class TestPinnStudy(StudyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def study(cls) -> PinnStudy:
        return PinnStudy(problem="heat", scale="tiny")

    def test_the_equation_is_that_of_heat(self, report: StudyReport) -> None:
        (run,) = report.figures["runs"]
        pinn = run["pinn"]
        assert pinn["form"] == pytest.approx(HEAT.values, rel=0.05)
        assert pinn["identified"]["alpha"] == pytest.approx(0.2, rel=0.05)
        assert pinn["residual"] < 1e-10
        assert pinn["mse_beyond"] < 1e-2 * run["control"]["mse_beyond"]
        assert 100 * pinn["mse"] < run["control"]["mse"]

    def test_the_papers_figures_stand_beside_ours(self, report: StudyReport) -> None:
        published, ours = report.tables["errors"].rows
        assert published[2:5] == ("7.8e-03", "7.4e-06", "4.8e-02")
        assert ours[4] == "4.8e-02"  # the variance is that of the same grid


def test_a_stopped_training_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    def stop(after: int) -> Any:
        seen = 0

        def callback(event: Event) -> None:
            nonlocal seen
            seen += event.steps if isinstance(event, StageAdvanced) else 0
            if seen > after:
                raise KeyboardInterrupt

        return callback

    for folder in "ab":
        tmp_path.joinpath(folder).mkdir()
    whole = train(HEAT, SHORT, seed=0, physics=True, folder=tmp_path / "a")
    for after in (70, 151):  # in the second part of Adam, and of L-BFGS
        with pytest.raises(KeyboardInterrupt):
            train(HEAT, SHORT, seed=0, physics=True, folder=tmp_path / "b", callbacks=[stop(after)])
    parts = train(HEAT, SHORT, seed=0, physics=True, folder=tmp_path / "b")
    assert parts.loss == whole.loss
    assert parts.constants == whole.constants
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_study_that_is_stopped_in_a_search_ends_and_says_how_to_go_on(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, OutputProgressed) and event.fraction > 0.05:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, BackendError), match="same options|^$"):
        PinnStudy(problem="logistic", scale="tiny", regressor="torchgp").run(tmp_path, [stop])
    assert not list(tmp_path.glob("searches/*.json"))
    assert len(list(tmp_path.glob("logistic-pinn-*.safetensors"))) == 1
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"regressor": "oporen"}, "oporen"), ({"seed": -1}, "pinn's seed must be at least 0")],
)
def test_what_makes_no_sense_is_refused_before_any_training(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SymTorchError, match=message):
        PinnStudy.with_options({"scale": "tiny"} | options).run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_training_is_looked_up(tmp_path: Path) -> None:
    first = train(LOGISTIC, SHORT, seed=0, physics=True, folder=tmp_path)
    events: list[Event] = []
    again = train(LOGISTIC, SHORT, seed=0, physics=True, folder=tmp_path, callbacks=[events.append])
    assert again.loss == first.loss
    assert again.seconds == first.seconds
    (started,) = (event for event in events if isinstance(event, StageStarted))
    assert sum(event.steps for event in events if isinstance(event, StageAdvanced)) == started.total
    other = train(LOGISTIC, SHORT, seed=1, physics=True, folder=tmp_path)
    assert other.loss != first.loss


def test_the_control_knows_no_equation(tmp_path: Path) -> None:
    control = train(HEAT, SHORT, seed=0, physics=False, folder=tmp_path)
    assert control.constants == {}
    points, values = HEAT.sample_data(0)
    with torch.no_grad():
        assert control.loss == pytest.approx(float((control.network(points) - values).square().mean()))


def test_a_problem_of_ones_own(tmp_path: Path) -> None:
    """The example of docs/pinn.md."""
    decay = Problem(
        name="decay",
        title="Radioactive decay, rate unknown",
        ranges={"t": (0.0, 2.0)},
        equation="u_t + k*u",
        conditions=(Condition("u - 1", {"t": 0.0}),),
        form="c*exp(b*t)",
        values={"c": 1.0, "b": -0.7},
        extends="t",
        constants={"k": 0.7},
        start={"k": 0.0},
    )
    scale = Scale(Settings(adam_steps=300, lbfgs_steps=200), rows=500, niterations=40, timeout=10.0)
    run = run_experiment(decay, scale, "operon", seed=0, folder=tmp_path)
    assert run.pinn.check.form == pytest.approx(decay.values, rel=0.01)
    assert run.pinn.check.identified == pytest.approx(decay.constants, rel=0.01)


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = run_command(["run", "pinn", "--problem", "logistic", "--scale", "tiny", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "k/(1 + a*exp(b*t)); 1.0%" in result.output
    assert tmp_path.joinpath("report.html").is_file()
    assert tmp_path.joinpath("logistic-solutions.png").is_file()


@pytest.mark.study
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_claim_holds_at_laptop_scale(problem: Any, tmp_path: Path) -> None:
    report = PinnStudy(problem=problem, seeds=3).run(tmp_path)
    assert len(report.claims) >= 12
    assert [claim for claim in report.claims if claim.met is not True] == []
