"""Choice of layers: which of them a budget lets equations replace, and what each further one costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from symtorch_core import SearchError, SymbolicModel
from symtorch_llm.experiment import (
    JUDGED,
    Experiment,
    build_blocks,
    list_parameters,
    set_parameters,
    tune_and_judge,
)
from symtorch_llm.fitting.baselines import BASELINES, Sizes
from symtorch_llm.fitting.recipes import Recipe
from symtorch_llm.judging.costs import count_multiply_adds
from symtorch_llm.judging.layers import (
    LayerChoice,
    Replaced,
    Zero,
    choose_layers,
    scan_layers,
    trace_frontier,
)
from symtorch_llm.models.transformer import get_device

Build = Callable[[str], SymbolicModel]
"""From the path of an MLP to the MLP on its equations, as fitted."""


def build_once(experiment: Experiment, recipe: Recipe, seed: int) -> Build:
    """Return a function that finds a layer's equations when they are first asked for, and never again.

    A layer's equations do not depend on which others are replaced; what was tuned since is undone.
    """
    made: dict[str, tuple[SymbolicModel, dict[str, Tensor]]] = {}

    def build(path: str) -> SymbolicModel:
        if path not in made:
            blocks = build_blocks(experiment.restrict([path]), recipe, seed)
            start = {name: value.clone() for name, value in list_parameters(blocks).items()}
            made[path] = blocks[path], start
        block, start = made[path]
        set_parameters({path: block}, start)
        return block

    return build


def pick_layers(
    experiment: Experiment,
    numbers: Mapping[str, int],
    build: Build,
    recipe: Recipe,
    *,
    rank: int,
    budget: float,
    seed: int,
) -> LayerChoice:
    """Pick as many layers as a budget allows, on the text that is there to choose by.

    Args:
        experiment: all layers.
        numbers: of the layers, by path.
        build: builds equations, see :func:`build_once`.
        recipe: says how these are tuned.
        rank: of the linear maps by which layers are ranked.
        budget: by how much the loss may rise, in nats for each token.
        seed: of the tuning.

    Raises:
        SearchError: not even one layer fits.
    """
    level = experiment.task.compute_level

    def measure(modules: Mapping[str, nn.Module]) -> float:
        return level(experiment.score(modules, experiment.stop))

    def score(chosen: Sequence[str]) -> float:
        some = replace(experiment.restrict(chosen), judged={JUDGED: experiment.stop})
        blocks = {path: build(path) for path in chosen}
        return level(tune_and_judge(some, recipe.name, blocks, recipe.tuning, seed).final)

    costs = scan_layers(
        experiment.rows,
        numbers,
        measure,
        rank=rank,
        device=get_device(experiment.model),
        callbacks=experiment.callbacks,
    )
    baseline = measure({})
    chosen, scores = choose_layers(costs, score, baseline + budget)
    rises = tuple(score - baseline for score in scores)
    if not chosen:
        raise SearchError(
            f"no layer can be replaced within budget={budget}: the cheapest, {costs[0].path}, adds "
            f"{rises[0]:.3g}. Give a larger budget, or larger k_in, k_out and terms"
        )
    return LayerChoice(tuple(chosen), tuple(costs), rises, budget)


def measure_frontier(
    experiment: Experiment,
    paths: Sequence[str],
    build: Build,
    recipe: Recipe,
    *,
    k_in: int,
    k_out: int,
    seed: int,
) -> list[Replaced]:
    """Replace more and more layers, as fitted, and judge them on text that nothing was chosen by.

    Args:
        experiment: all layers.
        paths: of the MLPs, the one that is replaced first at first.
        build: builds equations, see :func:`build_once`.
        recipe: of the equations, for the name.
        k_in, k_out: dimensions of the baselines' maps.
        seed: of the baselines.
    """
    device = get_device(experiment.model)
    sizes = Sizes(count_multiply_adds(build(paths[0])), k_in, k_out)

    def build_baseline(name: str) -> Callable[[str], nn.Module]:
        return lambda path: BASELINES[name](experiment.rows[path], sizes, seed).to(device)

    return trace_frontier(
        paths,
        {
            f"equations ({recipe.name})": build,
            **{name: build_baseline(name) for name in ("linear of equal cost", "narrow SwiGLU")},
            "removed": lambda path: Zero(),
        },
        lambda modules: experiment.score(modules, experiment.judged[JUDGED]),
        callbacks=experiment.callbacks,
    )
