"""Fitting modules to what an MLP gives, by gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from symtorch_core import Activations
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, Stopwatch, notify

_STAGE = "fit"
_BATCH = 512
_EPOCHS = 15
_LEARNING_RATE = 3e-3


def fit_outputs(
    module: nn.Module,
    rows: Activations,
    parameters: Sequence[nn.Parameter],
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Fit parameters of a module, in place, to an MLP's outputs (mean squared error, Adam on a one-cycle schedule).

    Args:
        module: maps inputs to outputs.
        rows: of the MLP.
        parameters: to be changed; they must receive gradients.
        seed: of the order of rows.
        callbacks: told of the stage ``"fit"``.
    """
    watch = Stopwatch()
    generator = torch.Generator().manual_seed(seed)
    X, Y = rows.inputs.float(), rows.outputs.float()
    height = Y.std(0).mean().clamp_min(1e-12)
    optimizer = torch.optim.Adam(parameters, lr=_LEARNING_RATE)
    steps = _EPOCHS * -(-len(X) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps + 1)
    notify(callbacks, StageStarted(_STAGE, _EPOCHS))
    for _ in range(_EPOCHS):
        for part in torch.randperm(len(X), generator=generator).split(_BATCH):
            optimizer.zero_grad()
            with torch.enable_grad():
                ((module(X[part]) - Y[part]) / height).square().mean().backward()
            optimizer.step()
            schedule.step()
        notify(callbacks, StageAdvanced(_STAGE))
    notify(callbacks, StageFinished(_STAGE, watch.seconds()))
