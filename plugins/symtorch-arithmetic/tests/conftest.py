"""A Hugging Face folder that every test may use: the smallest decoder, not trained, with a chat template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from symtorch_arithmetic.models.decoder import build_decoder, train_tokenizer
from symtorch_arithmetic.models.worked_examples import WORKED_ANSWERS
from symtorch_arithmetic.tasks import TASKS

TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}<answer> "


SaveToy = Callable[..., Path]


def _save_toy(folder: Path, *, seed: int = 0, chat_template: str | None = TEMPLATE) -> Path:
    """Random weights: it answers nonsense, but always the same."""
    task = TASKS["add"]
    numbers = task.draw_questions(200)
    answers = map(WORKED_ANSWERS["add"], numbers.long().tolist())
    tokenizer = train_tokenizer(zip(task.write_prompts(numbers), answers, strict=True))
    tokenizer.chat_template = chat_template
    model = build_decoder(tokenizer, layers=1, width=16, heads=2, seed=seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(20.0 if weights.ndim > 1 else 1.0)  # so that answers depend on the question
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def save_toy() -> SaveToy:
    """Makes such a folder: where, and perhaps ``seed=`` and ``chat_template=``."""
    return _save_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a chat template."""
    return _save_toy(tmp_path_factory.mktemp("toy"))
