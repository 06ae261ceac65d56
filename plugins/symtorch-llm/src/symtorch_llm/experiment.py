"""One model and some of its MLPs: what may replace them is fitted, tuned, judged and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from symtorch_core import BackendError, SymbolicModel
from symtorch_core.events import Callback
from symtorch_core.studies import Descent, Store, make_key
from symtorch_llm.fitting.baselines import BASELINES, Sizes
from symtorch_llm.fitting.recipes import Recipe
from symtorch_llm.fitting.rows import Rows
from symtorch_llm.fitting.tuning import Tuning, tune
from symtorch_llm.judging.costs import count_multiply_adds
from symtorch_llm.judging.layers import Zero, build_between
from symtorch_llm.models.passages import Measured, Passages
from symtorch_llm.models.tasks import Task
from symtorch_llm.models.transformer import get_device, place_modules

JUDGED: Final = "judged"
"""Name of the text that nothing is fitted to or chosen by."""
FITTED: Final = "fit"
"""Name of the text that everything is fitted to, where it is judged on too."""
BETWEEN: Final = "exact MLPs between PCAs"
_LOSSES = "losses"


@final
@dataclass(frozen=True)
class Experiment:
    """The model, the text and the rows that all variants share.

    Attributes:
        model: with its own MLPs in place.
        task: by which variants are judged.
        mlps: those that are replaced, by path.
        rows: inputs and outputs of these, by path: for the text to fit to, and for that to stop by.
        fit: text to tune on.
        stop: text that decides when to stop, and what to choose.
        judged: text that nothing is fitted to or chosen by, under :data:`JUDGED`, and further texts, by name.
        folder: where finished searches, tunings and scores are kept.
        callbacks: told of progress.
    """

    model: nn.Module
    task: Task
    mlps: Mapping[str, nn.Module]
    rows: Mapping[str, Rows]
    fit: Passages
    stop: Passages
    judged: Mapping[str, Passages]
    folder: Path
    callbacks: Sequence[Callback] = ()

    def restrict(self, paths: Sequence[str]) -> Experiment:
        """Return the experiment for some of the MLPs."""
        return replace(self, mlps={p: self.mlps[p] for p in paths}, rows={p: self.rows[p] for p in paths})

    def measure(self, modules: Mapping[str, nn.Module], passages: Passages) -> Measured:
        """Measure the model with these modules in place on a text; what was measured before is not measured again."""
        store = Store(self.folder / "scores")
        parameters = list_parameters(modules)
        settings = [list(passages.names), {path: describe(module) for path, module in modules.items()}]
        name = f"score-{make_key([*settings, list(parameters)], list(parameters.values()))}"
        known = store.read_json(name)
        if known is not None:
            return Measured(**known)
        with place_modules(self.model, modules):
            found = passages.measure()
        store.write_json(name, asdict(found))
        return found

    def score(self, modules: Mapping[str, nn.Module], passages: Passages) -> float:
        """Return the score of the model with these modules in place on a text."""
        return self.measure(modules, passages).score

    def judge(self, modules: Mapping[str, nn.Module]) -> dict[str, Measured]:
        """Measure the model with these modules in place on each text."""
        return {name: self.measure(modules, passages) for name, passages in self.judged.items()}


@final
@dataclass(frozen=True, eq=False)
class Variant:
    """Modules in the place of the MLPs, and their scores.

    Attributes:
        name: for tables.
        modules: by path; empty for the model itself.
        cost: multiply-adds for a token, over those of the MLPs.
        fitted: what it is worth as fitted, by the text's name.
        tuned: the same after tuning; empty where nothing was tuned.
        tuning: what the tuning did; None where nothing was tuned.
        seed: of searches, networks and tuning.
    """

    name: str
    modules: Mapping[str, nn.Module]
    cost: float
    fitted: Mapping[str, Measured]
    tuned: Mapping[str, Measured] = field(default_factory=dict)
    tuning: Descent | None = None
    seed: int = 0

    @property
    def raw(self) -> float:
        """The score as fitted, on text that nothing was fitted to."""
        return self.fitted[JUDGED].score

    @property
    def final(self) -> float:
        """The score that counts: after tuning, where there was any."""
        return (self.tuned or self.fitted)[JUDGED].score


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
        found.append(Variant(name, modules, 1.0 if make is None else 0.0, experiment.judge(modules)))
    return found


def judge_between(experiment: Experiment, k_in: int, k_out: int) -> Variant:
    """Judge the exact MLPs between PCAs: where a perfect search of the paper's recipe would end (its figure 4)."""
    modules = build_between(
        experiment.mlps, experiment.rows, "pca", k_in, k_out, get_device(experiment.model)
    )
    return Variant(BETWEEN, modules, 1.0, experiment.judge(modules))


