"""The study's report: accuracy, equations of answers and of errors, the published ones beside them, pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, final, get_args

from symtorch_arithmetic.analysis.laws import measure_law_error
from symtorch_arithmetic.answers.reading import Source
from symtorch_arithmetic.experiment import Run
from symtorch_arithmetic.reporting.figures import draw_errors, draw_laws, draw_where
from symtorch_arithmetic.reporting.kind_tables import (
    describe_mixture,
    list_law_texts,
    tabulate_kinds,
    tabulate_kinds_by_law,
    tabulate_laws,
)
from symtorch_arithmetic.reporting.tables import (
    DIGITS,
    describe_position,
    join,
    tabulate_answers,
    tabulate_equations,
    tabulate_errors,
    tabulate_published,
    tabulate_unused,
)
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


def build_report(
    runs: Sequence[tuple[Run, Expectation]], subtitle: str, failures: Mapping[str, str] = MappingProxyType({})
) -> StudyReport:
    """Build the report on one model, with a run for each task.

    Args:
        runs: each with what is expected of it.
        subtitle: the model and the settings of the searches.
        failures: why there is no run, by the names of other tasks.
    """
    found = [run for run, _ in runs]
    overview = {
        "equations": tabulate_equations(found),
        "kinds": tabulate_kinds(found),
        "laws": tabulate_laws(found),
        "errors": tabulate_errors(found),
        "published": tabulate_published(found),
    }
    unused = tabulate_unused(found)
    claims = [claim for run, expected in runs for claim in list_claims(run, expected)]
    claims += [Claim(f"{name}: no equation", "", why, None) for name, why in failures.items()]
    report = StudyReport.of_chapters(
        "arithmetic",
        "What arithmetic a language model has learned",
        [_build_chapter(run) for run in found],
        overview="All tasks",
        subtitle=subtitle,
        claims=claims,
        tables=overview,
        figures={"runs": [_to_json(run) for run in found]},
        versions=found[0].law.provenance.versions,
    )
    first = Table(unused.headings, unused.rows[:_SHOWN], f"{unused.caption}; the first ones", numbers=False)
    more = [Section("Answers that were not used", (first,))] if unused.rows else []
    if failures:
        more.append(Section("Tasks without an equation", tuple(map(Text, failures.values()))))
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
        run.equation.text(DIGITS),
        None if within is None else measure_law_error(run.equation.expression, run.task) <= within,
    )
    yield Claim(
        f"{name}: the true law on the front, from simple to complex; by score",
        "",
        describe_position(run),
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
        f"{name}: laws found in the answers alone, with the held-out answers that each explains",
        "",
        "; ".join(list_law_texts(run)) or "none",
        None,
    )
    yield Claim(
        f"{name}: variables in the equation of the errors; of wrong answers",
        ", ".join(run.task.planted_in) if expected.planted else "",
        f"{join(run.error_variables)}; {join(run.error_analysis.important)}",
        set(run.error_variables) == set(run.task.planted_in) if expected.planted else None,
    )


def draw_run(run: Run) -> Iterator[tuple[str, Drawing]]:
    """Draw the pictures of one run, by kind."""
    name = run.task.name
    yield "errors", Drawing(lambda ax: draw_errors(ax, run), f"{name}: errors after {run.task.law}")
    yield "where", Drawing(lambda ax: draw_where(ax, run), f"{name}: where answers are wrong")
    yield "laws", Drawing(lambda ax: draw_laws(ax, run), f"{name}: answers by the law that explains them")
    yield "front", Drawing(lambda ax: run.law.front(0).plot(ax), f"{name}: Pareto front of the answers")
    yield (
        "errors-front",
        Drawing(lambda ax: run.residual.front(0).plot(ax), f"{name}: Pareto front of the errors"),
    )


def _details(run: Run, pictures: Mapping[str, Drawing]) -> Iterator[Part]:
    kinds = "".join(
        f" Of the {int(kind.sum())} {name}: {float(run.right[kind].double().mean()):.1%}."
        for name, kind in run.kinds.items()
    )
    yield Text(
        f"Asked: {run.prompts[0]} Right: {run.accuracy:.1%} of {len(run.answers)}.{kinds} Where numbers were found: "
        f"{_count_sources(run)}. By the paper's rule, the box or the first number, {run.accuracy_by_paper:.1%} would "
        f"count as right."
    )
    yield tabulate_kinds([run])
    yield Text(describe_mixture(run))
    yield tabulate_laws([run])
    yield tabulate_kinds_by_law(run)
    yield pictures["laws"].part()
    yield Text("One equation for all answers:")
    yield Equation.of("answer", run.equation.expression, DIGITS)
    yield Text(f"The true law, {run.task.law}, on the front: {describe_position(run)}.")
    yield build_front_part(run.law.front(0), run.equation, f"front-{run.task.name}", "answer")
    yield Text(
        f"What is left after the true law (answer minus truth), in the variables {', '.join(run.task.digits)}. With "
        f"this equation {run.compute_explained_share(with_error=True):.1%} of the answers are explained exactly, "
        f"without it {run.compute_explained_share(with_error=False):.1%}."
    )
    yield build_front_part(run.residual.front(0), run.error_equation, f"errors-{run.task.name}", "error")
    yield pictures["errors"].part()
    yield pictures["where"].part()


def _count_sources(run: Run) -> str:
    counts = Counter(reading.source for reading in run.readings)
    return ", ".join(f"{source} {counts[source]}" for source in get_args(Source) if counts[source])


def _to_json(run: Run) -> dict[str, Any]:
    return {
        "task": run.task.name,
        "model": run.model,
        "questions": len(run.answers),
        "accuracy": run.accuracy,
        "accuracy_by_paper": run.accuracy_by_paper,
        "accuracy_of": {name: float(run.right[kind].double().mean()) for name, kind in run.kinds.items()},
        "unused": int((~run.usable).sum()),
        "chosen": str(run.equation.expression),
        "law_error": None if run.law_position is None else run.law_position.error,
        "law_place": describe_position(run),
        "errors": str(run.error_equation.expression),
        "explained": {
            "law": run.compute_explained_share(with_error=False),
            "law and errors": run.compute_explained_share(with_error=True),
        },
        "kinds": {found.kind: [found.count, found.by_chance] for found in run.count_kinds()},
        "laws": [
            {
                "law": str(law.expression),
                "found by": list(law.origins),
                "explained": int(law.explained.sum()),
                "held out": [law.hits, law.left, int(run.mixture.held_out.sum())],
                "by chance": law.chance,
                "probability": law.probability,
            }
            for law in run.mixture.laws
        ],
        "deciding": {"auc": _none_if_nan(run.deciding.auc), "variables": list(run.deciding.important)},
        "named": list(run.error_analysis.important),
        "importances": dict(run.error_analysis.importances),
        "front": [[c.complexity, c.loss, str(c.expression)] for c in run.law.front(0)],
        "errors_front": [[c.complexity, c.loss, str(c.expression)] for c in run.residual.front(0)],
    }


def _none_if_nan(number: float) -> float | None:
    return None if math.isnan(number) else number
