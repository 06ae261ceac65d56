"""What the study says: the paper's Tables 1 and 5 with ours beside them, figures 4 and 5, equations and samples."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
import transformers

from symtorch_core.studies import Claim, Equation, Part, Section, StudyReport, Table, Text
from symtorch_llm.baselines import BASELINES
from symtorch_llm.findings import Findings
from symtorch_llm.layers import Choice
from symtorch_llm.pictures import drawings
from symtorch_llm.solving import Variant
from symtorch_llm.tasks import LanguageModelling

PAPER_SCORES: Final = {"baseline": 10.62, "paper": 13.76, "control (output = input)": 17.59, "between": 13.73}
"""Perplexities of Qwen2.5-1.5B-Instruct on WikiText-2 with the MLPs of layers 7, 14 and 21 replaced (Table 1), and with
the exact MLPs between PCAs to 32 and 8 (figure 4); digits from the authors' repository astroautomata/LLM_PCA."""
PAPER_THROUGHPUT: Final = {"baseline": 4878.82, "paper": 5281.42}
"""Tokens a second of the same on an A100 (Table 5)."""
PAPER_LATENCY: Final = {"baseline": 0.2099, "paper": 0.1939}
"""Mean seconds of a pass of the same (Table 5)."""
PAPER_KEPT: Final = "inputs 32 %, 30 %, 40 %; outputs 13 %, 15 %, 12 %"
"""Variance that 32 and 8 components keep, by layer (the authors' repository)."""
_SHOWN_EQUATIONS = 2


def report_of(found: Findings) -> StudyReport:
    """The report."""
    tables = {"surrogates": surrogates(found), "speed": speed(found)}
    if isinstance(found.task, LanguageModelling):  # the paper has no other
        tables["paper"] = beside_the_paper(found)
    if found.choice is not None:
        tables["layers"] = scanned(found.choice, found.score_name)
    if found.sensitivity:
        tables["sensitivity"] = narrowed(found)
    pictures = dict(drawings(found))
    sections = [
        Section("Figures", tuple(tables.values())),
        Section("Pictures", tuple(drawing.part() for drawing in pictures.values())),
        Section("Equations", tuple(equations(found))),
    ]
    if found.samples:
        sections.append(Section("What it writes", tuple(samples(found))))
    return StudyReport(
        name="llm",
        title=f"Equations in the place of MLPs: {found.title}",
        subtitle=f"k_in {found.k_in}, k_out {found.k_out}; {found.setup}",
        claims=list(claims(found)),
        tables=tables,
        drawings=pictures,
        sections=sections,
        figures={"model": found.title, "variants": [_plain(found, variant) for variant in found.variants]},
        footer=f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}",
    )


def claims(found: Findings) -> Iterator[Claim]:
    """What the study was asked to show."""
    ours = {variant.seed: variant for variant in found.named("best")}
    for name in BASELINES if ours else ():
        for other in found.named(name):
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
                    f"told: {other.final:.4g} (cost {other.cost:.1%})",
                    f"best {mine.final:.4g} (cost {mine.cost:.1%})",
                )
    for recipe in found.named("paper"):
        if ours:
            mine = next(iter(ours.values()))
            yield Claim(
                "best beats the paper's recipe",
                f"below {recipe.raw:.4g}",
                f"{mine.final:.4g}",
                mine.final < recipe.raw,
            )
    if found.choice is not None:
        mine = (found.named("best") or found.named("paper"))[0]
        rise = mine.final - found.baseline
        yield Claim(
            f"auto: {found.score_name} rises within the budget, on text nothing was chosen by",
            f"at most {found.choice.budget:g}",
            f"{rise:.3f}",
            rise <= found.choice.budget,
        )
    for variant in (*found.named("best"), *found.named("paper")):
        won = found.won_back(variant.final)
        yield Claim(
            f"{variant.name}, tuned, seed {variant.seed}: {found.score_name}",
            f"baseline {found.baseline:.4g}, MLP zero {found.zero:.4g}",
            f"{variant.final:.4g} ({won:.1%} of the way back)",
        )


