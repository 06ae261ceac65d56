"""The study's report: the paper's Tables 6 and 7 with our figures, Pareto fronts, and how linear the messages are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from symtorch_core.studies import (
    Chapter,
    Claim,
    Drawing,
    Equation,
    Part,
    StudyReport,
    Table,
    Text,
    build_front_part,
)
from symtorch_gnn.experiment import Law, Model

_ASKED = {("bottleneck", "messages"), ("pruning", "messages"), ("l1", "messages"), ("standard", "components")}
"""Where both equations are asked to be right at laptop scale, for spring and r1; of r2 and charge, 6 of 8 in all."""
_HEAVY = ("r2", "charge")
_HEAVY_RIGHT = 6
_SHOWN = 800
PAPER_RIGHT = "30 of 40"
"""Cells of the paper's Table 7 with an equation of the right form."""


def build_report(models: Sequence[Model], *, scale: str, regressor: str) -> StudyReport:
    """Build the report of all networks."""
    return StudyReport.of_chapters(
        "gnn",
        "Force laws out of graph networks",
        [_build_chapter(model) for model in models],
        overview="All networks",
        subtitle=f"{scale} scale, {regressor}, seed {models[0].seed}",
        claims=list(list_claims(models)),
        tables={
            "laws": tabulate_laws(models),
            "linearity": tabulate_linearity(models),
            "errors": tabulate_errors(models),
        },
        figures={"models": [_to_json(model) for model in models]},
        versions=models[0].laws[0].result.provenance.versions,
    )


def _build_chapter(model: Model) -> Chapter:
    drawings = dict(draw_model(model))
    title = f"{model.force.name}, {model.variant.name}"
    return Chapter(_name(model), title, drawings, tuple(_details(model, list(drawings.values()))))


def list_claims(models: Sequence[Model]) -> Iterator[Claim]:
    """List what the study was asked to show, for the networks that were trained."""
    for model in models:
        for law in model.laws:
            right = sum(verdict.matches for verdict in law.verdicts)
            asked = model.force.name not in _HEAVY and (model.variant.name, law.carrier) in _ASKED
            yield Claim(
                f"{model.force.name}, {model.variant.name}: {law.carrier} of the law's form",
                "2 of 2" if asked else "reported only",
                f"{right} of 2 ({', '.join(verdict.mark for verdict in law.verdicts)})",
                right == 2 if asked else None,
            )
    heavy = [m for m in models if m.force.name in _HEAVY and m.variant.name in ("bottleneck", "pruning")]
    if len(heavy) == 2 * len(_HEAVY):
        right = sum(verdict.matches for model in heavy for verdict in model.laws[0].verdicts)
        yield Claim(
            "r2 and charge, bottleneck and pruning: messages of the law's form",
            f"{_HEAVY_RIGHT} of 8",
            f"{right} of 8",
            right >= _HEAVY_RIGHT,
        )
    cells = [verdict for model in models for verdict in model.laws[-1].verdicts]
    right = sum(verdict.matches for verdict in cells)
    yield Claim("all messages or components", f"paper: {PAPER_RIGHT}", f"{right} of {len(cells)}")


def tabulate_laws(models: Sequence[Model]) -> Table:
    """Return Table 7 of the paper, cell by cell."""
    rows = (
        (
            model.force.name,
            model.variant.name,
            name,
            verdict.mark,
            verdict.factor if verdict.matches else "",
            f"{verdict.r2:.5f}",
            f"{verdict.exponent:.2f}" if verdict.true_exponent is not None else "",
            candidate.text(3),
        )
        for model in models
        for law in model.laws
        for name, verdict, candidate in zip(_names(law), law.verdicts, law.result.chosen(), strict=True)
    )
    return Table(
        (
            "force",
            "variant",
            "message",
            "form",
            "image of",
            "R² of the image",
            "exponent of r",
            "chosen equation",
        ),
        tuple(rows),
        "Is the chosen equation a linear image of the true force, on fresh pairs? (paper, Table 7)",
        numbers=False,
    )


def tabulate_linearity(models: Sequence[Model]) -> Table:
    """Return Table 6 of the paper: the messages themselves."""
    rows = (
        (
            model.force.name,
            model.variant.name,
            name,
            "force / mass" if law.over_mass else "force",
            f"{fit.r2:.4f}",
        )
        for model in models
        for law in model.laws
        for name, fit in zip(_names(law), law.linear, strict=True)
    )
    return Table(
        ("force", "variant", "message", "image of", "R²"),
        tuple(rows),
        "Messages regressed on the force, or on it over the receiver's mass; the worst tenth left out (Table 6)",
        numbers=False,
    )


