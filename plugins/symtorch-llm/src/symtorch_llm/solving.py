"""One model, some of its MLPs: what stands in their place, fitted, tuned, and judged beside one another."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from symtorch_core import Activations, BackendError, SymbolicModel
from symtorch_core.events import Callback
from symtorch_llm.baselines import BASELINES, Sizes
from symtorch_llm.costs import multiply_adds
from symtorch_llm.layers import Zero
from symtorch_llm.models import device_of, placed
from symtorch_llm.recipes import Recipe
from symtorch_llm.tasks import HeldOut, Task
from symtorch_llm.text import Batch
from symtorch_llm.tuning import Tuned, Tuning, tune


@final
@dataclass(frozen=True)
class Bench:
    """What all variants share.

    Attributes:
        model: as it was, its MLPs in place.
        task: that judges.
        mlps: those that are replaced, by path.
        rows: that passed them.
        fit: batches to tune on.
        held_out: batches to judge on; nothing is fitted or chosen by them.
        folder: where finished searches and tunings are kept and looked up.
        told: what decides the numbers besides: model, text, layers, in words.
        callbacks: told of progress.
    """

    model: nn.Module
    task: Task
    mlps: Mapping[str, nn.Module]
    rows: Mapping[str, Activations]
    fit: Sequence[Batch]
    held_out: HeldOut
    folder: Path
    told: str
    callbacks: Sequence[Callback] = ()

    def only(self, paths: Sequence[str]) -> Bench:
        """For some of the MLPs."""
        return replace(self, mlps={p: self.mlps[p] for p in paths}, rows={p: self.rows[p] for p in paths})


@final
@dataclass(frozen=True, eq=False)
class Variant:
    """Something in the place of the MLPs.

    Attributes:
        name: for tables.
        modules: by path; none for the model itself.
        cost: multiply-adds for a token, over those of the MLPs.
        raw: the score as fitted.
        score: after tuning; NaN where nothing was tuned.
        tuned: what tuning did; None where nothing was tuned.
        seed: of it.
    """

    name: str
    modules: Mapping[str, nn.Module]
    cost: float
    raw: float
    score: float = math.nan
    tuned: Tuned | None = None
    seed: int = 0

    @property
    def final(self) -> float:
        """The score that counts: after tuning, where there was any."""
        return self.raw if self.tuned is None else self.score


def untouched_and_empty(bench: Bench) -> list[Variant]:
    """The model as it was; its MLPs giving nothing; and the paper's control, MLPs that give what they get."""
    made: dict[str, Callable[[], nn.Module] | None] = {
        "baseline": None,
        "MLP zero": Zero,
        "control (output = input)": nn.Identity,
    }
    found = []
    for name, make in made.items():
        modules = {} if make is None else {path: make() for path in bench.mlps}
        found.append(Variant(name, modules, 1.0 if make is None else 0.0, _score(bench, modules)))
    return found


def with_recipe(bench: Bench, recipe: Recipe, seed: int) -> Variant:
    """Equations by a recipe, tuned where it says so."""
    blocks = recipe.blocks(
        bench.rows, bench.mlps, seed=seed, callbacks=bench.callbacks, resume=bench.folder / "searches"
    )
    return judged(bench, recipe.name, blocks, recipe.tuning, seed)


def with_baseline(bench: Bench, name: str, sizes: Sizes, tuning: Tuning | None, seed: int) -> Variant:
    """One of :data:`BASELINES`, tuned by the same steps as equations."""
    modules = {
        path: BASELINES[name](rows, sizes, seed).to(device_of(bench.model))
        for path, rows in bench.rows.items()
    }
    return judged(bench, name, modules, tuning, seed)


def judged(
    bench: Bench, name: str, modules: Mapping[str, nn.Module], tuning: Tuning | None, seed: int
) -> Variant:
    """Modules judged as they are, then tuned and judged again. A tuning that was finished before is looked up.

    Raises:
        BackendError: the tuning was stopped; what it had is not reported as a whole one.
    """
    cost = sum(map(multiply_adds, modules.values())) / sum(map(multiply_adds, bench.mlps.values()))
    variant = Variant(name, modules, cost, _score(bench, modules), seed=seed)
    if tuning is None:
        return variant
    kept = _kept(bench, name, modules, tuning, seed)
    if kept.exists():
        tuned = Tuned(**json.loads(kept.read_text(encoding="utf-8")))
        _restore(modules, load_file(kept.with_suffix(".safetensors")))
    else:
        tuned = tune(
            bench.model, modules, bench.fit, bench.task, tuning, seed=seed, callbacks=bench.callbacks
        )
        if tuned.interrupted:
            raise BackendError(
                "stopped while tuning; what was finished before is kept: run it again to go on"
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file(_parameters(modules), kept.with_suffix(".safetensors"))
        kept.write_text(json.dumps(asdict(tuned)), encoding="utf-8")  # last: it says that all is there
    return replace(variant, score=_score(bench, modules), tuned=tuned)


def equations_of(variant: Variant) -> dict[str, SymbolicModel]:
    """The variant's blocks that run on equations, by path."""
    return {path: module for path, module in variant.modules.items() if isinstance(module, SymbolicModel)}


def _score(bench: Bench, modules: Mapping[str, nn.Module]) -> float:
    with placed(bench.model, modules):
        return bench.task.score(bench.model, bench.held_out)


def _kept(bench: Bench, name: str, modules: Mapping[str, nn.Module], tuning: Tuning, seed: int) -> Path:
    """The file of a finished tuning; its name holds a digest of all that decides the result."""
    told: list[Any] = [bench.told, name, sorted(modules), asdict(tuning), seed]
    digest = hashlib.sha256(json.dumps(told).encode())
    for key, value in sorted(_parameters(modules).items()):
        digest.update(key.encode())
        digest.update(value.double().numpy().tobytes())
    return bench.folder / "tunings" / f"{digest.hexdigest()[:24]}.json"


def _parameters(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """What tuning may change, by path; never the MLPs themselves."""
    return {
        f"{path}.{name}": parameter.detach().cpu().contiguous()
        for path, module in modules.items()
        for name, parameter in module.named_parameters()
        if not (isinstance(module, SymbolicModel) and name.startswith("block."))
    }


def _restore(modules: Mapping[str, nn.Module], saved: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for path, module in modules.items():
            for name, parameter in module.named_parameters():
                if f"{path}.{name}" in saved:
                    parameter.copy_(saved[f"{path}.{name}"])
