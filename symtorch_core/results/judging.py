"""Fidelity of the chosen equations of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symtorch_core.search.fidelity import EquationFidelity
from symtorch_core.verification.fidelity import OutputFidelity
from symtorch_core.verification.verify import Samples, judge_surrogate

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation


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
        samples = samples or Samples.of(result.train, result.held_out, result.outputs)
        if result.transforms.lost() or (samples.train or samples.held_out) is None:
            judged = [EquationFidelity()] * len(result.outputs)
        else:
            judged = judge_surrogate(result.surrogate(), samples)
    baseline = [entry.linear for entry in result.fidelity] or [None] * len(result.outputs)
    return tuple(
        OutputFidelity(entry.train, entry.held_out, entry.out_of_range, linear)
        for entry, linear in zip(judged, baseline, strict=True)
    )
