"""Samples: how variants of a model continue a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from symtorch_llm.experiment import Variant
from symtorch_llm.models.transformer import get_device, place_modules
from symtorch_llm.reporting.findings import Sample

_PROMPT = 24
_WRITTEN = 60


def write_samples(
    model: Any, tokenizer: Any, texts: Sequence[Tensor], variants: Sequence[Variant]
) -> list[Sample]:
    """Return the beginning of the longest text, and how each variant goes on from it with the likeliest tokens.

    Args:
        model: predicts next tokens.
        tokenizer: of the model.
        texts: sequences of tokens.
        variants: to write.
    """
    prompt = max(texts, key=len)[None, :_PROMPT].to(get_device(model))
    found = [Sample("", tokenizer.decode(prompt[0], skip_special_tokens=True))]
    for variant in variants:
        with place_modules(model, variant.modules):
            written = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=_WRITTEN,
                do_sample=False,
                pad_token_id=0,
            )
        text = tokenizer.decode(written[0, prompt.shape[1] :], skip_special_tokens=True)
        found.append(Sample(variant.name, text))
    return found
