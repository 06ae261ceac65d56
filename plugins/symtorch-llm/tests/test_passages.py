"""Passes over text start at the first replaced layer, and give what whole passes give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
)

from symtorch_core import FileFormatError, capture
from symtorch_core.events import Event, StageAdvanced
from symtorch_llm.models.passages import Passages, capture_rows, enter, prepare_passages, read_passages
from symtorch_llm.models.tasks import LanguageModelling
from symtorch_llm.models.transformer import find_mlps, place_modules
from symtorch_llm.text import build_batches

SIZES = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4}


def build(kind: str) -> nn.Module:
    common: dict[str, Any] = {**SIZES, "num_attention_heads": 2, "initializer_range": 0.4}
    configs: dict[str, tuple[Any, PretrainedConfig]] = {
        "llama": (LlamaForCausalLM, LlamaConfig(**common, num_key_value_heads=1)),
        "gpt2": (
            GPT2LMHeadModel,
            GPT2Config(vocab_size=300, n_embd=16, n_layer=4, n_head=2, initializer_range=0.4),
        ),
        "neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**common)),
    }
    make, config = configs[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(config).eval().requires_grad_(False)


def draw_batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return build_batches(
        [torch.randint(2, 300, (length,), generator=generator) for length in (9, 5, 7, 12, 6)], 2
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox"])
def test_passes_that_start_at_a_layer_give_what_whole_passes_give(kind: str, tmp_path: Path) -> None:
    model, task = build(kind), LanguageModelling()
    paths, batches = find_mlps(model), draw_batches()
    above = prepare_passages(model, task, batches, tmp_path, first=paths[2])
    assert above.entry is not None
    read_passages(above)
    whole = prepare_passages(model, task, batches, tmp_path)
    read_passages(whole)
    assert whole.entry is None
    for modules in ({}, {paths[2]: nn.Identity(), paths[3]: nn.Identity()}):
        with place_modules(model, modules):
            assert above.score() == pytest.approx(whole.score(), rel=1e-5)
            for number in range(len(batches)):
                wanted = whole.compute_distance(number)
                torch.testing.assert_close(above.compute_distance(number), wanted, rtol=1e-3, atol=1e-6)
    # What is below the entry does not run any more.
    with place_modules(model, {paths[0]: nn.Linear(1, 1)}):
        above.score()


def test_the_layers_are_as_before_afterwards(tmp_path: Path) -> None:
    model = build("llama")
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    passages = prepare_passages(
        model, LanguageModelling(), draw_batches(), tmp_path, first=find_mlps(model)[2]
    )
    assert passages.entry is not None
    with pytest.raises(RuntimeError), enter(model, passages.entry, torch.zeros(1, 3, 16)):
        raise RuntimeError
    for name, module in model.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert not module._forward_pre_hooks


def test_layers_that_cannot_be_entered_are_passed_as_a_whole(tmp_path: Path) -> None:
    class Odd(nn.Module):
        """Numbers its layers by what ran before, so that skipping one changes the others."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.count = build("llama"), 0
            self.config = self.model.config
            for layer in self.model.model.layers:
                layer.mlp.register_forward_hook(self.scale)

        def scale(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return output * self.count

        def forward(self, **options: Any) -> Any:
            self.count = 0
            return self.model(**options)

    model = Odd().eval()
    passages = prepare_passages(
        model, LanguageModelling(), draw_batches(), tmp_path, first="model.model.layers.2.mlp"
    )
    assert passages.entry is None
    read_passages(passages)
    assert passages.score() > 1


def test_a_reading_that_was_stopped_goes_on(tmp_path: Path) -> None:
    model = build("llama")
    paths, runs = find_mlps(model), 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    passages = prepare_passages(model, LanguageModelling(), draw_batches(), tmp_path, first=paths[1])
    model.get_submodule(paths[0]).register_forward_hook(count)

    def stop(event: Event) -> None:
        if isinstance(event, StageAdvanced):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_passages(passages, [stop])
    read_passages(passages)
    assert runs == 3
    read_passages(passages)
    assert runs == 3


def test_rows_are_those_of_an_ordinary_capture_and_are_kept(tmp_path: Path) -> None:
    model, batches = build("llama"), draw_batches()
    mlps = {path: model.get_submodule(path) for path in find_mlps(model)[1:3]}
    passages = prepare_passages(model, LanguageModelling(), batches, tmp_path, first=next(iter(mlps)))
    wanted = capture(model, mlps, batches)
    for _ in range(2):  # read, and read again from the file
        found = capture_rows(passages, mlps, most=100)
        for path, rows in found.items():
            assert len(rows) == passages.tokens == 39
            torch.testing.assert_close(rows.inputs, wanted[path].inputs)
            torch.testing.assert_close(rows.outputs, wanted[path].outputs)
            assert rows.input_names == wanted[path].input_names
    assert {len(rows) for rows in capture_rows(passages, mlps, most=10).values()} == {10}


def test_other_weights_and_other_text_are_read_again(tmp_path: Path) -> None:
    model, task, batches = build("llama"), LanguageModelling(), draw_batches()
    one = prepare_passages(model, task, batches, tmp_path, key="a")
    assert one.names == prepare_passages(model, task, batches, tmp_path, key="a").names
    assert not set(one.names) & set(prepare_passages(model, task, batches, tmp_path, key="b").names)
    part: Passages = one.take([1])
    assert (part.names, len(part)) == ([one.names[1]], 1)
    with pytest.raises(FileFormatError, match="run it again"):
        replace(one, names=["gone"] * 3).score()