def surrogates(found: Findings) -> Table:
    """All variants beside one another: over several seeds, the mean and the range."""
    rows = []
    for name in found.names:
        group = found.named(name)
        tuned = [variant.score for variant in group if variant.tuned is not None]
        final = sum(variant.final for variant in group) / len(group)
        rows.append(
            (
                name,
                _ranged([variant.raw for variant in group]),
                _ranged(tuned) if tuned else "",
                f"{found.won_back(final):.1%}",
                f"{group[0].cost:.1%}",
                f"{sum(variant.tuned.seconds for variant in group if variant.tuned):.0f}" if tuned else "",
            )
        )
    return Table(
        (
            "in the MLPs' place",
            f"{found.score_name}, as fitted",
            "tuned",
            "won back",
            "multiply-adds",
            "tuning, s",
        ),
        tuple(rows),
        f"{found.title}: mean and range over seeds; won back: {found.task.way} between zero and baseline",
        numbers=False,
    )


def speed(found: Findings) -> Table:
    """Table 5 of the paper: throughput and latency, measured in turns."""
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
        f"Forward passes without KV cache, in turns. Memory of the replaced MLPs {_size(found.bytes_before)}, of the "
        f"equations and maps {_size(found.bytes_after)}",
        numbers=False,
    )


def beside_the_paper(found: Findings) -> Table:
    """Tables 1 and 5 of the paper, and what its maps keep; ours is another model, so only ratios can be compared."""
    # The paper's recipe as the paper has it: not tuned.
    ours = {
        "baseline": found.baseline,
        "control (output = input)": found.named("control (output = input)")[0].raw,
    }
    used = "paper" if found.named("paper") else "best"
    ours["paper"] = found.named("paper")[0].raw if used == "paper" else found.named("best")[0].final
    labels = {"baseline": "baseline", "paper": f"surrogate ({used})", "control (output = input)": "control"}
    rows = [
        (f"{found.score_name}, {label}", f"{PAPER_SCORES[name]:.2f}", f"{ours[name]:.4g}")
        for name, label in labels.items()
    ]
    rows += [
        (f"{found.score_name}, exact MLPs between PCAs", f"{PAPER_SCORES['between']:.2f}", f"{one.score:.4g}")
        for one in found.sensitivity
        if (one.reducer, one.k_in, one.k_out) == ("pca", found.k_in, found.k_out)
    ]
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
            f"what the maps of {'best' if found.named('best') else 'paper'} keep, by layer",
            PAPER_KEPT,
            "; ".join(block.distillation.reduction.summary() for block in found.blocks.values()),
        ),
    ]
    return Table(
        ("", "paper: Qwen2.5-1.5B, layers 7, 14, 21 of 28, A100", f"ours: {found.title}"),
        tuple(rows),
        "Beside Tables 1 and 5 of the paper, and the variance that its repository tells",
        numbers=False,
    )


def scanned(choice: Choice, score_name: str) -> Table:
    """The layers by what their replacement costs, and what equations in the first ones, together, added."""
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


def narrowed(found: Findings) -> Table:
    """Figure 4 of the paper in numbers."""
    rows = tuple((s.reducer, str(s.k_in), str(s.k_out), f"{s.score:.4g}") for s in found.sensitivity)
    return Table(
        ("reducer", "k_in", "k_out", found.score_name),
        rows,
        "The exact MLPs between maps (paper, figure 4)",
        numbers=False,
    )


def equations(found: Findings) -> Iterator[Part]:
    """The first equations of each layer; all of them are in the file that is saved."""
    for path, block in found.blocks.items():
        assert block.surrogate is not None
        yield Text(f"{path}: {block.distillation.reduction.summary()}")
        for name, expression in list(
            zip(block.distillation.equation_names, block.surrogate.expressions(), strict=True)
        )[:_SHOWN_EQUATIONS]:
            yield Equation.of(name, expression, digits=3)


def samples(found: Findings) -> Iterator[Part]:
    """What was written, one after the other."""
    for sample in found.samples:
        yield Text(f"{sample.name or 'to go on with'}: {sample.text}")


def _ranged(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    low, high = min(values), max(values)
    return f"{mean:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{mean:.4g} ({low:.4g} to {high:.4g})"


def _size(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"


def _plain(found: Findings, variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "seed": variant.seed,
        "cost": variant.cost,
        "as_fitted": variant.raw,
        "tuned": None if variant.tuned is None else variant.score,
        "won_back": found.won_back(variant.final),
        "tuning": None if variant.tuned is None else vars(variant.tuned),
        "throughput": found.speeds[variant.name].throughput if variant.name in found.speeds else None,
    }
