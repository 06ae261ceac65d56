"""Language models: anything that answers a text with a text."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, final

import torch
from jinja2 import TemplateError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from symtorch_arithmetic.answers.reading import CUT_OFF
from symtorch_core import SearchError
from symtorch_core.studies import make_key

NEW_TOKENS: Final = 250
"""Longest answer in the SymTorch paper (Table 10)."""
Precision = Literal["auto", "bfloat16", "float32"]
"""What weights are converted to when they are read; auto: they stay as they are in the file."""
_TEMPLATE: Final = MappingProxyType({"date_string": "26 Jul 2024", "enable_thinking": False})
"""Variables of some chat templates: without these, some write today's date, so that answers would change from day to
day, and some let the model think for longer than the longest answer. Other templates ignore them."""


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
        """Return an answer to each prompt; one that was cut off ends with :data:`.reading.CUT_OFF`."""


@final
class HuggingFaceModel(LanguageModel):
    """A causal language model of transformers. It answers greedily, through its chat template where it has one.

    Its revision is a digest of weights (as converted), tokenizer, template and length of answers. The last digits of
    floating-point sums differ between devices and batches, so a very uncertain answer may differ, too; the first one is
    kept.

    Args:
        path: a folder or a name on the hub, as for transformers' ``from_pretrained``.
        device: where to run.
        batch: prompts at once.
        new_tokens: longest answer.
        dtype: see :data:`Precision`.

    Raises:
        SearchError: there is no such model, it cannot be loaded (the message says why), its chat template cannot write
            a question, or a number is below 1.
    """

    def __init__(
        self,
        path: str,
        *,
        device: str = "cpu",
        batch: int = 64,
        new_tokens: int = NEW_TOKENS,
        dtype: Precision = "auto",
    ) -> None:
        if batch < 1 or new_tokens < 1:
            raise SearchError(f"batch={batch} and new_tokens={new_tokens} must be at least 1")
        try:
            with hide_progress_bars():
                model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
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
        self._ends = _list_ends(model.generation_config, self._tokenizer)
        # Not the model's own: it fills what a call leaves open, with temperatures or penalties on repeated numbers.
        self._model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=self._ends or None, pad_token_id=self._tokenizer.pad_token_id
        )
        self.revision = _make_revision(
            self._model, self._tokenizer, self._write_input("1"), (new_tokens, self._ends)
        )

    def answer(self, prompts: Sequence[str]) -> list[str]:
        encoded = self._tokenizer(
            [self._write_input(prompt) for prompt in prompts],
            return_tensors="pt",
            padding=True,
            add_special_tokens=self._tokenizer.chat_template is None,  # a template has its own
            return_token_type_ids=False,
        ).to(self._model.device)
        length = encoded["input_ids"].shape[1]
        with torch.inference_mode():
            tokens = self._model.generate(
                **encoded, max_new_tokens=max(1, min(self._new_tokens, self._positions - length))
            )[:, length:].cpu()
        ended = torch.isin(tokens, torch.tensor(self._ends, dtype=tokens.dtype)).any(dim=1)
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text if whole else text + CUT_OFF for text, whole in zip(texts, ended.tolist(), strict=True)]

    def _write_input(self, prompt: str) -> str:
        """Return the text that the model continues: the prompt in the chat template, if there is one."""
        if self._tokenizer.chat_template is None:
            return prompt
        # A user's message alone: some templates refuse messages of the system.
        messages = [{"role": "user", "content": prompt}]
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **_TEMPLATE
            )
        except (TemplateError, ValueError) as error:
            raise SearchError(
                f"the chat template of {self.name!r} cannot write a question: {error}"
            ) from error
        return text


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


def _list_ends(generation: GenerationConfig, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: the model's, and the tokenizer's."""
    own = generation.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id}
    return sorted(end for end in ends if end is not None)


def _make_revision(model: nn.Module, tokenizer: Any, example: str, more: object) -> str:
    state = model.state_dict()
    layout = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in state.items()]
    settings = (layout, sorted(tokenizer.get_vocab().items()), example, more)
    # As bytes, because keys are made through numpy, which has no bfloat16.
    weights = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in state.values())
    return make_key(settings, weights)
