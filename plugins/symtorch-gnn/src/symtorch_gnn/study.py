"""The study: simulate, train, distill, judge, report (SymTorch paper, 4.2 and E)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

from symtorch_core.events import Callback
from symtorch_core.studies import Study, StudyReport, setting
from symtorch_gnn.experiment import Scale, run_experiment
from symtorch_gnn.forces import FORCES
from symtorch_gnn.network import VARIANTS
from symtorch_gnn.report import build_report
from symtorch_gnn.training import SETTINGS


@final
@dataclass(frozen=True)
class GnnStudy(Study):
    """Force laws out of the messages of graph networks (SymTorch paper, 4.2 and E)."""

    name: ClassVar[str] = "gnn"
    scales: ClassVar[Mapping[str, Scale]] = {
        "tiny": Scale(SETTINGS["tiny"], test_simulations=20, niterations=20, timeout=5.0),
        "laptop": Scale(SETTINGS["laptop"], test_simulations=200, niterations=400, timeout=60.0),
        "gpu": Scale(SETTINGS["gpu"], test_simulations=200, niterations=400, timeout=60.0),
        "paper": Scale(SETTINGS["paper"], test_simulations=500, niterations=7_000, timeout=None),
    }

    force: Literal["spring", "r1", "r2", "charge", "all"] = setting(
        "spring", "The force between the particles."
    )
    variant: Literal["standard", "bottleneck", "l1", "kl", "pruning", "all"] = setting(
        "bottleneck", "How the network is made to send few numbers."
    )
    regressor: str = setting("torchgp", "The search; `symtorch plugins` lists what is installed.")
    scale: Literal["tiny", "laptop", "gpu", "paper"] = setting(
        "laptop",
        "tiny: seconds, for a look; laptop: minutes a network; gpu: minutes a network on a GPU; paper: as published.",
    )
    seed: int = setting(0, "Seed of the simulations, the networks and the searches.")
    device: str = setting("cpu", "Where to train: cpu, cuda, cuda:1, mps.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Train and distill each network; see :class:`Study`."""
        models = [
            run_experiment(
                force,
                variant,
                self.settings,
                self.regressor,
                self.seed,
                folder / self.scale,
                callbacks,
                self.device,
            )
            for force in self.expand("force", FORCES)
            for variant in self.expand("variant", VARIANTS)
        ]
        return build_report(models, scale=self.scale, regressor=self.regressor)
