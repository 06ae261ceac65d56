"""Measures of a result, once its equations are found: no failure here may lose them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from torch import nn

from symtorch_core.activations.batches import prepare_batch
from symtorch_core.activations.rows import BlockFunction
from symtorch_core.results.distillation import Distillation
from symtorch_core.search.front import HELD_OUT_RULES
from symtorch_core.surrogates.running import move_to_block
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.verification.verify import add_validation_losses, fit_linear_baseline, verify
from symtorch_core.verification.whole_model import measure_model

_NOTHING: Final = 0.01
"""R2 on held-out rows up to which equations are no better than the mean."""
_SHOWN: Final = 5
_ENOUGH: Final = 20
"""Held-out rows that are needed to say so."""


def measure_result(
    result: Distillation,
    block: Any,
    parent: Callable[..., Any] | None,
    batch: Any,
    function: BlockFunction | None,
) -> Iterator[Distillation]:
    """Yield the result with one measure more each time: held-out losses, fidelity, that of the whole model.

    A measure that fails is left out, and a warning says so.

    Args:
        result: fronts, and the rows in memory.
        block, parent: as given to :func:`symtorch_core.distill`.
        batch: a batch for the parent, or None.
        function: the block as a function of rows, to measure it out of range; None if this is not possible.
    """

    @functools.cache
    def build() -> Surrogate:
        return result.surrogate()

    measures: dict[str, Callable[[Distillation], Distillation]] = {
        "the held-out losses": _add_held_out_losses,
        "their fidelity": lambda found: _add_fidelity(found, build(), function),
        "the whole model": lambda found: _add_model_fidelity(found, build, block, parent, batch),
    }
    for what, measure in measures.items():
        try:
            result = measure(result)
        except Exception as error:  # a block, a model, a transform or a loss fails in its own way
            warnings.warn(
                f"the equations are found, but {what} could not be measured ({error})",
                RuntimeWarning,
                stacklevel=4,
            )
            if measure is _add_held_out_losses and result.select in HELD_OUT_RULES:
                result = replace(result, select="score")  # which needs no held-out rows
        yield result
    _warn_of_nothing(result)


def _warn_of_nothing(result: Distillation) -> None:
    """Warn of outputs of which the chosen equations explain nothing on rows that the search never saw.

    With a reducer, which leaves out what matters least, only if that is so for all.
    """
    nothing = [
        f"{name} (R2 {entry.held_out.r2:.2g})"
        for name, entry in zip(result.output_names, result.fidelity, strict=False)
        if entry.held_out is not None and entry.held_out.rows >= _ENOUGH and entry.held_out.r2 <= _NOTHING
    ]
    enough = bool(nothing) if result.reduction.keeps_outputs else len(nothing) == len(result.outputs)
    if enough and not result.interrupted:
        more = f" and {len(nothing) - _SHOWN} more" if len(nothing) > _SHOWN else ""
        warnings.warn(
            f"the equations explain nothing of {', '.join(nothing[:_SHOWN])}{more} on held-out rows: the data may be "
            "noise there, or lack an input; or the search needs other operators, more iterations or more rows",
            RuntimeWarning,
            stacklevel=4,
        )


def _add_held_out_losses(result: Distillation) -> Distillation:
    if result.held_out is None:
        return result
    rows = result.held_out.select_outputs(result.outputs)
    fronts = add_validation_losses(result.fronts, result.search, result.transforms, result.reduction, rows)
    return replace(result, fronts=fronts)


def _add_fidelity(result: Distillation, equations: Surrogate, function: BlockFunction | None) -> Distillation:
    assert result.train is not None
    train = result.train.select_outputs(result.outputs)
    held_out = None if result.held_out is None else result.held_out.select_outputs(result.outputs)
    baseline = fit_linear_baseline(result.transforms, result.reduction, train, held_out or train)
    measured = verify(equations, baseline, train, held_out, function, result.outputs)
    return replace(result, fidelity=measured)


def _add_model_fidelity(
    result: Distillation,
    build: Callable[[], Surrogate],
    block: Any,
    parent: Callable[..., Any] | None,
    batch: Any,
) -> Distillation:
    if batch is None or parent is None or not isinstance(block, nn.Module):
        return result
    replacement = result.replacement(move_to_block(build(), block))
    return replace(
        result, model_fidelity=measure_model(parent, block, replacement, prepare_batch(batch, parent, None))
    )