def judge_recipe(experiment: Experiment, recipe: Recipe, seed: int) -> Variant:
    """Judge the equations of a recipe, tuned if the recipe says so."""
    blocks = build_blocks(experiment, recipe, seed)
    return tune_and_judge(experiment, recipe.name, blocks, recipe.tuning, seed)


def build_blocks(experiment: Experiment, recipe: Recipe, seed: int) -> dict[str, SymbolicModel]:
    """Return the MLPs on equations of a recipe, as fitted, by path; finished searches are not repeated."""
    return recipe.build_blocks(
        experiment.rows,
        experiment.mlps,
        seed=seed,
        callbacks=experiment.callbacks,
        resume=experiment.folder / "searches",
    )


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
    variant = Variant(name, modules, cost, experiment.judge(modules), seed=seed)
    if tuning is None or not tuning.epochs:
        return variant
    done = _tune_once(experiment, name, modules, tuning, seed)
    return replace(variant, tuned=experiment.judge(modules), tuning=done)


def _tune_once(
    experiment: Experiment, name: str, modules: Mapping[str, nn.Module], tuning: Tuning, seed: int
) -> Descent:
    before = list_parameters(modules)
    texts = [list(experiment.fit.names), list(experiment.stop.names)]
    settings = [name, sorted(before), asdict(tuning), seed, texts]
    key = make_key(settings, [before[path] for path in sorted(before)])
    store = Store(experiment.folder / "tunings")
    kept = store.read_tensors(key)
    if kept is not None:
        tensors, about = kept
        done = Descent(**about, losses=tensors.pop(_LOSSES))
        set_parameters(modules, tensors)
        return done
    done = tune(modules, experiment.fit, experiment.stop, tuning, seed=seed, callbacks=experiment.callbacks)
    if done.interrupted:
        raise BackendError("stopped while tuning; what was finished before is kept: run it again to go on")
    store.write_tensors(key, {**list_parameters(modules), _LOSSES: done.losses}, _to_plain(done))
    return done


def list_symbolic_blocks(variant: Variant) -> dict[str, SymbolicModel]:
    """Return the variant's blocks that run on equations, by path."""
    return {path: module for path, module in variant.modules.items() if isinstance(module, SymbolicModel)}


def describe(module: nn.Module) -> str:
    """Return what a module computes besides its parameters, as text."""
    if isinstance(module, SymbolicModel) and module.surrogate is not None:
        return f"{module.mode}: {[str(equation) for equation in module.surrogate.expressions()]}"
    return type(module).__name__


def list_parameters(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the parameters that tuning may change, by path; never those of the MLPs themselves."""
    return {
        f"{path}.{name}": parameter.detach().cpu().contiguous()
        for path, module in modules.items()
        for name, parameter in module.named_parameters()
        if not (isinstance(module, SymbolicModel) and name.startswith("block."))
    }


def set_parameters(modules: Mapping[str, nn.Module], saved: Mapping[str, Tensor]) -> None:
    """Give modules parameters of :func:`list_parameters`, in place."""
    with torch.no_grad():
        for path, module in modules.items():
            for name, parameter in module.named_parameters():
                if f"{path}.{name}" in saved:
                    parameter.copy_(saved[f"{path}.{name}"])


def _to_plain(done: Descent) -> dict[str, Any]:
    return {name: value for name, value in vars(done).items() if name != "losses"}
