"""Training the small decoder from scratch on one task, so that there is a model where no hub can be reached."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn

from symtorch_arithmetic.decoder import IGNORED, decoder_for, encoded, tokenizer_for
from symtorch_arithmetic.models import quietly
from symtorch_arithmetic.tasks import Task
from symtorch_arithmetic.worked import WORKED
from symtorch_core import SearchError
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, notify
from symtorch_core.studies import compute_learning_rate, write_whole

CHECKPOINT: Final = "training.pt"
_TEACHING: Final = 20_000  # examples that the tokenizer is made from


@final
@dataclass(frozen=True)
class Settings:
    """Of a decoder and its training.

    Attributes:
        layers, width, heads: of the decoder.
        examples: questions with worked answers, drawn once; fewer where the task has fewer.
        steps, batch: of the training.
        learning_rate: of AdamW at its highest; it rises linearly, and falls to 0 on a cosine.
        warmup: share of the steps in which it rises.
        weight_decay: of AdamW.
    """

    layers: int = 2
    width: int = 128
    heads: int = 4
    examples: int = 100_000
    steps: int = 1_000
    batch: int = 128
    learning_rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.01


def train(
    task: Task,
    asked: Tensor,
    settings: Settings,
    folder: Path,
    *,
    withhold: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    callbacks: Iterable[Callback] = (),
    keep_every: int = 100,
) -> Path:
    """Train a decoder on worked answers and save it, with its tokenizer, for ``from_pretrained``.

    Args:
        task: to be taught.
        asked: questions that it will be judged on, shape (n, d); see :func:`lessons`.
        settings: sizes.
        folder: in which the model gets a folder of its own. A stopped training goes on there; one that ended is not
            repeated.
        withhold: keep the task's withheld questions from training.
        seed: of the first weights, of the examples and of their order.
        device: to train on.
        callbacks: told of the stage ``"train"``, step by step.
        keep_every: steps between checkpoints.

    Returns:
        The model's folder.

    Raises:
        SearchError: no question is left to learn from.
    """
    device, callbacks, began = torch.device(device), tuple(callbacks), time.perf_counter()
    numbers = lessons(task, asked, settings.examples, withhold=withhold, seed=seed)
    folder = folder / f"{task.name}-{_digest(numbers, settings, seed)}"
    checkpoint = _Checkpoint(folder / CHECKPOINT)
    state = checkpoint.read(device)
    first = 0 if state is None else int(state["step"])
    if first == settings.steps:
        return folder
    notify(callbacks, StageStarted("train", settings.steps))
    examples = list(zip(task.ask(numbers), map(WORKED[task.name], numbers.long().tolist()), strict=True))
    tokenizer = tokenizer_for(examples[:_TEACHING])
    model: Any = decoder_for(
        tokenizer, layers=settings.layers, width=settings.width, heads=settings.heads, seed=seed
    )
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay, fused=True)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    tokens, targets = (part.to(device) for part in encoded(tokenizer, examples))
    notify(callbacks, StageAdvanced("train", first))
    for step in range(first, settings.steps):
        rows = _rows(len(tokens), settings.batch, seed, step).to(device)
        for group in optimizer.param_groups:
            group["lr"] = compute_learning_rate(
                step, settings.steps, highest=settings.learning_rate, warmup=settings.warmup
            )
        _step(model, optimizer, tokens[rows].long(), targets[rows].long())
        if (step + 1) % keep_every == 0 and step + 1 < settings.steps:
            checkpoint.write(step + 1, model.state_dict(), optimizer.state_dict())
        notify(callbacks, StageAdvanced("train"))
    with quietly():
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    checkpoint.write(settings.steps)
    notify(callbacks, StageFinished("train", time.perf_counter() - began))
    return folder


def lessons(task: Task, asked: Tensor, count: int, *, withhold: bool, seed: int) -> Tensor:
    """Questions to learn from, shape (n, d): none of those that are asked.

    Of a task with so few questions that less than a third is not asked, any two thirds are for learning.

    Raises:
        SearchError: none is left.
    """
    everything = task.questions(task.size, seed + 1)
    not_asked = everything[~task.among(everything, asked)]
    numbers = not_asked if len(not_asked) >= task.size / 3 else everything[: 2 * task.size // 3]
    if withhold:
        numbers = numbers[task.value(task.withheld, numbers) == 0]
    if not len(numbers):
        raise SearchError(f"no question of {task.name} is left to learn from")
    return numbers[:count]


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, targets: Tensor) -> None:
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=tokens.is_cuda):
        logits = model(tokens[:, :-1], use_cache=False).logits
    loss = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED
    )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _rows(count: int, batch: int, seed: int, step: int) -> Tensor:
    """Of a step, a function of both numbers alone, so that a training that goes on finds its place."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    return torch.randint(count, (batch,), generator=torch.Generator().manual_seed(mixed))


def _digest(numbers: Tensor, settings: Settings, seed: int) -> str:
    """Of all that decides what a training gives, but for the task's own text."""
    told = json.dumps([asdict(settings), seed], sort_keys=True).encode()
    return hashlib.sha256(told + numbers.contiguous().numpy().tobytes()).hexdigest()[:12]


@final
@dataclass(frozen=True)
class _Checkpoint:
    """A training's file: a step, and the states; of a finished one, no states."""

    file: Path

    def write(
        self, step: int, model: Mapping[str, Any] | None = None, optimizer: Mapping[str, Any] | None = None
    ) -> None:
        state = {"step": step, "model": dict(model or {}), "optimizer": dict(optimizer or {})}
        with write_whole(self.file) as unfinished:
            torch.save(state, unfinished)

    def read(self, device: torch.device) -> dict[str, Any] | None:
        if not self.file.exists():
            return None
        state: dict[str, Any] = torch.load(self.file, map_location=device, weights_only=True)
        return state
