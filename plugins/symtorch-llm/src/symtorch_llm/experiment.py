"""One model and some of its MLPs: what may replace them is fitted, tuned, judged and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core import Activations, BackendError, SymbolicModel
from symtorch_core.events import Callback
from symtorch_core.studies import Descent, Store, make_key
from symtorch_llm.fitting.baselines import BASELINES, Sizes
from symtorch_llm.fitting.recipes import Recipe
from symtorch_llm.fitting.tuning import Tuning, tune
from symtorch_llm.judging.costs import count_multiply_adds
from symtorch_llm.judging.layers import Zero
from symtorch_llm.models.tasks import HeldOut, Task
from symtorch_llm.models.transformer import get_device, place_modules
from symtorch_llm.text import Batch

_LOSSES = "losses"


@final
@dataclass(frozen=True)
class Experiment:
    """The model, the text and the rows that all variants share.

    Attributes:
        model: with its own MLPs in place.
        task: by which variants are judged.
        mlps: those that are replaced, by path.
        rows: inputs and outputs of these, by path.
        fit: batches to tune on.
        held_out: batches to judge on; not used for fitting or choosing.
        folder: where finished searches and tunings are kept.
        key: of what else decides the results: model, text, layers; see :func:`symtorch_core.studies.make_key`.
        callbacks: told of progress.
    """

    model: nn.Module
    task: Task
    mlps: Mapping[str, nn.Module]
    rows: Mapping[str, Activations]
    fit: Sequence[Batch]
    held_out: HeldOut
    folder: Path
    key: str
    callbacks: Sequence[Callback] = ()

    def restrict(self, paths: Sequence[str]) -> Experiment:
        """Return the experiment for some of the MLPs."""
        return replace(self, mlps={p: self.mlps[p] for p in paths}, rows={p: self.rows[p] for p in paths})


@final
@dataclass(frozen=True, eq=False)
class Variant:
    """Modules in the place of the MLPs, and their scores.

    Attributes:
        name: for tables.
        modules: by path; empty for the model itself.
        cost: multiply-adds for a token, over those of the MLPs.
        raw: the score as fitted.
        score: after tuning; NaN where nothing was tuned.
        tuning: what the tuning did; None where nothing was tuned.
        seed: of searches, networks and tuning.
    """

    name: str
    modules: Mapping[str, nn.Module]
    cost: float
    raw: float
    score: float = math.nan
    tuning: Descent | None = None
    seed: int = 0

    @property
    def final(self) -> float:
        """The score that counts: after tuning, where there was any."""
        return self.raw if self.tuning is None else self.score


def judge_references(experiment: Experiment) -> list[Variant]:
    """Judge the original model, the model with MLPs that return zeros, and with MLPs that return their inputs."""
    made: dict[str, Callable[[], nn.Module] | None] = {
        "baseline": None,
        "MLP zero": Zero,
        "control (output = input)": nn.Identity,
    }
    found = []
    for name, make in made.items():
        modules = {} if make is None else {path: make() for path in experiment.mlps}
        found.append(Variant(name, modules, 1.0 if make is None else 0.0, _score(experiment, modules)))
    return found


def judge_recipe(experiment: Experiment, recipe: Recipe, seed: int) -> Variant:
    """Judge the equations of a recipe, tuned if the recipe says so."""
    blocks = recipe.build_blocks(
        experiment.rows,
        experiment.mlps,
        seed=seed,
        callbacks=experiment.callbacks,
        resume=experiment.folder / "searches",
    )
    return tune_and_judge(experiment, recipe.name, blocks, recipe.tuning, seed)


def judge_baseline(
    experiment: Experiment, name: str, sizes: Sizes, tuning: Tuning | None, seed: int
) -> Variant:
    """Judge one of :data:`BASELINES`, tuned by the same steps as equations."""
    modules = {
        path: BASELINES[name](rows, sizes, seed).to(get_device(experiment.model))
        for path, rows in experiment.rows.items()
    }
    return tune_and_judge(experiment, name, modules, tuning, seed)


def tune_and_judge(
    experiment: Experiment, name: str, modules: Mapping[str, nn.Module], tuning: Tuning | None, seed: int
) -> Variant:
    """Judge modules as they are, tune them and judge them again; a finished tuning is not repeated.

    Raises:
        BackendError: the tuning was stopped; half a tuning must not be reported as a whole one.
    """
    cost = sum(map(count_multiply_adds, modules.values())) / sum(
        map(count_multiply_adds, experiment.mlps.values())
    )
    variant = Variant(name, modules, cost, _score(experiment, modules), seed=seed)
    if tuning is None:
        return variant
    before = _list_parameters(modules)
    settings = [experiment.key, name, sorted(before), asdict(tuning), seed]
    key = make_key(settings, [before[path] for path in sorted(before)])
    store = Store(experiment.folder / "tunings")
    kept = store.read_tensors(key)
    if kept is None:
        done = tune(
            experiment.model,
            modules,
            experiment.fit,
            experiment.task,
            tuning,
            seed=seed,
            callbacks=experiment.callbacks,
        )
        if done.interrupted:
            raise BackendError(
                "stopped while tuning; what was finished before is kept: run it again to go on"
            )
        store.write_tensors(key, {**_list_parameters(modules), _LOSSES: done.losses}, _to_plain(done))
    else:
        tensors, about = kept
        done = Descent(**about, losses=tensors.pop(_LOSSES))
        _set_parameters(modules, tensors)
    return replace(variant, score=_score(experiment, modules), tuning=done)


def list_symbolic_blocks(variant: Variant) -> dict[str, SymbolicModel]:
    """Return the variant's blocks that run on equations, by path."""
    return {path: module for path, module in variant.modules.items() if isinstance(module, SymbolicModel)}


def _score(experiment: Experiment, modules: Mapping[str, nn.Module]) -> float:
    with place_modules(experiment.model, modules):
        return experiment.task.score(experiment.model, experiment.held_out)


def _to_plain(done: Descent) -> dict[str, Any]:
    return {name: value for name, value in vars(done).items() if name != "losses"}


def _list_parameters(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the parameters that tuning may change, by path; never those of the MLPs themselves."""
    return {
        f"{path}.{name}": parameter.detach().cpu().contiguous()
        for path, module in modules.items()
        for name, parameter in module.named_parameters()
        if not (isinstance(module, SymbolicModel) and name.startswith("block."))
    }


def _set_parameters(modules: Mapping[str, nn.Module], saved: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for path, module in modules.items():
            for name, parameter in module.named_parameters():
                if f"{path}.{name}" in saved:
                    parameter.copy_(saved[f"{path}.{name}"])
