"""The study's report: the paper's Tables 1 and 5 with ours beside them, figures 4 and 5, equations and samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import torch
import transformers

from symtorch_core.studies import Claim, Equation, Part, Section, StudyReport, Table, Text, build_footer
from symtorch_llm.experiment import BETWEEN, FITTED, JUDGED, Variant
from symtorch_llm.fitting.baselines import BASELINES
from symtorch_llm.judging.layers import LayerChoice
from symtorch_llm.models.passages import Measured
from symtorch_llm.models.tasks import LanguageModelling
from symtorch_llm.reporting.figures import draw_findings
from symtorch_llm.reporting.findings import Findings

PAPER_SCORES: Final = {
    JUDGED: {"baseline": 10.62, "paper": 13.76, "control (output = input)": 17.59, BETWEEN: 13.73},
    FITTED: {"baseline": 10.74, "paper": 14.38, "control (output = input)": 18.86, BETWEEN: 14.34},
}
"""Perplexities of Qwen2.5-1.5B-Instruct on WikiText-2 with the MLPs of layers 7, 14 and 21 replaced (Table 1), on the
validation and the training part; with the exact MLPs between PCAs to 32 and 8 (figure 4). Digits from the authors'
repository astroautomata/LLM_PCA."""
PAPER_THROUGHPUT: Final = {"baseline": 4878.82, "paper": 5281.42}
"""Tokens a second of the same on an A100 (Table 5)."""
PAPER_LATENCY: Final = {"baseline": 0.2099, "paper": 0.1939}
"""Mean seconds of a pass of the same (Table 5)."""
PAPER_KEPT: Final = "inputs 32 %, 30 %, 40 %; outputs 13 %, 15 %, 12 %"
"""Variance that 32 and 8 components keep, by layer (the authors' repository)."""
_SHOWN_EQUATIONS = 2


def build_report(found: Findings) -> StudyReport:
    """Build the report."""
    tables = {"surrogates": tabulate_surrogates(found), "speed": tabulate_speeds(found)}
    if isinstance(found.task, LanguageModelling):  # the only task of the paper
        tables["paper"] = tabulate_paper(found)
    tables["texts"] = tabulate_texts(found)
    if found.choice is not None:
        tables["layers"] = tabulate_layers(found.choice, found.score_name)
    if found.frontier:
        tables["frontier"] = tabulate_frontier(found)
    if found.sensitivity:
        tables["sensitivity"] = tabulate_sensitivity(found)
    pictures = dict(draw_findings(found))
    sections = [
        Section("Figures", tuple(tables.values())),
        Section("Pictures", tuple(drawing.part() for drawing in pictures.values())),
        Section("Equations", tuple(list_equations(found))),
    ]
    if found.readings:
        names = ", ".join(f"layers/layer-{reading.layer}.html" for reading in found.readings.values())
        sections.append(
            Section("What the equations read and write", (Text(f"A page for each layer: {names}"),))
        )
    if found.samples:
        sections.append(Section("What it writes", tuple(list_samples(found))))
    return StudyReport(
        name="llm",
        title=f"Equations in the place of MLPs: {found.title}",
        subtitle=f"k_in {found.k_in}, k_out {found.k_out}; {found.setup}",
        claims=list(list_claims(found)),
        tables=tables,
        drawings=pictures,
        sections=sections,
        figures={"model": found.title, "variants": [_to_json(found, variant) for variant in found.variants]},
        footer=build_footer({"torch": torch.__version__, "transformers": transformers.__version__}),
    )


def list_claims(found: Findings) -> Iterator[Claim]:
    """List what the study was asked to show."""
    ours = {variant.seed: variant for variant in found.find("best")}
    for name in BASELINES if ours else ():
        for other in found.find(name):
            mine = ours[other.seed]
            if other.cost <= mine.cost + 1e-9:
                yield Claim(
                    f"best beats {name} after equal tuning, seed {other.seed}",
                    f"below {other.final:.4g} (cost {other.cost:.1%})",
                    f"{mine.final:.4g} (cost {mine.cost:.1%})",
                    mine.final < other.final,
                )
            else:
                yield Claim(
                    f"{name}, which costs more, seed {other.seed}",
                    f"reported only: {other.final:.4g} (cost {other.cost:.1%})",
                    f"best {mine.final:.4g} (cost {mine.cost:.1%})",
                )
    for recipe in found.find("paper"):
        if ours:
            yield from _compare_with_paper(found, next(iter(ours.values())), recipe)
    if found.choice is not None:
        mine = (found.find("best") or found.find("paper"))[0]
        rise = found.compute_rise(mine.tuned or mine.fitted)
        yield Claim(
            f"auto: {found.score_name} rises within the budget, on text nothing was chosen by",
            f"at most {found.choice.budget:g} ({found.task.rise_name})",
            f"{rise:.3f}",
            rise <= found.choice.budget,
        )
    for variant in (*found.find("best"), *found.find("paper")):
        won = found.compute_won_back(variant.final)
        yield Claim(
            f"{variant.name}, tuned, seed {variant.seed}: {found.score_name}",
            f"baseline {found.baseline:.4g}, MLP zero {found.zero:.4g}",
            f"{variant.final:.4g} ({won:.1%} of the way back)",
        )


def _compare_with_paper(found: Findings, mine: Variant, recipe: Variant) -> Iterator[Claim]:
    """List how far best stays behind the original model, beside the paper's recipe; both as fitted, and both tuned."""
    as_fitted = found.compute_rise(recipe.fitted)
    yield _compare_rises(found, "as fitted", mine.fitted, "the paper's recipe, as fitted", as_fitted, 0.5)
    if mine.tuned:
        yield _compare_rises(
            found, "tuned", mine.tuned, "the paper's recipe, which tunes nothing", as_fitted, 0.2
        )
    if mine.tuned and recipe.tuned:
        tuned = found.compute_rise(recipe.tuned)
        yield _compare_rises(found, "tuned", mine.tuned, "the paper's recipe, tuned alike", tuned, 1.0)


def _compare_rises(
    found: Findings, state: str, mine: Mapping[str, Measured], other: str, rise: float, share: float
) -> Claim:
    ours = found.compute_rise(mine)
    return Claim(
        f"best, {state}: {found.task.rise_name}, against {other}",
        f"at most {share * rise:.3g} ({share:.0%} of {rise:.3g})",
        f"{ours:.3g} ({ours / rise:.0%})",
        ours <= share * rise,
    )


def tabulate_surrogates(found: Findings) -> Table:
    """Compare all variants: over several seeds, the mean and the range."""
    rows = []
    for name in found.names:
        group = found.find(name)
        tuned = [variant.tuned for variant in group if variant.tuned]
        final = sum(variant.final for variant in group) / len(group)
        rows.append(
            (
                name,
                _format_range([variant.raw for variant in group]),
                _format_range([found.compute_rise(variant.fitted) for variant in group]),
                _format_range([scores[JUDGED].score for scores in tuned]) if tuned else "",
                _format_range([found.compute_rise(scores) for scores in tuned]) if tuned else "",
                f"{found.compute_won_back(final):.1%}",
                f"{group[0].cost:.1%}",
                f"{sum(variant.tuning.seconds for variant in group if variant.tuning):.0f}" if tuned else "",
            )
        )
    return Table(
        (
            "in the MLPs' place",
            f"{found.score_name}, as fitted",
            found.task.rise_name,
            "tuned",
            found.task.rise_name,
            "won back",
            "multiply-adds",
            "tuning, s",
        ),
        tuple(rows),
        f"{found.title}: mean and range over seeds; won back: {found.task.way} between zero and baseline",
        numbers=False,
    )


def tabulate_texts(found: Findings) -> Table:
    """Return how much worse each variant is on each text, as fitted and tuned."""
    rows = []
    for name in found.names:
        variant = found.find(name)[0]
        for state, scores in (("fitted", variant.fitted), ("tuned", variant.tuned)):
            if scores:
                rises = (f"{found.compute_rise(scores, text):+.3f}" for text in found.texts)
                apart = (f"{scores[text].distance:.3f}" for text in found.texts)
                rows.append((name, state, *rises, *apart))
    return Table(
        ("in the MLPs' place", "as", *found.texts, *(f"distance, {text}" for text in found.texts)),
        tuple(rows),
        f"{found.task.rise_name} over the original model, and {found.task.distance_name}, by text; "
        f"{JUDGED}: nothing was fitted to it or chosen by it",
        numbers=False,
    )


def tabulate_speeds(found: Findings) -> Table:
    """Return Table 5 of the paper: throughput and latency, measured in turns."""
    first = found.speeds["baseline"].throughput
    rows = tuple(
        (
            name,
            f"{one.throughput:,.0f}",
            f"{one.throughput / first - 1:+.1%}",
            f"{1000 * one.latency:.1f}",
            f"{1000 * one.p95:.1f}",
        )
        for name, one in found.speeds.items()
    )
    return Table(
        ("in the MLPs' place", "tokens/s", "over baseline", "latency, ms", "95 % within, ms"),
        rows,
        "Forward passes without KV cache, in turns. Memory of the replaced MLPs "
        f"{_format_size(found.bytes_before)}, of the equations and maps {_format_size(found.bytes_after)}",
        numbers=False,
    )


def tabulate_paper(found: Findings) -> Table:
    """Return Tables 1 and 5 of the paper beside ours, row by row; ratios compare best if ours is another model."""
    used = "paper" if found.find("paper") else "best"
    labels = {
        "baseline": "baseline",
        "MLP zero": "MLP zero",
        "control (output = input)": "control (output = input)",
        BETWEEN: BETWEEN,
        used: f"equations ({used})",
    }
    rows = []
    for text in (text for text in (JUDGED, FITTED) if text in found.texts):
        theirs = PAPER_SCORES[text]
        for name, label in labels.items():
            said = theirs.get("paper" if name == used else name)
            # As in the paper, its recipe is not tuned.
            ours = found.find(name)[0].fitted[text].score
            rows.append(
                (
                    f"{found.score_name}, {label}, {'other text' if text == JUDGED else 'the text of the fit'}",
                    "not measured" if said is None else f"{said:.2f} ({said / theirs['baseline']:.3f})",
                    f"{ours:.4g} ({ours / found.find('baseline')[0].fitted[text].score:.3f})",
                )
            )
    base, speed = found.speeds["baseline"], found.speeds[used]
    rows += [
        ("throughput, baseline, tokens/s", f"{PAPER_THROUGHPUT['baseline']:.0f}", f"{base.throughput:.0f}"),
        (
            "throughput, surrogate, over baseline",
            f"{PAPER_THROUGHPUT['paper'] / PAPER_THROUGHPUT['baseline'] - 1:+.1%}",
            f"{speed.throughput / base.throughput - 1:+.1%}",
        ),
        ("latency, baseline, ms", f"{1000 * PAPER_LATENCY['baseline']:.1f}", f"{1000 * base.latency:.1f}"),
        ("latency, surrogate, ms", f"{1000 * PAPER_LATENCY['paper']:.1f}", f"{1000 * speed.latency:.1f}"),
        (
            f"what the maps of {'best' if found.find('best') else 'paper'} keep, by layer",
            PAPER_KEPT,
            "; ".join(block.distillation.reduction.summary() for block in found.blocks.values()),
        ),
    ]
    return Table(
        ("", "paper: Qwen2.5-1.5B, layers 7, 14, 21 of 28, A100", f"ours: {found.title}"),
        tuple(rows),
        "Beside Tables 1 and 5 of the paper, and the variance in its repository; in brackets: over the baseline",
        numbers=False,
    )


def tabulate_layers(choice: LayerChoice, score_name: str) -> Table:
    """Return the layers by what their replacement costs, and what equations in the first ones add together."""
    rows = tuple(
        (
            str(cost.layer),
            f"{cost.zero:.4g}",
            f"{cost.linear:.4g}",
            f"{choice.rises[place]:+.3f}" if place < len(choice.rises) else "",
        )
        for place, cost in enumerate(choice.costs)
    )
    return Table(
        ("layer", "zero", "best linear map", "equations here and above add"),
        rows,
        f"One layer replaced alone: {score_name}; and layers replaced together, on text held out to choose by",
        numbers=False,
    )


def tabulate_frontier(found: Findings) -> Table:
    """Return how much worse the model is with one, two, ... layers replaced, the cheapest first."""
    kinds = list(dict.fromkeys(one.kind for one in found.frontier))
    level = found.task.compute_level
    rises = {(one.kind, one.layers): level(one.score) - level(found.baseline) for one in found.frontier}
    most = max(one.layers for one in found.frontier)
    return Table(
        ("layers replaced", *kinds),
        tuple((str(n), *(f"{rises[kind, n]:+.3f}" for kind in kinds)) for n in range(1, most + 1)),
        f"{found.task.rise_name} with more and more layers replaced, the cheapest first, as fitted",
        numbers=False,
    )


def tabulate_sensitivity(found: Findings) -> Table:
    """Return figure 4 of the paper as numbers."""
    rows = tuple((s.reducer, str(s.k_in), str(s.k_out), f"{s.score:.4g}") for s in found.sensitivity)
    return Table(
        ("reducer", "k_in", "k_out", found.score_name),
        rows,
        "The exact MLPs between maps (paper, figure 4)",
        numbers=False,
    )


def list_equations(found: Findings) -> Iterator[Part]:
    """List the first equations of each layer; the saved file has all of them."""
    for path, block in found.blocks.items():
        assert block.surrogate is not None
        yield Text(f"{path}: {block.distillation.reduction.summary()}")
        for name, expression in list(
            zip(block.distillation.equation_names, block.surrogate.expressions(), strict=True)
        )[:_SHOWN_EQUATIONS]:
            yield Equation.of(name, expression, digits=3)


def list_samples(found: Findings) -> Iterator[Part]:
    """List the texts that the variants wrote."""
    for sample in found.samples:
        yield Text(f"{sample.name or 'prompt'}: {sample.text}")


def _format_range(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    low, high = min(values), max(values)
    return f"{mean:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{mean:.4g} ({low:.4g} to {high:.4g})"


def _format_size(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"


def _to_json(found: Findings, variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "seed": variant.seed,
        "cost": variant.cost,
        "as_fitted": variant.raw,
        "tuned": variant.tuned[JUDGED].score if variant.tuned else None,
        "by_text": {
            state: {text: asdict(one) for text, one in measured.items()}
            for state, measured in (("fitted", variant.fitted), ("tuned", variant.tuned))
        },
        "won_back": found.compute_won_back(variant.final),
        "tuning": None
        if variant.tuning is None
        else {**vars(variant.tuning), "losses": variant.tuning.losses.tolist()},
        "throughput": found.speeds[variant.name].throughput if variant.name in found.speeds else None,
    }