def tabulate_errors(models: Sequence[Model]) -> Table:
    """Return the test errors of the networks, before and after equations replace the edge model."""
    rows = (
        (
            model.force.name,
            model.variant.name,
            law.carrier,
            f"{model.error:.4g}",
            f"{law.error:.4g}",
            f"{model.seconds:.0f}",
            f"{law.result.provenance.seconds['regress']:.0f}",
        )
        for model in models
        for law in model.laws
    )
    return Table(
        ("force", "variant", "distilled", "test MAE", "on equations", "training, s", "search, s"),
        tuple(rows),
        "Mean absolute error of an acceleration's component; searches that were finished before take almost no time",
        numbers=False,
    )


def draw_model(model: Model) -> Iterator[tuple[str, Drawing]]:
    """Draw the pictures of one network, by kind."""
    name = f"{model.force.name}, {model.variant.name}"
    for law in model.laws:
        yield f"{law.carrier}-linear", _draw_linearity(law, name)
        yield f"{law.carrier}-front", _draw_fronts(law, name)


def _draw_linearity(law: Law, name: str) -> Drawing:
    def draw(ax: Any) -> None:
        for colour, title, fit, values in zip(
            ("C0", "C1"), _names(law), law.linear, law.values.double().T, strict=True
        ):
            image = fit(law.true)
            kept = fit.kept.nonzero()[:_SHOWN, 0]
            ax.plot(
                image[kept],
                values[kept],
                ".",
                color=colour,
                markersize=3,
                alpha=0.5,
                label=f"{title}: R² {fit.r2:.4f}",
            )
        low, high = ax.get_xlim()
        ax.plot([low, high], [low, high], "-", color="0.5", linewidth=1)
        ax.set(
            xlabel="linear image of the true force" + (" over the mass" if law.over_mass else ""),
            ylabel="message",
        )
        ax.legend(markerscale=3)

    return Drawing(draw, f"{name}: {law.carrier} against the force", 5.2, 3.8)


def _draw_fronts(law: Law, name: str) -> Drawing:
    def draw(ax: Any) -> None:
        for colour, title, front, chosen in zip(
            ("C0", "C1"), _names(law), law.result.fronts, law.result.chosen(), strict=True
        ):
            ax.step(
                [c.complexity for c in front],
                [c.loss for c in front],
                where="post",
                color=colour,
                label=title,
            )
            ax.plot([chosen.complexity], [chosen.loss], "o", color=colour)
        ax.set_yscale("log")
        ax.set(xlabel="complexity", ylabel="mean absolute error")
        ax.legend()

    return Drawing(draw, f"{name}: Pareto fronts of the {law.carrier}", 5.2, 3.8)


def _details(model: Model, pictures: Sequence[Drawing]) -> Iterator[Part]:
    yield Text(
        f"Test error {model.error:.4g}, trained in {model.seconds:.0f} s. Largest relative energy drift of the "
        f"simulations {model.drift:.1e}."
    )
    for number, law in enumerate(model.laws):
        for name, candidate, verdict in zip(_names(law), law.result.chosen(), law.verdicts, strict=True):
            yield Text(f"{name}: {verdict.mark}, R² of the image {verdict.r2:.5f}")
            yield Equation.of(name.replace(" ", "_"), candidate.expression)
        for drawing in pictures[2 * number : 2 * number + 2]:
            yield drawing.part()
        for name, front, candidate in zip(_names(law), law.result.fronts, law.result.chosen(), strict=True):
            key = f"{_name(model)}-{name.replace(' ', '-')}"
            yield build_front_part(front, candidate, key, name.replace(" ", "_"))


def _names(law: Law) -> tuple[str, ...]:
    if law.carrier == "messages":
        return tuple(f"message {column}" for column in law.columns)
    return "component 1", "component 2"


def _name(model: Model) -> str:
    return f"{model.force.name}-{model.variant.name}"


def _to_json(model: Model) -> dict[str, Any]:
    return {
        "force": model.force.name,
        "variant": model.variant.name,
        "seed": model.seed,
        "error": model.error,
        "seconds": model.seconds,
        "drift": model.drift,
        "laws": [
            {
                "carrier": law.carrier,
                "columns": list(law.columns),
                "over_mass": law.over_mass,
                "linear_r2": [fit.r2 for fit in law.linear],
                "equations": [str(candidate.expression) for candidate in law.result.chosen()],
                "verdicts": [{**vars(verdict), "mark": verdict.mark} for verdict in law.verdicts],
                "error": law.error,
                "seconds": law.result.provenance.seconds["regress"],
            }
            for law in model.laws
        ],
    }
