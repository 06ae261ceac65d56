"""MLPs are found by structure, and modules put in and out of place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from symtorch_core import CaptureError, SearchError
from symtorch_llm.models.loading import load_causal, load_encoder
from symtorch_llm.models.transformer import count_bytes, find_mlps, fold_mlps, place_modules

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("model", "pattern"),
    [
        (lambda: LlamaForCausalLM(LlamaConfig(**SMALL)), "model.layers.{}.mlp"),
        (lambda: MistralForCausalLM(MistralConfig(**SMALL, num_key_value_heads=2)), "model.layers.{}.mlp"),
        (lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)), "model.layers.{}.mlp"),
        # Heads wider than the model: the attention goes to another width and back, too.
        (
            lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=16)),
            "model.layers.{}.mlp",
        ),
        # Gate and values in one map.
        (lambda: Phi3ForCausalLM(Phi3Config(**SMALL, num_key_value_heads=2)), "model.layers.{}.mlp"),
        (lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)), "gpt_neox.layers.{}.mlp"),
        (
            lambda: GPT2LMHeadModel(
                GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=4, n_positions=32)
            ),
            "transformer.h.{}.mlp",
        ),
        (lambda: fold_mlps(BertModel(BertConfig(**SMALL))), "encoder.layer.{}.output.dense"),
    ],
)
def test_mlps_are_found_by_structure(model: Any, pattern: str) -> None:
    made = model()
    assert find_mlps(made) == [pattern.format(number) for number in range(3)]
    assert find_mlps(made, pattern) == find_mlps(made)


def test_a_model_without_any_says_how_to_name_them() -> None:
    with pytest.raises(SearchError, match=r"mlp='model.layers"):
        find_mlps(BertModel(BertConfig(**SMALL)))
    llama = LlamaForCausalLM(LlamaConfig(**SMALL))
    with pytest.raises(SearchError, match="where a layer's number belongs"):
        find_mlps(llama, "model.layers.0.mlp")
    with pytest.raises(CaptureError, match="no submodule"):
        find_mlps(llama, "model.layers.{}.ffn")


def test_a_folded_encoder_computes_what_it_did() -> None:
    model = BertModel(BertConfig(**SMALL)).eval()
    ids = torch.randint(0, 40, (2, 7), generator=torch.Generator().manual_seed(0))
    before = model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(fold_mlps(model)(input_ids=ids).last_hidden_state, before, rtol=0, atol=0)
    assert fold_mlps(model) is model  # and again: nothing is left to fold
    torch.testing.assert_close(model(input_ids=ids).last_hidden_state, before, rtol=0, atol=0)


def test_modules_are_back_even_after_a_failure() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Tanh()))
    before = dict(model.named_modules())
    other = nn.Identity()
    with place_modules(model, {"1.0": other, "0": nn.Identity()}):
        assert model.get_submodule("1.0") is other
    assert dict(model.named_modules()) == before
    with pytest.raises(ZeroDivisionError), place_modules(model, {"1.0": other}):
        raise ZeroDivisionError
    assert dict(model.named_modules()) == before


def test_memory_counts_shared_tensors_once() -> None:
    one = nn.Linear(3, 3, bias=False)
    assert count_bytes([one, nn.Sequential(one)]) == 9 * 4


def test_models_load_from_a_folder(toy: Path) -> None:
    model, tokenizer = load_causal(str(toy))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer("one fox")["input_ids"] == [2, 3]
    assert load_causal(str(toy), dtype="bfloat16")[0].dtype == torch.bfloat16  # type: ignore[comparison-overlap]


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    for load in (load_causal, load_encoder):
        with pytest.raises(SearchError, match="cannot load a model"):
            load(str(tmp_path))
