"""The study's report: the paper's Tables 1 and 5 with ours beside them, figures 4 and 5, equations and samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
import transformers

from symtorch_core.studies import Claim, Equation, Part, Section, StudyReport, Table, Text, build_footer
from symtorch_llm.experiment import Variant
from symtorch_llm.fitting.baselines import BASELINES
from symtorch_llm.judging.layers import LayerChoice
from symtorch_llm.models.tasks import LanguageModelling
from symtorch_llm.reporting.figures import draw_findings
from symtorch_llm.reporting.findings import Findings

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


def build_report(found: Findings) -> StudyReport:
    """Build the report."""
    tables = {"surrogates": tabulate_surrogates(found), "speed": tabulate_speeds(found)}
    if isinstance(found.task, LanguageModelling):  # the only task of the paper
        tables["paper"] = tabulate_paper(found)
    if found.choice is not None:
        tables["layers"] = tabulate_layers(found.choice, found.score_name)
    if found.sensitivity:
        tables["sensitivity"] = tabulate_sensitivity(found)
    pictures = dict(draw_findings(found))
    sections = [
        Section("Figures", tuple(tables.values())),
        Section("Pictures", tuple(drawing.part() for drawing in pictures.values())),
        Section("Equations", tuple(list_equations(found))),
    ]
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
            mine = next(iter(ours.values()))
            yield Claim(
                "best beats the paper's recipe",
                f"below {recipe.raw:.4g}",
                f"{mine.final:.4g}",
                mine.final < recipe.raw,
            )
    if found.choice is not None:
        mine = (found.find("best") or found.find("paper"))[0]
        rise = mine.final - found.baseline
        yield Claim(
            f"auto: {found.score_name} rises within the budget, on text nothing was chosen by",
            f"at most {found.choice.budget:g}",
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


def tabulate_surrogates(found: Findings) -> Table:
    """Compare all variants: over several seeds, the mean and the range."""
    rows = []
    for name in found.names:
        group = found.find(name)
        tuned = [variant.score for variant in group if variant.tuning is not None]
        final = sum(variant.final for variant in group) / len(group)
        rows.append(
            (
                name,
                _format_range([variant.raw for variant in group]),
                _format_range(tuned) if tuned else "",
                f"{found.compute_won_back(final):.1%}",
                f"{group[0].cost:.1%}",
                f"{sum(variant.tuning.seconds for variant in group if variant.tuning):.0f}" if tuned else "",
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
    """Return Tables 1 and 5 of the paper beside ours; ours is another model, so only ratios can be compared."""
    # As in the paper, its recipe is not tuned.
    ours = {
        "baseline": found.baseline,
        "control (output = input)": found.find("control (output = input)")[0].raw,
    }
    used = "paper" if found.find("paper") else "best"
    ours["paper"] = found.find("paper")[0].raw if used == "paper" else found.find("best")[0].final
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
            f"what the maps of {'best' if found.find('best') else 'paper'} keep, by layer",
            PAPER_KEPT,
            "; ".join(block.distillation.reduction.summary() for block in found.blocks.values()),
        ),
    ]
    return Table(
        ("", "paper: Qwen2.5-1.5B, layers 7, 14, 21 of 28, A100", f"ours: {found.title}"),
        tuple(rows),
        "Beside Tables 1 and 5 of the paper, and the variance in its repository",
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
        "tuned": None if variant.tuning is None else variant.score,
        "won_back": found.compute_won_back(variant.final),
        "tuning": None
        if variant.tuning is None
        else {**vars(variant.tuning), "losses": variant.tuning.losses.tolist()},
        "throughput": found.speeds[variant.name].throughput if variant.name in found.speeds else None,
    }
