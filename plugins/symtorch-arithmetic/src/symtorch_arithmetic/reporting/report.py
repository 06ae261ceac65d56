"""The study's report: accuracy, equations of answers and of errors, the published ones beside them, pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

from symtorch_arithmetic.analysis.laws import measure_law_error
from symtorch_arithmetic.experiment import Run
from symtorch_arithmetic.reporting.figures import draw_errors, draw_where
from symtorch_core.studies import (
    Chapter,
    Claim,
    Drawing,
    Equation,
    Part,
    Section,
    StudyReport,
    Table,
    Text,
    build_front_part,
)

_SHOWN: Final = 20
_LETTERS: Final = 200
_DIGITS: Final = 6


@final
@dataclass(frozen=True)
class Expectation:
    """What is expected of a run; by default nothing: figures are reported only.

    Attributes:
        accuracy: share of answers that should be exactly right.
        law_within: largest relative error of a constant of the chosen equation, which should be the true law.
        planted: whether the equation of the errors should be in the variables of the task's planted error.
    """

    accuracy: float | None = None
    law_within: float | None = None
    planted: bool = False


def build_report(runs: Sequence[tuple[Run, Expectation]], subtitle: str) -> StudyReport:
    """Build the report on one model, with a run for each task.

    Args:
        runs: each with what is expected of it.
        subtitle: the model and the settings of the searches.
    """
    found = [run for run, _ in runs]
    overview = {
        "equations": tabulate_equations(found),
        "errors": tabulate_errors(found),
        "published": tabulate_published(found),
    }
    unused = tabulate_unused(found)
    report = StudyReport.of_chapters(
        "arithmetic",
        "What arithmetic a language model has learned",
        [_build_chapter(run) for run in found],
        overview="All tasks",
        subtitle=subtitle,
        claims=[claim for run, expected in runs for claim in list_claims(run, expected)],
        tables=overview,
        figures={"runs": [_to_json(run) for run in found]},
        versions=found[0].law.provenance.versions,
    )
    first = Table(unused.headings, unused.rows[:_SHOWN], f"{unused.caption}; the first ones", numbers=False)
    more = [Section("Answers that were not used", (first,))] if unused.rows else []
    tables = {**overview, **({"unread": unused} if unused.rows else {}), "answers": tabulate_answers(found)}
    return replace(report, tables=tables, sections=[*report.sections, *more])


def _build_chapter(run: Run) -> Chapter:
    drawings = dict(draw_run(run))
    return Chapter(run.task.name, run.task.title, drawings, tuple(_details(run, drawings)))


def list_claims(run: Run, expected: Expectation) -> Iterator[Claim]:
    """List what was expected of a run, and what came out."""
    name, within = run.task.name, expected.law_within
    yield Claim(
        f"{name}: answers that are exactly right",
        "" if expected.accuracy is None else f">= {expected.accuracy:.0%}",
        f"{run.accuracy:.1%} of {len(run.answers)}",
        None if expected.accuracy is None else run.accuracy >= expected.accuracy,
    )
    yield Claim(
        f"{name}: chosen equation",
        run.task.law + ("" if within is None else f", constants within {within:.1g}"),
        run.equation.text(_DIGITS),
        None if within is None else measure_law_error(run.equation.expression, run.task) <= within,
    )
    yield Claim(
        f"{name}: the true law on the front, from simple to complex; by score",
        "",
        _describe_position(run),
        None,
    )
    yield Claim(
        f"{name}: answers explained by the law; with the equation of the errors",
        "",
        f"{run.compute_explained_share(with_error=False):.1%}; {run.compute_explained_share(with_error=True):.1%} with "
        f"{run.error_equation.text(4)}",
        None,
    )
    yield Claim(
        f"{name}: variables in the equation of the errors; of wrong answers",
        ", ".join(run.task.planted_in) if expected.planted else "",
        f"{_join(run.error_variables)}; {_join(run.error_analysis.important)}",
        set(run.error_variables) == set(run.task.planted_in) if expected.planted else None,
    )


def tabulate_equations(runs: Sequence[Run]) -> Table:
    """Return accuracies, chosen equations, positions of the true law, and the equations of the errors."""
    return Table(
        ("task", "right", "chosen equation", "true law on the front", "errors after the law"),
        tuple(
            (
                run.task.name,
                f"{run.accuracy:.1%}",
                run.equation.text(_DIGITS),
                _describe_position(run),
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
                _join(run.error_analysis.important),
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
                run.equation.text(_DIGITS),
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


def draw_run(run: Run) -> Iterator[tuple[str, Drawing]]:
    """Draw the pictures of one run, by kind."""
    name = run.task.name
    yield "errors", Drawing(lambda ax: draw_errors(ax, run), f"{name}: errors after {run.task.law}")
    yield "where", Drawing(lambda ax: draw_where(ax, run), f"{name}: where answers are wrong")
    yield "front", Drawing(lambda ax: run.law.front(0).plot(ax), f"{name}: Pareto front of the answers")
    yield (
        "errors-front",
        Drawing(lambda ax: run.residual.front(0).plot(ax), f"{name}: Pareto front of the errors"),
    )


def _details(run: Run, pictures: Mapping[str, Drawing]) -> Iterator[Part]:
    sources = [reading.source for reading in run.readings]
    kinds = "".join(
        f" Of the {int(kind.sum())} {name}: {float(run.right[kind].double().mean()):.1%}."
        for name, kind in run.kinds.items()
    )
    yield Text(
        f"Asked: {run.prompts[0]} Right: {run.accuracy:.1%} of {len(run.answers)}.{kinds} Numbers were found in a box "
        f"{sources.count('box')} times, as the first number {sources.count('first number')} times, and not at all "
        f"{sources.count('nothing')} times."
    )
    yield Equation.of("answer", run.equation.expression, _DIGITS)
    yield Text(f"The true law, {run.task.law}, on the front: {_describe_position(run)}.")
    yield build_front_part(run.law.front(0), run.equation, f"front-{run.task.name}", "answer")
    yield Text(
        f"What is left after the true law (answer minus truth), in the variables {', '.join(run.task.digits)}. With "
        f"this equation {run.compute_explained_share(with_error=True):.1%} of the answers are explained exactly, "
        f"without it {run.compute_explained_share(with_error=False):.1%}."
    )
    yield build_front_part(run.residual.front(0), run.error_equation, f"errors-{run.task.name}", "error")
    yield pictures["errors"].part()
    yield pictures["where"].part()


def _join(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _describe_position(run: Run) -> str:
    found = run.law_position
    if found is None:
        return "not there"
    return f"{found.position} of {found.of}, rank {found.rank}"


def _to_json(run: Run) -> dict[str, Any]:
    return {
        "task": run.task.name,
        "model": run.model,
        "questions": len(run.answers),
        "accuracy": run.accuracy,
        "accuracy_of": {name: float(run.right[kind].double().mean()) for name, kind in run.kinds.items()},
        "unused": int((~run.usable).sum()),
        "chosen": str(run.equation.expression),
        "law_error": None if run.law_position is None else run.law_position.error,
        "law_place": _describe_position(run),
        "errors": str(run.error_equation.expression),
        "explained": {
            "law": run.compute_explained_share(with_error=False),
            "law and errors": run.compute_explained_share(with_error=True),
        },
        "named": list(run.error_analysis.important),
        "importances": dict(run.error_analysis.importances),
        "front": [[c.complexity, c.loss, str(c.expression)] for c in run.law.front(0)],
        "errors_front": [[c.complexity, c.loss, str(c.expression)] for c in run.residual.front(0)],
    }
