"""Surrogates go to a folder and back; layers are ranked; speed is measured in turns."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import symtorch_core as st
from symtorch_core import CaptureError, FileFormatError, SwitchError
from symtorch_core.studies import Store
from symtorch_llm.fitting.recipes import build_best_recipe
from symtorch_llm.fitting.rows import Rows
from symtorch_llm.fitting.tuning import Tuning, tune
from symtorch_llm.judging.layers import (
    Between,
    LayerCost,
    Zero,
    choose_layers,
    measure_sensitivity,
    scan_layers,
)
from symtorch_llm.judging.speed import Speed, build_token_block, measure_speeds
from symtorch_llm.models.loading import load_causal
from symtorch_llm.models.passages import Passages, prepare_passages, read_passages
from symtorch_llm.models.saving import LAYERS, TENSORS, load_surrogates, save_surrogates
from symtorch_llm.models.tasks import Embedding, LanguageModelling
from symtorch_llm.models.transformer import count_bytes, find_mlps, place_modules
from symtorch_llm.reporting.figures import find_pareto_front
from symtorch_llm.text import build_batches, split_documents, tokenize

IDS = torch.tensor([[1, 4, 5, 6, 7, 8]])


@pytest.fixture
def model(toy: Path) -> Any:
    return load_causal(str(toy))[0]


@pytest.fixture
def passages(model: Any, toy: Path, toy_text: Path, tmp_path: Path) -> Passages:
    tokenizer = load_causal(str(toy))[1]
    tokens = tokenize(tokenizer, split_documents(toy_text.read_text("utf-8"), "one"), 40)
    found = prepare_passages(model, LanguageModelling(), build_batches(tokens, 16), tmp_path / "passages")
    read_passages(found)
    return found


@pytest.fixture
def rows(model: Any, passages: Passages) -> dict[str, Rows]:
    captured = st.capture(model, find_mlps(model), list(passages.batches))
    return {path: Rows.split(some) for path, some in captured.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "saved"
    made.mkdir()
    return made


def replaced(model: Any, rows: dict[str, Rows], passages: Passages) -> dict[str, st.SymbolicModel]:
    blocks = build_best_recipe(4, 2, terms=4).build_blocks(
        rows, {path: model.get_submodule(path) for path in rows}
    )
    tune(blocks, passages.take([0, 1]), passages.take([2]), Tuning(epochs=1))
    return blocks


def test_surrogates_come_back_as_they_were_and_the_model_writes(
    model: Any, rows: dict[str, Rows], passages: Passages, toy: Path, folder: Path
) -> None:
    blocks = replaced(model, rows, passages)
    with place_modules(model, blocks):
        wanted = model(input_ids=IDS).logits
        save_surrogates(model, folder)
        equations = {path: block.equations() for path, block in blocks.items()}
    assert {file.name for file in folder.iterdir()} == {TENSORS, LAYERS}
    fresh = load_causal(str(toy))[0]
    before = count_bytes([fresh])
    loaded = load_surrogates(fresh, folder)
    torch.testing.assert_close(fresh(input_ids=IDS).logits, wanted, rtol=0, atol=0)
    assert all(block.released for block in loaded)
    # The weights of both MLPs are gone; what came instead is smaller.
    gone = count_bytes([model.get_submodule(path) for path in rows])
    came = count_bytes([block.surrogate for block in loaded if block.surrogate])
    assert count_bytes([fresh]) == before - gone + came
    assert [block.equations() for block in loaded] == list(equations.values())
    written = fresh.generate(IDS, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert written.shape[1] > IDS.shape[1]
    # And once more, from the loaded model, beside its own checkpoint.
    fresh.save_pretrained(folder / "again")
    assert (save_surrogates(fresh, folder / "again") / "config.json").is_file()
    again = load_causal(str(toy))[0]
    load_surrogates(again, folder / "again")
    torch.testing.assert_close(again(input_ids=IDS).logits, wanted, rtol=0, atol=0)
    kept = load_causal(str(toy))[0]
    (first, *_) = load_surrogates(kept, folder, release_block=False)
    first.switch_to_block()


def test_what_is_not_there_or_damaged_is_said(
    model: Any, rows: dict[str, Rows], passages: Passages, toy: Path, folder: Path
) -> None:
    with pytest.raises(SwitchError, match="nothing in the model"):
        save_surrogates(model, folder)
    with pytest.raises(FileFormatError, match="holds no surrogates: there is no symbolic.safetensors"):
        load_surrogates(model, folder)
    with place_modules(model, replaced(model, rows, passages)):
        save_surrogates(model, folder)
    with pytest.raises(FileFormatError, match="another model"):
        load_surrogates(nn.Linear(2, 2), folder)
    whole = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=f"{TENSORS} is damaged"):
        load_surrogates(load_causal(str(toy))[0], folder)


def test_a_part_that_is_damaged_leaves_the_model_as_it_was(
    model: Any, rows: dict[str, Rows], passages: Passages, toy: Path, folder: Path
) -> None:
    with place_modules(model, replaced(model, rows, passages)):
        save_surrogates(model, folder)
    store = Store(folder)
    tensors, about = store.read_tensors("symbolic")  # type: ignore[misc]
    last = list(rows)[-1]
    short = {
        name: value[:1] if name.startswith(f"{last}.surrogate.") else value for name, value in tensors.items()
    }
    fresh = load_causal(str(toy))[0]
    before = fresh(input_ids=IDS).logits
    for damaged, title in ((short, about), (tensors, {**about, "schema": 99}), (tensors, [])):
        store.write_tensors("symbolic", damaged, title)
        with pytest.raises(FileFormatError):
            load_surrogates(fresh, folder)
        assert not any(isinstance(module, st.SymbolicModel) for module in fresh.modules())
    torch.testing.assert_close(fresh(input_ids=IDS).logits, before, rtol=0, atol=0)


def test_layers_are_ranked_by_what_their_replacement_costs(
    model: Any, rows: dict[str, Rows], passages: Passages
) -> None:
    paths = find_mlps(model)

    def score(modules: Mapping[str, nn.Module]) -> float:
        with place_modules(model, modules):
            return passages.score()

    found = scan_layers(
        rows, {path: number for number, path in enumerate(paths)}, score, rank=4, device=torch.device("cpu")
    )
    assert [cost.linear for cost in found] == sorted(cost.linear for cost in found)
    for cost in found:
        assert paths[cost.layer] == cost.path
        assert score({cost.path: Zero()}) == pytest.approx(cost.zero)


def test_as_many_layers_are_replaced_as_fit() -> None:
    costs = [LayerCost(number, f"layer{number}", 9.0, 1.0) for number in (2, 0, 1)]
    asked = []

    def score(paths: Any) -> float:
        asked.append(list(paths))
        return float(len(paths))

    assert choose_layers(costs, score, 2.0) == (["layer2", "layer0"], [1.0, 2.0, 3.0])
    assert asked[-1] == ["layer2", "layer0", "layer1"]
    assert choose_layers(costs, score, 0.5) == ([], [1.0])
    assert choose_layers(costs, score, 9.0)[0] == ["layer2", "layer0", "layer1"]
    assert choose_layers(costs, lambda paths: float("nan"), 9.0)[0] == []


def test_maps_that_keep_all_change_nothing(model: Any, rows: dict[str, Rows], passages: Passages) -> None:
    mlps = {path: model.get_submodule(path) for path in rows}

    def score(modules: Mapping[str, nn.Module]) -> float:
        with place_modules(model, modules):
            return passages.score()

    found = measure_sensitivity(
        mlps, rows, score, reducers=["pca"], k_in=(2, 16, 32), k_out=(16,), device=torch.device("cpu")
    )
    assert [(s.k_in, s.k_out) for s in found] == [(2, 16), (16, 16)]  # 32 is more than the model has
    assert found[1].score == pytest.approx(passages.score(), rel=1e-3)
    assert found[0].score != pytest.approx(found[1].score, rel=1e-3)
    path, both = next(iter(rows.items()))
    some = both.fit
    reduction = st.load("reducers", "pca")(k_in=16, k_out=16).fit(
        some.inputs, some.outputs, variable_names=some.input_names
    )
    half = Between(copy.deepcopy(mlps[path]).bfloat16(), nn.Linear(16, 16), reduction)
    assert half(torch.zeros(2, 16).bfloat16()).dtype == torch.bfloat16


def test_speeds_take_turns_and_leave_the_model(model: Any) -> None:
    calls: list[str] = []

    class Noted(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(self.name)
            return x

    path = find_mlps(model)[0]
    before = model.get_submodule(path)
    found = measure_speeds(
        model, {"a": {path: Noted("a")}, "b": {path: Noted("b")}}, IDS, rounds=3, warmups=1, use_cache=False
    )
    assert calls == ["a", "b"] * 4
    assert model.get_submodule(path) is before
    assert [len(speed.seconds) for speed in found.values()] == [3, 3]
    assert found["a"].tokens == 6


def test_figures_of_speed() -> None:
    speed = Speed(100, (1.0, 2.0, 9.0))
    assert speed.throughput == 50
    assert speed.latency == 4
    assert speed.p95 == pytest.approx(8.3)
    block = build_token_block([torch.tensor([1, 2, 3])], 2, 4)
    assert block.tolist() == [[1, 2, 3, 1], [2, 3, 1, 2]]
    with pytest.raises(CaptureError, match="no tokens"):
        build_token_block([], 1, 1)


def test_the_front_and_the_way_back() -> None:
    assert find_pareto_front([("a", 1.0, 5.0), ("b", 1.0, 5.0), ("c", 2.0, 4.0)]) == ["c"]
    task = LanguageModelling()
    assert task.compute_won_back(10.0, 1000.0, 10.0) == 1
    assert task.compute_won_back(1000.0, 1000.0, 10.0) == 0
    assert task.compute_won_back(100.0, 1000.0, 10.0) == pytest.approx(0.5)
    assert math.isnan(task.compute_won_back(math.inf, 10.0, 1.0))
    assert Embedding().compute_won_back(0.1, 0.4, 0.0) == pytest.approx(0.75)
