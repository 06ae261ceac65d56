"""The study: simulate, train, distill, judge, report (SymTorch paper, 4.2 and E)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, final

from symtorch_core import load
from symtorch_core.events import Callback
from symtorch_core.studies import Study, StudyReport, setting
from symtorch_gnn.experiment import Scale, run_experiment
from symtorch_gnn.forces import FORCES
from symtorch_gnn.network import VARIANTS
from symtorch_gnn.report import build_report
from symtorch_gnn.training import Settings


@final
@dataclass(frozen=True)
class GnnStudy(Study):
    """Force laws out of the messages of graph networks (SymTorch paper, 4.2 and E)."""

    name: ClassVar[str] = "gnn"
    scales: ClassVar[Mapping[str, Scale]] = {
        # Of a training: simulations, epochs, batch, hidden units, activation, learning rate. Then: test simulations,
        # iterations and seconds of a search.
        "tiny": Scale(Settings(50, 2, 128, 32, "silu", 5e-3, warmup=0.1), 20, 20, 5.0),
        # Smooth units and a third of the paper's shift learn more per second; many simulations seen few times,
        # because rare near encounters are otherwise learned by heart.
        "laptop": Scale(Settings(8000, 4, 256, 64, "silu", 5e-3, warmup=0.1, shift=1.0), 200, 400, 60.0),
        # As wide as in the paper, batches that fill a GPU, about as many steps as at laptop scale.
        "gpu": Scale(Settings(8000, 32, 2048, 300, "silu", 2e-3, warmup=0.05, shift=1.0), 200, 400, 60.0),
        "paper": Scale(Settings(), 500, 7_000, None),
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
        # Before any training: a misspelt name must not cost an hour.
        self.at_least(0, "seed")
        load("regressors", self.regressor)
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
