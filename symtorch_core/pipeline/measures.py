"""Measures of a result, once its equations are found: no failure here may lose them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from torch import nn

from symtorch_core.activations.batches import prepare_batch
from symtorch_core.activations.rows import BlockFunction
from symtorch_core.results.choosing import choose_by_rule
from symtorch_core.results.distillation import Distillation
from symtorch_core.results.judging import collect_samples, judge_chosen
from symtorch_core.search.selection import SelectionRule
from symtorch_core.surrogates.running import move_to_block
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.verification.fidelity import OutputFidelity
from symtorch_core.verification.verify import (
    ReducedRows,
    add_fidelity,
    add_out_of_range,
    add_validation_losses,
    fit_linear_baseline,
    is_clearly_worse,
    measure_constants,
)
from symtorch_core.verification.whole_model import measure_model

_NOTHING: Final = 0.01
"""R2 on held-out rows up to which equations are no better than the mean."""
_SHOWN: Final = 5
_ENOUGH: Final = 20
"""Held-out rows that are needed to say so."""


def measure_result(
    result: Distillation,
    rule: SelectionRule,
    block: Any,
    parent: Callable[..., Any] | None,
    batch: Any,
    function: BlockFunction | None,
) -> Iterator[Distillation]:
    """Yield the result with one measure more each time: held-out losses, fidelity, that of the whole model.

    A measure that fails is left out, and a warning says so.

    Args:
        result: fronts, and the rows in memory; its equations are chosen without held-out rows.
        rule: what is to choose the equations, once the held-out losses are known.
        block, parent: as given to :func:`symtorch_core.distill`.
        batch: a batch for the parent, or None.
        function: the block as a function of rows, to measure it out of range; None if this is not possible.
    """

    @functools.cache
    def build() -> Surrogate:
        return result.surrogate()

    measures: dict[str, Callable[[Distillation], Distillation]] = {
        "the held-out losses": lambda found: _add_held_out_losses(found, rule),
        "their fidelity": lambda found: _add_fidelity(found, function),
        "the whole model": lambda found: add_model_fidelity(found, build, block, parent, batch),
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
        yield result
    _warn_of_failures(result)


def _warn_of_failures(result: Distillation) -> None:
    """Warn of chosen equations that are worse than a constant, and of others that explain nothing, each once."""
    if result.interrupted:
        return
    worse = _list_worse(result)
    if worse:
        warnings.warn(
            f"{', '.join(worse)}: on held-out rows the chosen equation does worse than the best constant. Choose a "
            "simpler one of the front, search longer or with other operators, or give more rows",
            RuntimeWarning,
            stacklevel=4,
        )
    nothing = _list_unexplained(result, worse)
    if nothing:
        more = f" and {len(nothing) - _SHOWN} more" if len(nothing) > _SHOWN else ""
        warnings.warn(
            f"the equations explain nothing of {', '.join(nothing[:_SHOWN])}{more} on held-out rows: the data may be "
            "noise there, or lack an input; or the search needs other operators, more iterations or more rows",
            RuntimeWarning,
            stacklevel=4,
        )


def _list_worse(result: Distillation) -> list[str]:
    """Return the names of chosen equations that are clearly worse than a constant on held-out rows."""
    worse = result.find_worse_than_constant()
    if not worse:
        return []
    chosen, rows = result.chosen(), _reduce_rows(result)
    return [
        result.equation_names[number]
        for number in worse
        if is_clearly_worse(chosen[number].expression, number, *rows, result.searches[number].loss_function)
    ]


def _list_unexplained(result: Distillation, worse: Sequence[str]) -> list[str]:
    """Return the names of other outputs of which the chosen equations explain nothing on held-out rows, with R2.

    A reducer leaves out what matters least: with one, only if that is so for all outputs.
    """
    names = zip(result.output_names, result.fidelity, strict=False)
    found = {
        name: entry.held_out.r2
        for name, entry in names
        if entry.held_out is not None and entry.held_out.rows >= _ENOUGH and entry.held_out.r2 <= _NOTHING
    }
    if not result.reduction.keeps_outputs and len(found) < len(result.outputs):
        return []
    return [f"{name} (R2 {r2:.2g})" for name, r2 in found.items() if name not in worse]


def _add_held_out_losses(result: Distillation, rule: SelectionRule) -> Distillation:
    if result.held_out is None:
        return result
    rows = result.held_out.select_outputs(result.outputs)
    fronts = add_validation_losses(result.fronts, result.searches, result.transforms, result.reduction, rows)
    constants = measure_constants(*_reduce_rows(result), result.searches)
    return replace(result, fronts=fronts, choices=choose_by_rule(fronts, rule), constant_losses=constants)


def _reduce_rows(result: Distillation) -> tuple[ReducedRows, ReducedRows]:
    """Return the rows of the fit and the held-out rows, as the equations see them."""
    assert result.train is not None
    assert result.held_out is not None
    train, held_out = (
        ReducedRows.of(rows.select_outputs(result.outputs), result.transforms, result.reduction)
        for rows in (result.train, result.held_out)
    )
    return train, held_out


def _add_fidelity(result: Distillation, function: BlockFunction | None) -> Distillation:
    samples = collect_samples(result)
    if function is not None:
        samples = add_out_of_range(samples, function, result.outputs, result.transforms)
    fronts = add_fidelity(result.fronts, samples, result.transforms, result.reduction)
    train = samples.train
    assert train is not None
    baseline = fit_linear_baseline(result.transforms, result.reduction, train, samples.held_out or train)
    judged = replace(
        result, fronts=fronts, fidelity=tuple(OutputFidelity(linear=entry) for entry in baseline)
    )
    return replace(judged, fidelity=judge_chosen(judged, samples))


def add_model_fidelity(
    result: Distillation,
    build: Callable[[], Surrogate],
    block: Any,
    parent: Callable[..., Any] | None,
    batch: Any,
) -> Distillation:
    """Return the result with the agreement of the parent's output on equations with its output on the block.

    Args:
        result: the result.
        build: builds its equations.
        block, parent: as given to :func:`symtorch_core.distill`.
        batch: a batch for the parent; without one, the result stays as it is.
    """
    if batch is None or parent is None or not isinstance(block, nn.Module):
        return result
    replacement = result.replacement(move_to_block(build(), block))
    return replace(
        result, model_fidelity=measure_model(parent, block, replacement, prepare_batch(batch, parent, None))
    )
