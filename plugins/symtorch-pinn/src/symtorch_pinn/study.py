"""The study: train, distill, check, report (SymTorch paper, 4.3.1 and F)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

from symtorch_core import load
from symtorch_core.events import Callback
from symtorch_core.studies import Study, StudyReport, setting
from symtorch_pinn.experiment import Scale, run_experiment
from symtorch_pinn.problem import PROBLEMS
from symtorch_pinn.report import build_report
from symtorch_pinn.training import Settings


@final
@dataclass(frozen=True)
class PinnStudy(Study):
    """Solutions of differential equations out of physics-informed networks (SymTorch paper, 4.3.1 and F)."""

    name: ClassVar[str] = "pinn"
    scales: ClassVar[Mapping[str, Scale]] = {
        "tiny": Scale(Settings(adam_steps=300, lbfgs_steps=200, collocation_points=30), 500, 40, 10.0),
        "laptop": Scale(Settings(), 5_000, 400, 30.0),
        # As published: 3,000 steps of Adam; equation and conditions count at the ten data points only.
        "paper": Scale(
            Settings(adam_steps=3_000, lbfgs_steps=0, collocation_points=0), 5_000, 1_000, None, 0.01
        ),
    }

    problem: Literal["heat", "wave", "oscillator", "logistic", "laplace", "all"] = setting(
        "heat", "Which differential equation."
    )
    regressor: str = setting("operon", "The search; `symtorch plugins` lists what is installed.")
    scale: Literal["tiny", "laptop", "paper"] = setting(
        "laptop", "tiny: seconds, for a look; laptop: minutes; paper: as published."
    )
    seed: int = setting(0, "Seed of the points, the networks and the searches.")
    seeds: int = setting(1, "Number of runs, each with the next seed.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Solve each problem with each seed; see :class:`Study`."""
        # Before any training: a misspelt name must not cost an hour.
        self.at_least(1, "seeds")
        self.at_least(0, "seed")
        load("regressors", self.regressor)
        runs = [
            run_experiment(problem, self.settings, self.regressor, seed, folder, callbacks)
            for problem in self.expand("problem", PROBLEMS)
            for seed in range(self.seed, self.seed + self.seeds)
        ]
        return build_report(runs, scale=self.scale, regressor=self.regressor)
