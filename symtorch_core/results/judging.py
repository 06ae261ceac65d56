"""Fidelity of the chosen equations of a result, and losses of all its equations on other rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from symtorch_core.activations.rows import Activations
from symtorch_core.errors import CaptureError, SelectionError
from symtorch_core.results.prediction import order_columns
from symtorch_core.search.fidelity import EquationFidelity
from symtorch_core.search.front import ParetoFront
from symtorch_core.verification.fidelity import OutputFidelity
from symtorch_core.verification.verify import Samples, add_validation_losses, judge_surrogate

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation


def collect_samples(result: Distillation) -> Samples:
    """Return the rows of a result that are in memory, with its outputs only."""
    train, held_out, truth = (
        None if rows is None else rows.select_outputs(result.outputs)
        for rows in (result.train, result.held_out, result.truth)
    )
    return Samples(train, held_out, truth=truth)


def judge_chosen(result: Distillation, samples: Samples | None = None) -> tuple[OutputFidelity, ...]:
    """Return the fidelity of the chosen equations for each distilled output of the block.

    Where each equation is an output, it was measured with its front. Otherwise the equations run together on rows.

    Args:
        result: the result; its linear baseline is kept.
        samples: rows to judge on; by default, those of the result that are in memory. What cannot be measured on them
            is None.

    Raises:
        SelectionError: a front is empty.
    """
    known = [candidate.fidelity for candidate in result.chosen()]
    judged = [entry for entry in known if entry is not None]
    if not result.reduction.keeps_outputs or len(judged) < len(known):
        samples = samples or collect_samples(result)
        if result.transforms.lost() or (samples.train or samples.held_out) is None:
            judged = [EquationFidelity()] * len(result.outputs)
        else:
            judged = judge_surrogate(result.surrogate(), samples)
    return tuple(
        OutputFidelity(entry.train, entry.held_out, entry.out_of_range, former.linear, entry.truth)
        for entry, former in zip(judged, result.fidelity, strict=True)
    )


def measure_fronts(result: Distillation, data: Any) -> tuple[ParetoFront, ...]:
    """Return the fronts with losses on other rows in place of those of the search, without what is no better there.

    Args:
        result: the result; each of its equations is an output.
        data: activations, or a pair (X, Y); Y has a column for each output of the block or for each distilled one.

    Raises:
        SelectionError: a reducer mixes outputs, or no equation of a front is finite on the rows.
        CaptureError: the rows are not of this block.
    """
    if not result.reduction.keeps_outputs:
        raise SelectionError(
            f"the reducer {result.provenance.reducer!r} mixes outputs, so single equations have no measurements: use "
            "judge(activations, complexity=...)"
        )
    rows = _read_data(result, data)
    judged = add_validation_losses(result.fronts, result.searches, result.transforms, result.reduction, rows)
    measured = tuple(
        ParetoFront(
            [replace(c, loss=math.inf if c.validation_loss is None else c.validation_loss) for c in front]
        )
        for front in judged
    )
    for name, front in zip(result.equation_names, measured, strict=True):
        if not front:
            raise SelectionError(f"equation {name!r}: none of its front has a finite loss on these rows")
    return measured


def _read_data(result: Distillation, data: Any) -> Activations:
    """Return the user's rows, with the distilled outputs only."""
    names = result.transforms.input_names
    if isinstance(data, Activations):
        rows = data
    else:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise CaptureError(f"data takes a pair (X, Y) or Activations, not a {type(data).__name__}")
        rows = Activations.of(order_columns(data[0], result), data[1])
    if rows.inputs.shape[1] != len(names):
        raise CaptureError(
            f"the equations take {len(names)} inputs ({', '.join(names)}), the data have {rows.inputs.shape[1]}"
        )
    width = rows.outputs.shape[1]
    if width == result.block_outputs:
        return rows.select_outputs(result.outputs)
    if width != len(result.outputs):
        raise CaptureError(
            f"the data have {width} outputs: give one for each of the block's {result.block_outputs} columns, or one "
            f"for each of {', '.join(result.output_names)}"
        )
    return rows
