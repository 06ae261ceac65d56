"""What the study says: accuracy, equations of answers and of errors, the published ones beside, pictures."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from symtorch_arithmetic.laws import law_error
from symtorch_arithmetic.pictures import draw_errors, draw_where
from symtorch_arithmetic.solving import Run
from symtorch_core.studies import (
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
class Expected:
    """What is asked of a run; by default nothing, and it is only told.

    Attributes:
        accuracy: share of answers that should be exactly right.
        law_within: largest relative error of a constant of the chosen equation, which should be the true law.
        planted: whether the equation of the errors should be in the variables of the task's planted error.
    """

    accuracy: float | None = None
    law_within: float | None = None
    planted: bool = False


def report_of(runs: Sequence[tuple[Run, Expected]], subtitle: str) -> StudyReport:
    """The report of all runs, one for each task, of one model.

    Args:
        runs: and what is asked of each.
        subtitle: which model, and how equations were searched for.
    """
    found = [run for run, _ in runs]
    failures = unread(found)
    shown = {"equations": equations(found), "errors": errors(found), "published": published(found)}
    listed = {"unread": failures} if failures.rows else {}
    pictures = {run.task.name: dict(drawings(run)) for run in found}
    return StudyReport(
        name="arithmetic",
        title="What arithmetic a language model has learned",
        subtitle=subtitle,
        claims=[claim for run, expected in runs for claim in claims(run, expected)],
        tables={**shown, **listed, "answers": answers(found)},
        drawings={
            f"{name}-{kind}": drawing for name, kinds in pictures.items() for kind, drawing in kinds.items()
        },
        sections=[
            Section("All tasks", tuple(shown.values())),
            *(Section(run.task.title, tuple(_details(run, pictures[run.task.name]))) for run in found),
            *(Section("Answers that were not used", (_first(table),)) for table in listed.values()),
        ],
        figures={"runs": [_plain(run) for run in found]},
        footer=", ".join(f"{name} {version}" for name, version in found[0].law.versions.items())
        + f", {platform.machine()}",
    )


def claims(run: Run, expected: Expected) -> Iterator[Claim]:
    """What is asked of a run, and what came out."""
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
        None if within is None else law_error(run.equation.expression, run.task) <= within,
    )
    yield Claim(f"{name}: the true law on the front, from simple to complex; by score", "", _place(run), None)
    yield Claim(
        f"{name}: answers explained by the law; with the equation of the errors",
        "",
        f"{run.explained(with_error=False):.1%}; {run.explained(with_error=True):.1%} with "
        f"{run.error_equation.text(4)}",
        None,
    )
    yield Claim(
        f"{name}: variables in the equation of the errors; of wrong answers",
        ", ".join(run.task.planted_in) if expected.planted else "",
        f"{_listed(run.error_variables)}; {_listed(run.screening.named)}",
        set(run.error_variables) == set(run.task.planted_in) if expected.planted else None,
    )


def equations(runs: Sequence[Run]) -> Table:
    """Accuracy, the chosen equation, where the true law is, and the equation of what it leaves."""
    return Table(
        ("task", "right", "chosen equation", "true law on the front", "errors after the law"),
        tuple(
            (
                run.task.name,
                f"{run.accuracy:.1%}",
                run.equation.text(_DIGITS),
                _place(run),
                run.error_equation.text(4),
            )
            for run in runs
        ),
        "Equations of the answers, and of the errors that the true law leaves; the law's place on the front from "
        "simple to complex, and its rank by score",
        numbers=False,
    )


def errors(runs: Sequence[Run]) -> Table:
    """How far the law and the equation of the errors go, and what wrong answers have in common."""
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
                f"{run.explained(with_error=False):.1%}",
                f"{run.explained(with_error=True):.1%}",
                "" if run.standing is None else f"{run.standing.error:.1g}",
                _listed(run.screening.named),
                "too few" if math.isnan(run.screening.auc) else f"{run.screening.auc:.3f}",
            )
            for run in runs
        ),
        "Share of the answers with a number that are explained to the last digit; largest relative error of a constant "
        "of the law on the front; variables by a random forest, its area on answers that it has not seen",
        numbers=False,
    )


def published(runs: Sequence[Run]) -> Table:
    """The reference study's equations beside ours."""
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


def unread(runs: Sequence[Run]) -> Table:
    """Answers that give no number, and those so far from all others that no equation is fitted to them."""
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


def answers(runs: Sequence[Run]) -> Table:
    """Every answer."""
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
                run.task.truth(run.numbers).tolist(),
                run.readings,
                run.right.tolist(),
                run.answers,
                strict=True,
            )
        ),
        "All answers",
        numbers=False,
    )


def _first(table: Table) -> Table:
    return Table(table.headings, table.rows[:_SHOWN], f"{table.caption}; the first ones", numbers=False)


def drawings(run: Run) -> Iterator[tuple[str, Drawing]]:
    """Pictures of one run, by kind."""
    name = run.task.name
    yield "errors", Drawing(lambda ax: draw_errors(ax, run), f"{name}: what is left after {run.task.law}")
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
    yield Text(f"The true law, {run.task.law}, on the front: {_place(run)}.")
    yield build_front_part(run.law.front(0), run.equation, f"front-{run.task.name}", "answer")
    yield Text(
        f"What is left after the true law (answer minus truth), in the variables {', '.join(run.task.digits)}. With "
        f"this equation {run.explained(with_error=True):.1%} of the answers are explained exactly, without it "
        f"{run.explained(with_error=False):.1%}."
    )
    yield build_front_part(run.residual.front(0), run.error_equation, f"errors-{run.task.name}", "error")
    yield pictures["errors"].part()
    yield pictures["where"].part()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _place(run: Run) -> str:
    found = run.standing
    if found is None:
        return "not there"
    return f"{found.position} of {found.of}, rank {found.rank}"


def _plain(run: Run) -> dict[str, Any]:
    return {
        "task": run.task.name,
        "model": run.model,
        "questions": len(run.answers),
        "accuracy": run.accuracy,
        "accuracy_of": {name: float(run.right[kind].double().mean()) for name, kind in run.kinds.items()},
        "unused": int((~run.usable).sum()),
        "chosen": str(run.equation.expression),
        "law_error": None if run.standing is None else run.standing.error,
        "law_place": _place(run),
        "errors": str(run.error_equation.expression),
        "explained": {
            "law": run.explained(with_error=False),
            "law and errors": run.explained(with_error=True),
        },
        "named": list(run.screening.named),
        "importances": dict(run.screening.importances),
        "front": [[c.complexity, c.loss, str(c.expression)] for c in run.law.front(0)],
        "errors_front": [[c.complexity, c.loss, str(c.expression)] for c in run.residual.front(0)],
    }
