"""Initial weights from a seed, and schedules of learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.optim.lr_scheduler import LambdaLR


@contextmanager
def fork_seed(seed: int) -> Iterator[None]:
    """Set torch's random state on the CPU to a seed inside the context, and restore it afterwards.

    For the initial weights of layers, which torch draws from that state only.

    >>> from torch import nn
    >>> def made():
    ...     with fork_seed(3):
    ...         return nn.Linear(2, 2).weight
    >>> torch.equal(made(), made())
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def compute_learning_rate(step: int, steps: int, *, highest: float, warmup: float) -> float:
    """Return the learning rate of one step: a linear rise over the warm-up, then a cosine to 0.

    Args:
        step: number of the step, from 0.
        steps: number of steps of the training.
        highest: learning rate at the end of the warm-up.
        warmup: share of the steps in the warm-up, 0..1.

    >>> compute_learning_rate(0, 100, highest=1.0, warmup=0.0)
    1.0
    >>> round(compute_learning_rate(50, 100, highest=1.0, warmup=0.0), 3)
    0.5
    """
    rise = warmup * steps
    if step < rise:
        return highest * (step + 1) / (rise + 1)
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def cosine_by_epochs(optimizer: torch.optim.Optimizer, steps: int, epochs: int) -> LambdaLR:
    """Return a schedule that lowers the rate to 0 on a cosine, once after each epoch of ``steps`` steps."""
    return LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * (step // max(1, steps)) / epochs)))
