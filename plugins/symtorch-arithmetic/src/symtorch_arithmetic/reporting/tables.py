"""Tables of the study's report: equations, errors, the published equations, and answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from symtorch_arithmetic.experiment import Run
from symtorch_core.studies import Table

DIGITS: Final = 6
"""Significant digits of an equation in a report."""
_LETTERS: Final = 200


def tabulate_equations(runs: Sequence[Run]) -> Table:
    """Return accuracies, chosen equations, positions of the true law, and the equations of the errors."""
    return Table(
        ("task", "right", "chosen equation", "true law on the front", "errors after the law"),
        tuple(
            (
                run.task.name,
                f"{run.accuracy:.1%}",
                run.equation.text(DIGITS),
                describe_position(run),
                run.error_equation.text(4),
            )
            for run in runs
        ),
        "Equations of the answers, and of the errors that the true law leaves; the law's place on the front from "
        "simple to complex, and its rank by score",
        numbers=False,
    )


def tabulate_errors(runs: Sequence[Run]) -> Table:
    """Return the shares that the law and the equation of the errors explain, and the variables of wrong answers."""
    return Table(
        (
            "task",
            "asked",
            "wrong",
            "no number",
            "explained by the law",
            "with the errors' equation",
            "law's constants off by",
            "variables of wrong answers",
            "ROC area",
        ),
        tuple(
            (
                run.task.name,
                str(len(run.answers)),
                str(int((~run.right[run.usable]).sum())),
                str(sum(reading.source == "nothing" for reading in run.readings)),
                f"{run.compute_explained_share(with_error=False):.1%}",
                f"{run.compute_explained_share(with_error=True):.1%}",
                "" if run.law_position is None else f"{run.law_position.error:.1g}",
                join(run.error_analysis.important),
                "too few" if math.isnan(run.error_analysis.auc) else f"{run.error_analysis.auc:.3f}",
            )
            for run in runs
        ),
        "Share of the answers with a number that are explained to the last digit; largest relative error of a constant "
        "of the law on the front; variables by a random forest, its area on answers that it has not seen",
        numbers=False,
    )


def tabulate_published(runs: Sequence[Run]) -> Table:
    """Return the reference study's equations beside ours."""
    return Table(
        (
            "task",
            "reference: chosen equation",
            "mean squared error",
            "of the law's form",
            "questions",
            "ours",
        ),
        tuple(
            (
                run.task.name,
                run.task.published.chosen,
                f"{run.task.published.chosen_loss:.3g}",
                "" if run.task.published.law_loss is None else f"{run.task.published.law_loss:.4g}",
                str(run.task.published.questions),
                run.equation.text(DIGITS),
            )
            for run in runs
        ),
        "The reference study (its notebook: Llama-3.2-1B-Instruct, PySR, squared errors; it counts in four digits, not "
        "six) beside ours: another model, and a robust loss",
        numbers=False,
    )


def tabulate_unused(runs: Sequence[Run]) -> Table:
    """Return the answers that equations are not fitted to: those without a number, and those absurdly far off."""
    rows = []
    for run in runs:
        for place in (~run.usable).nonzero()[:, 0].tolist():
            reason = "no number" if run.readings[place].source == "nothing" else "absurdly far off"
            rows.append((run.task.name, run.prompts[place], reason, run.answers[place][:_LETTERS]))
    return Table(
        ("task", "question", "why", "answer"),
        tuple(rows),
        f"{len(rows)} answers were not used",
        numbers=False,
    )


def tabulate_answers(runs: Sequence[Run]) -> Table:
    """Return every answer."""
    return Table(
        ("task", "question", "truth", "number", "found in", "right", "answer"),
        tuple(
            (
                run.task.name,
                prompt,
                f"{truth:.10g}",
                f"{reading.value:.10g}",
                reading.source,
                str(right),
                answer,
            )
            for run in runs
            for prompt, truth, reading, right, answer in zip(
                run.prompts,
                run.task.compute_truth(run.numbers).tolist(),
                run.readings,
                run.right.tolist(),
                run.answers,
                strict=True,
            )
        ),
        "All answers",
        numbers=False,
    )


def join(names: Sequence[str]) -> str:
    """Return names in one text."""
    return ", ".join(names) or "none"


def describe_position(run: Run) -> str:
    """Return where the true law stands on the front, as text."""
    found = run.law_position
    if found is None:
        return "not there"
    return f"{found.position} of {found.of}, rank {found.rank}"
