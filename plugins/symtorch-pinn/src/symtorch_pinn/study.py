"""The study: train, distill, check, report (SymTorch paper, 4.3.1 and F)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

from symtorch_core.events import Callback
from symtorch_core.studies import Study, StudyReport, setting
from symtorch_pinn.problem import PROBLEMS
from symtorch_pinn.report import report_of
from symtorch_pinn.solving import Scale, solve
from symtorch_pinn.training import Settings

SCALES: Mapping[str, Scale] = {
    "tiny": Scale(Settings(adam_steps=300, lbfgs_steps=200, collocation_points=30), 500, 40, 10.0),
    "laptop": Scale(Settings(), 5_000, 400, 30.0),
    # As published: 3,000 steps of Adam, equation and conditions asked for at the ten data points only.
    "paper": Scale(Settings(adam_steps=3_000, lbfgs_steps=0, collocation_points=0), 5_000, 1_000, None, 0.01),
}


@final
@dataclass(frozen=True)
class PinnStudy(Study):
    """Solutions of differential equations out of physics-informed networks (SymTorch paper, 4.3.1 and F)."""

    name: ClassVar[str] = "pinn"

    problem: Literal["heat", "wave", "oscillator", "logistic", "laplace", "all"] = setting(
        "heat", "Which differential equation."
    )
    regressor: str = setting("operon", "The search; `symtorch plugins` lists what is installed.")
    scale: Literal["tiny", "laptop", "paper"] = setting(
        "laptop", "tiny: seconds, for a look; laptop: minutes; paper: as published."
    )
    seed: int = setting(0, "Of the points, the networks and the searches.")
    seeds: int = setting(1, "How many runs, each with the next seed.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Solve each problem with each seed; see :class:`Study`."""
        problems = list(PROBLEMS.values()) if self.problem == "all" else [PROBLEMS[self.problem]]
        runs = [
            solve(problem, SCALES[self.scale], self.regressor, seed, folder, callbacks)
            for problem in problems
            for seed in range(self.seed, self.seed + self.seeds)
        ]
        return report_of(runs, scale=self.scale, regressor=self.regressor)
