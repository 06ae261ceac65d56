"""Modules in a model are tuned towards what it gave; costs are counted."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import symtorch_core as st
from symtorch_core import SearchError, UnknownComponentError
from symtorch_core.events import Event, Interrupted, StageAdvanced
from symtorch_core.expressions import parse
from symtorch_llm.fitting.baselines import BASELINES, Sizes, choose_ridge, fit_linear_map
from symtorch_llm.fitting.recipes import (
    build_best_recipe,
    build_paper_recipe,
    evaluate_mlp,
    fit_rebuilding_map,
)
from symtorch_llm.fitting.rows import RIDGES, Rows, compute_stop_loss
from symtorch_llm.fitting.tuning import Tuning, tune
from symtorch_llm.judging.costs import count_multiply_adds, count_operations
from symtorch_llm.models.loading import load_causal
from symtorch_llm.models.passages import Passages, prepare_passages, read_passages
from symtorch_llm.models.tasks import LanguageModelling
from symtorch_llm.models.transformer import find_mlps
from symtorch_llm.text import Batch, build_batches, split_documents, tokenize

SHORT = Tuning(epochs=3, learning_rates=(0.01,))


@pytest.fixture(scope="module")
def model(toy: Path) -> nn.Module:
    return load_causal(str(toy))[0]


@pytest.fixture(scope="module")
def batches(toy: Path, toy_text: Path) -> list[Batch]:
    tokenizer = load_causal(str(toy))[1]
    return build_batches(
        tokenize(tokenizer, split_documents(toy_text.read_text(encoding="utf-8"), "one"), 40), 8
    )


@pytest.fixture(scope="module")
def texts(model: nn.Module, batches: list[Batch], tmp_path_factory: pytest.TempPathFactory) -> list[Passages]:
    """Text to tune on, and text to stop by."""
    found = prepare_passages(model, LanguageModelling(), batches, tmp_path_factory.mktemp("passages"))
    read_passages(found)
    return [found.take(range(1, len(batches))), found.take([0])]


@pytest.fixture(scope="module")
def rows(model: nn.Module, batches: list[Batch]) -> dict[str, Rows]:
    captured = st.capture(model, find_mlps(model), batches)
    return {path: Rows.split(some) for path, some in captured.items()}


def test_the_ridge_is_chosen_by_rows_of_other_text() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 40, generator=generator)  # few rows: without a ridge, the noise is learned too
    Y = X[:, :1] + 2 * torch.randn(60, 3, generator=generator)
    few = Rows(st.Activations.of(X[:45], Y[:45]), st.Activations.of(X[45:], Y[45:]))
    assert choose_ridge(few, None) == 1.0
    many = torch.randn(4000, 40, generator=generator)
    exact = Rows.split(st.Activations.of(many, many[:, :3]))
    assert (len(exact.fit), len(exact.stop)) == (3500, 500)
    assert choose_ridge(exact, None) == 1e-6
    found = {ridge: compute_stop_loss(fit_linear_map(few, None, [ridge]), few) for ridge in RIDGES}
    assert compute_stop_loss(fit_linear_map(few), few) == min(found.values())


@pytest.mark.parametrize("name", ["network between maps", "narrow SwiGLU"])
def test_trained_baselines_learn_what_they_can(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(8000, 6, generator=generator)
    rows = st.Activations.of(X, torch.stack([X[:, 0] * X[:, 1], X[:, 2]], dim=1))
    module = BASELINES[name](Rows.split(rows), Sizes(multiply_adds=500, k_in=4, k_out=1), 0)
    with torch.no_grad():
        left = (module(X) - rows.outputs).square().sum()
    assert left < 0.5 * (rows.outputs - rows.outputs.mean(0)).square().sum()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_costs_no_more_than_allowed_and_is_made_better_by_tuning(
    name: str, model: nn.Module, texts: list[Passages], rows: dict[str, Rows]
) -> None:
    before = copy.deepcopy(model.state_dict())
    sizes = Sizes(multiply_adds=400, k_in=4, k_out=2)
    modules = {path: BASELINES[name](some, sizes, 0) for path, some in rows.items()}
    for module in modules.values():
        assert module(torch.randn(2, 3, 16)).shape == (2, 3, 16)
        assert module(torch.randn(2, 16).bfloat16()).dtype == torch.bfloat16
        assert name == "full linear" or count_multiply_adds(module) <= 400
        assert not any(parameter.requires_grad for parameter in module.parameters())
    done = tune(modules, *texts, SHORT)
    assert done.after < done.before
    # Flags are as they were: the caller decides whether its modules go on learning.
    assert not any(p.requires_grad for module in modules.values() for p in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_same_seed_gives_the_same_and_another_another(
    model: nn.Module, texts: list[Passages], rows: dict[str, Rows]
) -> None:
    results = []
    for seed in (0, 0, 1):
        modules = {
            path: BASELINES["narrow SwiGLU"](some, Sizes(300, 4, 2), seed) for path, some in rows.items()
        }
        results.append(tune(modules, *texts, replace(SHORT, epochs=1), seed=seed).after)
    assert results[0] == results[1] != results[2]


def test_the_learning_rate_is_the_best_of_short_trials_which_leave_nothing_behind(
    texts: list[Passages], rows: dict[str, Rows]
) -> None:
    def build() -> dict[str, nn.Module]:
        return {path: BASELINES["constant"](some, Sizes(0, 1, 1), 0) for path, some in rows.items()}

    rates = (1e-7, 0.05)  # the first moves nothing
    chosen, alone = build(), build()
    done = tune(chosen, *texts, Tuning(epochs=2, learning_rates=rates))
    expected = tune(alone, *texts, Tuning(epochs=2, learning_rates=rates[1:]))
    assert (done.before, done.after) == (expected.before, expected.after)
    for path, module in chosen.items():
        assert torch.equal(module.vector, alone[path].vector)
    with pytest.raises(SearchError, match="a learning rate"):
        tune(chosen, *texts, Tuning(learning_rates=()))


def test_a_stopped_tuning_keeps_its_best(
    model: nn.Module, texts: list[Passages], rows: dict[str, Rows]
) -> None:
    modules = {path: BASELINES["constant"](some, Sizes(0, 1, 1), 0) for path, some in rows.items()}
    events: list[Event] = []

    def stop(event: Event) -> None:
        events.append(event)
        if isinstance(event, StageAdvanced):
            raise KeyboardInterrupt

    done = tune(modules, *texts, SHORT, callbacks=[stop])
    assert done.interrupted
    assert any(isinstance(event, Interrupted) for event in events)
    assert done.after < done.before


def test_settings_that_make_no_sense_are_refused(texts: list[Passages]) -> None:
    fit, stop = texts
    for tuning, some in ((Tuning(epochs=-1), stop), (Tuning(checks=0), stop), (SHORT, stop.take([]))):
        with pytest.raises(SearchError, match="text to stop by"):
            tune({}, fit, some, tuning)
    assert tune({}, *texts, SHORT).epochs == 0


def test_best_puts_equations_in_place_and_tuning_changes_their_constants(
    model: nn.Module, texts: list[Passages], rows: dict[str, Rows]
) -> None:
    mlps = {path: model.get_submodule(path) for path in rows}
    blocks = build_best_recipe(4, 2, terms=5).build_blocks(rows, mlps)
    (first, *_) = blocks.values()
    assert first.mode == "symbolic"
    assert first.distillation.reduction.linear is not None
    before = first.equations()
    assert tune(blocks, *texts, SHORT).after < float("inf")
    assert first.equations() != before
    assert first.equations().keys() == before.keys()


def test_the_papers_recipe_fits_the_exact_mlp_between_the_maps(
    model: nn.Module, rows: dict[str, Rows]
) -> None:
    path, both = next(iter(rows.items()))
    some, mlp = both.fit, model.get_submodule(path)
    recipe = build_paper_recipe(2, 1, regressor="sparse")
    with pytest.raises(UnknownComponentError, match="no_such"):
        build_paper_recipe(2, 1, regressor="no_such").distill(both, mlp)
    result = recipe.distill(both, mlp)
    reduction = st.load("reducers", "pca")(k_in=2, k_out=1).fit(
        some.inputs, some.outputs, variable_names=some.input_names
    )
    between = evaluate_mlp(mlp, fit_rebuilding_map(reduction, some.inputs)(some.inputs))
    assert result.train is not None
    whole = st.Activations.of(some.inputs, between)
    expected, _ = whole.split(0.2, 0)
    torch.testing.assert_close(result.train.outputs, expected.outputs)


def test_rebuilding_keeps_what_all_components_keep(rows: dict[str, Rows]) -> None:
    some = next(iter(rows.values())).fit
    whole = st.load("reducers", "pca")(k_in=16).fit(
        some.inputs, some.outputs, variable_names=some.input_names
    )
    torch.testing.assert_close(
        fit_rebuilding_map(whole, some.inputs)(some.inputs), some.inputs, rtol=1e-3, atol=1e-3
    )
    half = st.load("reducers", "pca")(k_in=8).fit(some.inputs, some.outputs, variable_names=some.input_names)
    rebuilt = fit_rebuilding_map(half, some.inputs)(some.inputs)
    left = (some.inputs - rebuilt).square().sum()
    assert 0 < left < (some.inputs - some.inputs.mean(0)).square().sum()
    torch.testing.assert_close(fit_rebuilding_map(half, some.inputs)(rebuilt), rebuilt, rtol=1e-3, atol=1e-3)


def test_costs_are_those_counted_by_hand() -> None:
    assert (
        count_operations([parse("2*x*y + sin(x)"), parse("3*(x*y) - x/y")]) == 6
    )  # 2*x, *y, sin; 3*, x*y, /
    assert count_operations([parse("x*y + 1"), parse("(x*y)*x")]) == 2
    assert (
        count_multiply_adds(GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2)).transformer.h[0].mlp)
        == 512
    )
    X = torch.randn(50, 6)
    result = st.distill(
        (X, X[:, :2]),
        regressor="sparse",
        reducer="pca",
        reducer_options={"k_in": 3, "linear": True},
        progress=False,
    )
    block = st.SymbolicModel(nn.Linear(6, 2)).adopt(result)
    assert count_multiply_adds(block) == 12  # in block mode, what the block costs
    block.switch_to_symbolic()
    equations = count_operations([candidate.expression for candidate in result.chosen()])
    assert count_multiply_adds(block) == 6 * 3 + 3 * 2 + equations
