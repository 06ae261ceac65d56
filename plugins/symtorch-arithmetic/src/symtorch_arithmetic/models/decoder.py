"""A small decoder of Llama's architecture and its tokenizer, as Hugging Face saves and loads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from symtorch_core.studies import fork_seed

_VOCABULARY: Final = 512
_PAD, _END = "<pad>", "<end>"
_MOST_TOKENS: Final = 512
IGNORED: Final = -100
"""The target of tokens that are not learned."""

Example = tuple[str, str]
"""A question and its answer."""


def train_tokenizer(examples: Iterable[Example]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on examples; every digit is a token of its own.

    It can spell any text. The text that all questions share becomes few tokens, so that sequences are short.
    """
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_PAD, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for example in examples for text in example), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END)


def build_decoder(
    tokenizer: PreTrainedTokenizerFast, *, layers: int, width: int, heads: int, seed: int
) -> LlamaForCausalLM:
    """Build a decoder with random weights; torch's own random state stays as it is."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=_MOST_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with fork_seed(seed):
        return LlamaForCausalLM(config)


def encode_examples(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Return examples as rows of tokens, padded at the right, and the targets to learn.

    Returns:
        Tokens, shape (n, tokens), int16, and targets, the same with :data:`IGNORED` for the question and the padding.
    """
    pad = int(tokenizer.pad_token_id)
    questions = tokenizer([question for question, _ in examples])["input_ids"]
    answers = tokenizer([answer + _END for _, answer in examples])["input_ids"]
    asked = torch.tensor([len(ids) for ids in questions])
    whole = asked + torch.tensor([len(ids) for ids in answers])
    place = torch.arange(int(whole.max()))
    used = place < whole[:, None]
    tokens = torch.full(used.shape, pad, dtype=torch.int16)
    tokens[used] = torch.tensor(
        [token for pair in zip(questions, answers, strict=True) for ids in pair for token in ids],
        dtype=torch.int16,
    )
    targets = tokens.masked_fill((place < asked[:, None]) | ~used, IGNORED)
    return tokens, targets
