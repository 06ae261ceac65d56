"""Language models: anything that answers a text with a text."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from symtorch_core import SearchError
from symtorch_core.studies import make_key

NEW_TOKENS: Final = 250
"""Longest answer in the SymTorch paper (Table 10)."""


class LanguageModel(ABC):
    """Anything that answers text with text.

    Attributes:
        name: for reports.
        revision: identifies the model with its weights and settings: equal revisions give equal answers.
        batch: number of prompts that it takes at once.
    """

    name: str
    revision: str
    batch: int

    @abstractmethod
    def answer(self, prompts: Sequence[str]) -> list[str]:
        """Return an answer to each prompt."""


@final
class HuggingFaceModel(LanguageModel):
    """A causal language model of transformers. It answers greedily, through its chat template where it has one.

    Its revision is a digest of weights, tokenizer, template and length of answers. The last digits of floating-point
    sums differ between devices and batches, so a very uncertain answer may differ, too; the first one is kept.

    Args:
        path: a folder or a name on the hub, as for transformers' ``from_pretrained``.
        device: where to run.
        batch: prompts at once.
        new_tokens: longest answer.

    Raises:
        SearchError: there is no such model, it cannot be loaded (the message says why), or a number is below 1.
    """

    def __init__(
        self, path: str, *, device: str = "cpu", batch: int = 64, new_tokens: int = NEW_TOKENS
    ) -> None:
        if batch < 1 or new_tokens < 1:
            raise SearchError(f"batch={batch} and new_tokens={new_tokens} must be at least 1")
        try:
            with hide_progress_bars():
                model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
                self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError) as error:
            where = (
                "" if Path(path).exists() else " There is no such folder, so it was looked for on the hub."
            )
            raise SearchError(f"cannot load a model from {path!r}.{where} {error}") from error
        self._model: Any = model.to(device).eval()
        self.name, self.batch = path, batch
        self._new_tokens = new_tokens
        # Some architectures have no largest position.
        self._positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = (
                self._tokenizer.eos_token or self._tokenizer.convert_ids_to_tokens([0])[0]
            )
        self.revision = _make_revision(self._model, self._tokenizer, new_tokens)

    def answer(self, prompts: Sequence[str]) -> list[str]:
        texts = list(prompts)
        templated = self._tokenizer.chat_template is not None
        if templated:
            texts = [
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
                )
                for text in texts
            ]
        encoded = self._tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=not templated,  # a template has its own
            return_token_type_ids=False,
        ).to(self._model.device)
        length = encoded["input_ids"].shape[1]
        # Not the model's own configuration, which may ask for sampling or for penalties on repetition.
        plain = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(1, min(self._new_tokens, self._positions - length)),
            eos_token_id=self._model.generation_config.eos_token_id,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        with torch.inference_mode():
            tokens = self._model.generate(**encoded, generation_config=plain)
        answers: list[str] = self._tokenizer.batch_decode(tokens[:, length:], skip_special_tokens=True)
        return answers


@contextmanager
def hide_progress_bars() -> Iterator[None]:
    """Hide the progress bars of transformers inside, which would break ours."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _make_revision(model: nn.Module, tokenizer: Any, new_tokens: int) -> str:
    state = model.state_dict()
    layout = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in state.items()]
    settings = (layout, sorted(tokenizer.get_vocab().items()), tokenizer.chat_template, new_tokens)
    # As bytes, because keys are made through numpy, which has no bfloat16.
    weights = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in state.values())
    return make_key(settings, weights)
