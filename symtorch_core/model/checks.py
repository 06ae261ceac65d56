"""Checks of a wrapper before it takes equations, or runs on them."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from symtorch_core.activations.block_function import find_linear_widths
from symtorch_core.errors import SwitchError
from symtorch_core.model.hooks import has_backward_hooks, list_hooks
from symtorch_core.model.setting import Setting
from symtorch_core.results.distillation import Distillation


def check_widths(name: str, now: Setting, mask: Tensor | None, result: Any) -> None:
    """Refuse a result of another block, as far as its widths show it.

    Args:
        name: of the block, for messages.
        now: what its wrapper runs.
        mask: the wrapper's mask of outputs, or None.
        result: the equations to adopt.

    Raises:
        SwitchError: the result has other numbers of inputs or outputs, or is none.
    """
    if not isinstance(result, Distillation):
        raise SwitchError(f"result must be a Distillation, not a {type(result).__name__}")
    linear_inputs, linear_outputs = find_linear_widths(now.block)
    inputs, outputs = {linear_inputs}, {linear_outputs}
    if mask is not None:
        outputs.add(len(mask))
    last = now.distillation
    if last is not None:
        before, source = last.provenance.source, result.provenance.source
        if (source.select_input or ("0",)) == (before.select_input or ("0",)):
            inputs.add(len(last.transforms.input_names))
        if (source.select_output or "") == (before.select_output or ""):
            outputs.add(last.block_outputs)
    for what, known, given in (
        ("inputs", inputs, len(result.transforms.input_names)),
        ("outputs", outputs, result.block_outputs),
    ):
        others = [count for count in known if count not in (None, given)]
        if others:
            raise SwitchError(f"the result is of a block with {given} {what}, but {name} has {others[0]}")


def check_switch(
    name: str, now: Setting, result: Distillation, columns: tuple[int, ...], release_block: bool
) -> None:
    """Refuse a switch to equations that is impossible.

    Args:
        name: of the block, for messages.
        now: what its wrapper runs.
        result: the equations.
        columns: outputs of the block that are to run on them.
        release_block: whether the block is to be freed.

    Raises:
        SwitchError: the outputs, the model around the block, or its release do not allow it.
    """
    if not columns or len(set(columns)) != len(columns):
        raise SwitchError(
            f"outputs={list(columns)} cannot become symbolic: give different ones of those that were "
            f"distilled: {', '.join(map(str, result.outputs))}"
        )
    if now.surroundings.obstacle is not None:
        raise SwitchError(f"{name} cannot run on equations: {now.surroundings.obstacle}")
    for lost in result.transforms.lost():
        raise SwitchError(
            f"the equations need transform {lost!r}, a Python function that no file holds: give it to "
            "Distillation.load and adopt the result, or distill again"
        )
    unexplained = set(range(result.block_outputs)) - set(columns) - set(now.pruned_outputs)
    if (release_block or now.released) and unexplained:
        raise SwitchError(
            f"only {result.block_outputs - len(unexplained)} of {result.block_outputs} outputs would be symbolic: "
            "the block is needed for the others, but "
            + ("it was released" if now.released else "it would be released")
        )


def warn_of_losses(name: str, before: Setting, release_block: bool) -> None:
    """Say what will not run on equations.

    Args:
        name: of the block.
        before: what its wrapper runs before the switch.
        release_block: whether the block is freed.
    """
    if before.surroundings.remark is not None:
        warnings.warn(f"{name}: {before.surroundings.remark}", RuntimeWarning, stacklevel=3)
    lost = []
    if release_block and list_hooks(before.block):
        lost.append("its forward hooks, which are freed with it")
    if has_backward_hooks(before.block):
        lost.append("its backward hooks, which need the block's own computation")
    if lost:
        warnings.warn(
            f"{name} runs on equations without {' and without '.join(lost)}",
            RuntimeWarning,
            stacklevel=3,
        )
