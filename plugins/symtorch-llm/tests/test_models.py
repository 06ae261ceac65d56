"""MLPs are found by structure, and modules put in and out of place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from symtorch_core import CaptureError, SearchError, capture, find_block
from symtorch_llm.judging.layers import Zero
from symtorch_llm.models.loading import load_causal, load_encoder
from symtorch_llm.models.transformer import count_bytes, find_mlps, fold_mlps, place_modules

MARKS = {"bos_token_id": 1, "eos_token_id": 0}
SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    **MARKS,
}


GROUPED = {**SMALL, "num_key_value_heads": 2}
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32, **MARKS}
ROUTED = {**GROUPED, "num_experts_per_tok": 2, "head_dim": 4}


def build(name: str, sizes: dict[str, Any]) -> Any:
    return AutoModelForCausalLM.from_config(getattr(transformers, f"{name}Config")(**sizes)).eval()


@pytest.mark.parametrize(
    ("name", "sizes", "pattern"),
    [
        ("Llama", SMALL, "model.layers.{}.mlp"),
        ("Mistral", GROUPED, "model.layers.{}.mlp"),
        ("Qwen2", GROUPED, "model.layers.{}.mlp"),
        # Heads wider than the model: the attention goes to another width and back, too.
        ("Qwen3", {**GROUPED, "head_dim": 16}, "model.layers.{}.mlp"),
        ("Gemma2", {**GROUPED, "head_dim": 4}, "model.layers.{}.mlp"),
        ("Gemma3Text", {**GROUPED, "head_dim": 4}, "model.layers.{}.mlp"),
        # Gate and values in one map.
        ("Phi3", GROUPED, "model.layers.{}.mlp"),
        ("Glm4", {**GROUPED, "head_dim": 4}, "model.layers.{}.mlp"),
        ("Phi", SMALL, "model.layers.{}.mlp"),
        ("GPTNeoX", SMALL, "gpt_neox.layers.{}.mlp"),
        ("GPT2", GPT2, "transformer.h.{}.mlp"),
        ("Falcon", SMALL, "transformer.h.{}.mlp"),
        ("StableLm", SMALL, "model.layers.{}.mlp"),
        ("Cohere", GROUPED, "model.layers.{}.mlp"),
        ("Olmo2", SMALL, "model.layers.{}.mlp"),
        ("SmolLM3", GROUPED, "model.layers.{}.mlp"),
        ("Granite", SMALL, "model.layers.{}.mlp"),
    ],
)
def test_mlps_are_found_by_structure(name: str, sizes: dict[str, Any], pattern: str) -> None:
    model = build(name, sizes)
    wanted = [pattern.format(number) for number in range(3)]
    assert find_mlps(fold_mlps(model)) == find_mlps(model) == find_mlps(model, pattern) == wanted


@pytest.mark.parametrize(
    ("model", "pattern"),
    [
        # Beside the attention, without a module of their own.
        (
            lambda: build("OPT", {**SMALL, "ffn_dim": 24, "word_embed_proj_dim": 16}),
            "model.decoder.layers.{}.fc2",
        ),
        # Their modules take the residual stream, too, and add to it.
        (
            lambda: build("Bloom", {"vocab_size": 40, "hidden_size": 16, "n_layer": 3, "n_head": 4}),
            "transformer.h.{}.mlp.dense_4h_to_h",
        ),
        (
            lambda: build("Mpt", {"vocab_size": 40, "d_model": 16, "n_layers": 3, "n_heads": 4}),
            "transformer.blocks.{}.ffn.down_proj",
        ),
        (lambda: BertModel(BertConfig(**SMALL)).eval(), "encoder.layer.{}.output.dense"),
    ],
)
def test_mlps_in_parts_are_folded_and_the_model_computes_what_it_did(model: Any, pattern: str) -> None:
    made = model()
    with pytest.raises(SearchError, match="no MLPs were found"):
        find_mlps(made)
    ids = torch.randint(1, 40, (2, 7), generator=torch.Generator().manual_seed(0))
    before = made(input_ids=ids)[0]
    assert fold_mlps(made) is made
    assert find_mlps(made) == [pattern.format(number) for number in range(3)]
    torch.testing.assert_close(made(input_ids=ids)[0], before, rtol=0, atol=0)
    fold_mlps(made)  # and again: nothing is left to fold
    torch.testing.assert_close(made(input_ids=ids)[0], before, rtol=0, atol=0)
    rows = capture(made, find_mlps(made), [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    with place_modules(made, {path: Zero() for path in rows}):
        assert not torch.allclose(made(input_ids=ids)[0], before)
    for path, some in rows.items():
        torch.testing.assert_close(find_block(made, path)(some.inputs), some.outputs)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Mixtral", {**ROUTED, "num_local_experts": 4}),
        ("Qwen3Moe", {**ROUTED, "num_experts": 4, "moe_intermediate_size": 8}),
        # An expert that all tokens pass is only a part of what a layer does.
        ("Qwen2Moe", {**ROUTED, "num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}),
        ("GptOss", {**ROUTED, "num_local_experts": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    ],
)  # fmt: skip
def test_layers_with_experts_are_refused(name: str, sizes: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match="sends each token to some of its experts"):
        find_mlps(build(name, sizes))


def test_a_part_of_experts_can_be_named() -> None:
    sizes = {**ROUTED, "num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
    pattern = "model.layers.{}.mlp.shared_expert"
    assert find_mlps(build("Qwen2Moe", sizes), pattern) == [pattern.format(number) for number in range(3)]


def test_what_mixes_tokens_is_no_mlp() -> None:
    with pytest.raises(SearchError, match="no MLPs were found"):
        find_mlps(
            build("Mamba", {"vocab_size": 40, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 3})
        )


def test_of_a_model_of_text_and_images_the_layers_of_the_text_are_found() -> None:
    # The images have as many layers of the same width.
    images = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 16,
        "patch_size": 8,
    }  # fmt: skip
    model = build(
        "Gemma3",
        {"text_config": {**GROUPED, "head_dim": 4}, "vision_config": images, "mm_tokens_per_image": 4},
    )
    pattern = "model.language_model.layers.{}.mlp"
    assert find_mlps(model) == find_mlps(model, pattern) == [pattern.format(number) for number in range(3)]


def test_a_model_without_any_says_how_to_name_them() -> None:
    with pytest.raises(SearchError, match=r"mlp='model.layers"):
        find_mlps(BertModel(BertConfig(**SMALL)))
    llama = LlamaForCausalLM(LlamaConfig(**SMALL))
    with pytest.raises(SearchError, match="where a layer's number belongs"):
        find_mlps(llama, "model.layers.0.mlp")
    with pytest.raises(CaptureError, match="no submodule"):
        find_mlps(llama, "model.layers.{}.ffn")


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


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    for load in (load_causal, load_encoder):
        with pytest.raises(SearchError, match="cannot load a model"):
            load(str(tmp_path))
