"""Fitting of modules to the outputs of an MLP, by gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from symtorch_core.events import Callback
from symtorch_core.studies import descend
from symtorch_llm.fitting.rows import Rows, compute_stop_loss

_BATCH = 512
_EPOCHS = 15
_LEARNING_RATE = 3e-3


def fit_outputs(
    module: nn.Module,
    rows: Rows,
    parameters: Sequence[nn.Parameter],
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Fit parameters of a module, in place, to an MLP's outputs (mean squared error, Adam on a one-cycle schedule).

    Args:
        module: maps inputs to outputs.
        rows: of the MLP; the state of least error on those to stop by is kept, which may be the first.
        parameters: to change; they must require gradients.
        seed: of the order of rows.
        callbacks: told of the stage ``"fit"``.

    Raises:
        KeyboardInterrupt: the user stopped it; half a fit is no basis for what follows.
    """
    generator = torch.Generator().manual_seed(seed)
    X, Y = rows.fit.inputs.float(), rows.fit.outputs.float()
    height = Y.std(0).mean().clamp_min(1e-12)
    optimizer = torch.optim.Adam(parameters, lr=_LEARNING_RATE)
    steps = _EPOCHS * -(-len(X) // _BATCH)
    done = descend(
        lambda part: ((module(X[part]) - Y[part]) / height).square().mean(),
        parameters,
        lambda epoch: torch.randperm(len(X), generator=generator).split(_BATCH),
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps + 1),
        epochs=_EPOCHS,
        judge=lambda: compute_stop_loss(module, rows),
        stage="fit",
        callbacks=callbacks,
    )
    if done.interrupted:
        raise KeyboardInterrupt
