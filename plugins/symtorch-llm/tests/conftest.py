"""Toy models of two or three layers that every test may use, and the small trained one where it is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

WORDS = ("one", "fox", "hen", "ran", "sat", "and", "then", "it", "hid", "far", "off", ".")


SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS) + 2,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
}
MARKS = {"bos_token_id": 1, "eos_token_id": 0}


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: Llama, two layers, twelve words, random weights that are large enough to matter."""
    config = LlamaConfig(**SIZES, **MARKS, num_hidden_layers=2, num_key_value_heads=1)
    return save_toy(tmp_path_factory.mktemp("toy"), LlamaForCausalLM, config)


@pytest.fixture(scope="session")
def toy_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for Qwen2, three layers, whose head is its embedding."""
    config = Qwen2Config(
        **SIZES, **MARKS, num_hidden_layers=3, num_key_value_heads=1, tie_word_embeddings=True
    )
    return save_toy(tmp_path_factory.mktemp("toy_qwen2"), Qwen2ForCausalLM, config)


@pytest.fixture(scope="session")
def toy_gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for Gemma 3: the first and last layers see 8 tokens, fewer than a text has."""
    config = Gemma3TextConfig(
        **SIZES,
        **MARKS,
        num_hidden_layers=3,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    return save_toy(tmp_path_factory.mktemp("toy_gemma3"), Gemma3ForCausalLM, config)


@pytest.fixture(scope="session")
def toy_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for BERT, two layers."""
    return save_toy(
        tmp_path_factory.mktemp("toy_encoder"), BertModel, BertConfig(**SIZES, num_hidden_layers=2)
    )


def save_toy(folder: Path, kind: type, config: PreTrainedConfig) -> Path:
    """Random weights, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A word is a token."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>").save_pretrained(
        folder
    )


@pytest.fixture(scope="session")
def toy_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty documents of random words, the first word of each "one"."""
    generator = torch.Generator().manual_seed(0)
    texts = []
    for _ in range(60):
        picked = torch.randint(
            1, len(WORDS), (int(torch.randint(12, 40, (1,), generator=generator)),), generator=generator
        )
        texts.append("one " + " ".join(WORDS[number] for number in picked.tolist()))
    file = tmp_path_factory.mktemp("text") / "toy.txt"
    file.write_text("\n\n".join(texts), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of shared data."""
    folder = Path(os.environ.get("SYMTORCH_DATA", "../shared/data"))
    if not (folder / "stories260K").is_dir():
        pytest.skip(f"there is no trained model in {folder} (SYMTORCH_DATA says where)")
    return folder
