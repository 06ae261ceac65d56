"""Tables of kinds of answers, by definition, and of the laws found in the answers alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from symtorch_arithmetic.analysis.laws import WITHIN, measure_law_error
from symtorch_arithmetic.analysis.mixture import SURE, FoundLaw
from symtorch_arithmetic.experiment import Run
from symtorch_arithmetic.reporting.tables import DIGITS, join
from symtorch_core.expressions import to_text, variables
from symtorch_core.studies import Table

_LETTERS: Final = 60
_MOSTLY: Final = (
    0.8  # share of the answers of a law that are of one kind, from which it bears the kind's name
)


def tabulate_kinds(runs: Sequence[Run]) -> Table:
    """Return how many answers are of each kind by definition, each with an example."""
    rows = []
    for run in runs:
        truths = run.task.compute_truth(run.numbers).tolist()
        for found in run.count_kinds():
            place = found.example
            rows.append(
                (
                    run.task.name,
                    found.kind,
                    str(found.count),
                    f"{found.share:.1%}",
                    f"{found.by_chance:.1%}",
                    _shorten(run.prompts[place].rsplit(". ", 1)[-1]),
                    _shorten(run.answers[place]),
                    f"{truths[place]:.10g}",
                )
            )
    return Table(
        ("task", "kind of answer", "count", "share", "by chance", "question", "answer", "right"),
        tuple(rows),
        "Kinds of answers by definition, the first that fits. By chance: the share where each answer is taken for the "
        "answer to another question",
        numbers=False,
    )


def tabulate_laws(runs: Sequence[Run]) -> Table:
    """Return the laws found in turn, each with the share of held-out answers that it explains."""
    rows = [
        (
            run.task.name,
            write_law(law),
            name_law(run, law),
            " and ".join(law.origins),
            str(int(law.explained.sum())),
            f"{run.mixture.compute_share(law):.1%}",
            f"{law.hits} of {law.left}",
            f"{law.chance:.1%}",
            f"{law.probability:.0e}",
        )
        for run in runs
        for law in run.mixture.laws
    ]
    return Table(
        (
            "task",
            "law",
            "its answers are",
            "found by",
            "explains",
            "of held-out answers",
            "of those left",
            "by chance",
            "probability",
        ),
        tuple(rows),
        "Laws found in the answers alone, without the right ones: each gives answers to the last digit that no law "
        "before it gives. Searched for and chosen on two thirds of the answers; shares are of the others",
        numbers=False,
    )


def tabulate_kinds_by_law(run: Run) -> Table:
    """Return how many answers of each kind each law explains: whether kinds by definition come out of the data."""
    laws = run.mixture.laws
    kinds = [kind for kind, used in zip(run.answer_kinds, run.usable.tolist(), strict=True) if used]
    counts = Counter(zip(kinds, run.mixture.places.tolist(), strict=True))
    return Table(
        ("kind by definition", *(write_law(law) for law in laws), "no law"),
        tuple(
            (kind, *(str(counts[kind, place]) for place in [*range(len(laws)), -1]))
            for kind in dict.fromkeys(found.kind for found in run.count_kinds())
            if kind in kinds
        ),
        "Answers of each kind by the law that explains them",
        numbers=False,
    )


def write_law(law: FoundLaw) -> str:
    """Return a law as text."""
    return to_text(law.expression, DIGITS)


def name_law(run: Run, law: FoundLaw) -> str:
    """Return what most answers of a law are by definition."""
    explained = law.explained.tolist()
    kinds = [kind for kind, used in zip(run.answer_kinds, run.usable.tolist(), strict=True) if used]
    counts = Counter(kind for kind, chosen in zip(kinds, explained, strict=True) if chosen)
    kind, count = counts.most_common(1)[0]
    named = kind if count >= _MOSTLY * sum(explained) else "of several kinds"
    if measure_law_error(law.expression, run.task) <= WITHIN:
        return f"{named}: the true law"
    return named if variables(law.expression) else f"{named}: the same number"


def list_law_texts(run: Run) -> Iterator[str]:
    """Yield each law with the share of held-out answers that it explains."""
    for law in run.mixture.laws:
        yield f"{write_law(law)} {run.mixture.compute_share(law):.1%}"


def describe_mixture(run: Run) -> str:
    """Return in words how the laws were found, and what decides between them."""
    mixture, deciding = run.mixture, run.deciding
    none = int((mixture.places < 0).sum())
    text = (
        f"Laws in turn: an equation that gives many answers to the last digit, then one for the answers that are left, "
        f"until none does so for more held-out answers than chance (probability below {SURE:g}). "
        f"{len(mixture.laws)} found in {mixture.searches} searches; {none} of {len(mixture.held_out)} numbers "
        f"follow no law."
    )
    if mixture.rejected is not None:
        text += (
            f" The next equation, {write_law(mixture.rejected)}, gives {mixture.rejected.hits} of "
            f"{mixture.rejected.left} held-out answers that are left, and is no law."
        )
    if math.isnan(deciding.auc):
        return f"{text} There are too few answers of two laws, or of one and of none, to say what decides between them."
    return (
        f"{text} What decides between the laws (and none), by a random forest on answers that it has not seen: "
        f"{join(deciding.important)}; ROC area {deciding.auc:.3f}, where 0.5 is chance."
    )


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LETTERS else line[: _LETTERS - 3] + "..."
