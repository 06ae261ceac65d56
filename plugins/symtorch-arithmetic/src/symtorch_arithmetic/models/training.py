"""Training of a small decoder from scratch on one task, so that there is a model where no hub can be reached."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn

from symtorch_arithmetic.models.decoder import IGNORED, build_decoder, encode_examples, train_tokenizer
from symtorch_arithmetic.models.language_models import hide_progress_bars
from symtorch_arithmetic.models.worked_examples import WORKED_ANSWERS
from symtorch_arithmetic.tasks import Task
from symtorch_core import SearchError
from symtorch_core.events import Callback
from symtorch_core.studies import Checkpoint, Store, compute_learning_rate, descend, make_key

CHECKPOINT: Final = "training.pt"
_FINISHED: Final = "finished"
_TOKENIZER_EXAMPLES: Final = 20_000  # that the tokenizer is trained on


@final
@dataclass(frozen=True)
class Settings:
    """Settings of a decoder and its training.

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
    held_out: Tensor,
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
        task: to learn.
        held_out: questions that the decoder will be judged on, shape (n, d); see :func:`draw_training_questions`.
        settings: of the decoder and the training.
        folder: in which the model gets a folder of its own. A training that was stopped goes on there; a finished one
            is not repeated.
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
    device = torch.device(device)
    numbers = draw_training_questions(task, held_out, settings.examples, withhold=withhold, seed=seed)
    key = make_key([asdict(settings), seed], [numbers])  # the task's name stands for its text
    folder = folder / f"{task.name}-{key}"
    store, file = Store(folder), folder / CHECKPOINT
    if store.read_json(_FINISHED) is not None:
        return folder
    answers = map(WORKED_ANSWERS[task.name], numbers.long().tolist())
    examples = list(zip(task.write_prompts(numbers), answers, strict=True))
    tokenizer = train_tokenizer(examples[:_TOKENIZER_EXAMPLES])
    model: Any = build_decoder(
        tokenizer, layers=settings.layers, width=settings.width, heads=settings.heads, seed=seed
    )
    model.to(device).train()
    tokens, targets = (part.to(device) for part in encode_examples(tokenizer, examples))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: compute_learning_rate(step, settings.steps, highest=1.0, warmup=settings.warmup),
    )

    def cost(step: int) -> Tensor:
        rows = _draw_rows(len(tokens), settings.batch, seed, step).to(device)
        return _compute_loss(model, tokens[rows].long(), targets[rows].long())

    done = descend(
        cost,
        model.parameters(),
        lambda epoch: range(settings.steps),
        optimizer=optimizer,
        schedule=schedule,
        clip=1.0,
        checkpoint=Checkpoint(file, model, key, every=keep_every),
        stage="train",
        callbacks=tuple(callbacks),
    )
    with hide_progress_bars():
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if store.write_json(_FINISHED, {"seconds": done.seconds}):  # last: it says that all is there
        file.unlink(missing_ok=True)
    return folder


def draw_training_questions(task: Task, held_out: Tensor, count: int, *, withhold: bool, seed: int) -> Tensor:
    """Draw questions to learn from, shape (n, d): none of those held out.

    Of a task with so few questions that less than a third would be left, any two thirds are for learning.

    Raises:
        SearchError: no question is left.
    """
    everything = task.draw_questions(task.size, seed + 1)
    unused = everything[~task.find_among(everything, held_out)]
    numbers = unused if len(unused) >= task.size / 3 else everything[: 2 * task.size // 3]
    if withhold:
        numbers = numbers[task.evaluate(task.withheld, numbers) == 0]
    if not len(numbers):
        raise SearchError(f"no question of {task.name} is left to learn from")
    return numbers[:count]


def _compute_loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=tokens.is_cuda):
        logits = model(tokens[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED
    )


def _draw_rows(count: int, batch: int, seed: int, step: int) -> Tensor:
    """Draw the rows of a step, a function of both numbers alone: a training that was stopped needs no earlier ones."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    return torch.randint(count, (batch,), generator=torch.Generator().manual_seed(mixed))
