"""The study: equations in the place of a transformer's MLPs (SymTorch paper, 4.1 and D)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from symtorch_core import SearchError, capture, find_block
from symtorch_core.events import Callback
from symtorch_core.studies import Study, StudyReport, setting
from symtorch_llm.baselines import BASELINES, Sizes
from symtorch_llm.costs import multiply_adds
from symtorch_llm.findings import Findings, Sample
from symtorch_llm.layers import Choice, Sensitivity, as_many_as_fit, layer_scan, sensitivity
from symtorch_llm.measure import block_of_tokens, speeds
from symtorch_llm.models import device_of, load_causal, load_encoder, mlp_paths, placed, size_in_bytes
from symtorch_llm.recipes import Recipe, best, paper
from symtorch_llm.report import report_of
from symtorch_llm.saving import save_surrogates
from symtorch_llm.solving import (
    Bench,
    Variant,
    equations_of,
    untouched_and_empty,
    with_baseline,
    with_recipe,
)
from symtorch_llm.tasks import TASKS
from symtorch_llm.text import PAPER_LENGTH, batched, documents, sequences, split
from symtorch_llm.tuning import Tuning

_CHOOSING = 0.2  # of the text that is fitted to, held out to choose layers by
_PROMPT = 24
_WRITTEN = 60


@final
@dataclass(frozen=True)
class LlmStudy(Study):
    """Equations in the place of a transformer's MLPs: perplexity and speed (SymTorch paper, 4.1 and D)."""

    name: ClassVar[str] = "llm"

    model: str = setting("", "Folder of a Hugging Face checkpoint, or a hub's name.")
    text: str = setting("", "A text file to fit to.")
    eval: str = setting("", "A text file to judge on; by default the last 40 % of the documents of --text.")
    opening: str = setting(
        "", "Regular expression that a document's first paragraph begins with; else one document."
    )
    length: int = setting(0, "Most tokens in a sequence; by default 1048, or the model's context.")
    kind: Literal["causal", "encoder"] = setting(
        "causal", "Next tokens and perplexity, or sentence embeddings."
    )
    layers: str = setting("auto", "Layers to replace, like 1,2,3; or auto, within --budget.")
    mlp: str = setting("", "Path of the MLPs with {} for the layer, where they are not found by themselves.")
    budget: float = setting(0.5, "With auto: how much the score (perplexity) may rise.")
    recipe: Literal["best", "paper", "all"] = setting("best", "How equations are found.")
    k_in: int = setting(32, "Dimensions that equations see.")
    k_out: int = setting(8, "Equations of each layer.")
    terms: int = setting(24, "Most terms in an equation of the best recipe.")
    regressor: str = setting("operon", "The search of the paper recipe; the paper's own is pysr.")
    timeout: float = setting(5.0, "Seconds for each equation of the paper recipe.")
    epochs: int = setting(30, "Most passes of the tuning.")
    learning_rate: float = setting(3e-3, "Of the tuning, at its highest.")
    sweep: bool = setting(True, "Measure how narrow maps may be.")
    rows: int = setting(30_000, "Tokens kept of each MLP.")
    batch: int = setting(8, "Sequences in a batch.")
    seed: int = setting(0, "Of rows, searches, networks and tuning.")
    seeds: int = setting(1, "How many runs of the best recipe and of what it is compared with.")
    device: str = setting("cpu", "Where to run: cpu, cuda, mps.")
    dtype: str = setting("auto", "Of the model: auto, float32, bfloat16.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Replace, tune, measure, save; see :class:`Study`."""
        self._check()
        load = load_causal if self.kind == "causal" else load_encoder
        model, tokenizer = load(self.model, dtype=self.dtype, device=self.device)
        paths = mlp_paths(model, self.mlp or None)
        numbers = _numbers(self.layers, len(paths))
        fit, judge = self._tokens(model, tokenizer)
        watched = paths if numbers is None else [paths[number] for number in numbers]
        bench = self._bench(model, watched, fit, judge, folder, callbacks)
        choice = self._chosen(bench, fit, paths) if numbers is None else None
        if choice is not None:
            bench = bench.only(choice.paths)
        variants = self._variants(bench)
        shown = next(v for v in variants if v.name in ("best", "paper") and v.seed == self.seed)
        with placed(model, shown.modules):
            save_surrogates(model, folder / "surrogates")
        passes = speeds(
            model,
            {variant.name: variant.modules for variant in variants if variant.seed == self.seed},
            block_of_tokens(judge, self.batch, self._length(model)),
            callbacks=callbacks,
            **({"use_cache": False} if self.kind == "causal" else {}),
        )
        blocks = equations_of(shown)
        return report_of(
            Findings(
                title=f"{Path(self.model).name}, {_listed(list(bench.mlps), paths)}",
                task=bench.task,
                k_in=self.k_in,
                k_out=self.k_out,
                variants=variants,
                choice=choice,
                sensitivity=self._narrow(bench) if self.sweep else [],
                speeds=passes,
                bytes_before=size_in_bytes(list(bench.mlps.values())),
                bytes_after=size_in_bytes([b.surrogate for b in blocks.values() if b.surrogate]),
                blocks=blocks,
                samples=self._samples(model, tokenizer, judge, variants),
                setup=f"{sum(map(len, fit)):,} tokens to fit to, {sum(map(len, judge)):,} to judge on, "
                f"{torch.get_num_threads()} threads, {device_of(model)}",
            )
        )

    def _bench(
        self,
        model: nn.Module,
        watched: Sequence[str],
        fit: Sequence[Tensor],
        judge: Sequence[Tensor],
        folder: Path,
        callbacks: Sequence[Callback],
    ) -> Bench:
        """What all variants share, with the rows of all watched MLPs from one pass."""
        task, batches = TASKS[self.kind], batched(fit, self.batch)
        mlps = {path: find_block(model, path) for path in watched}
        return Bench(
            model=model,
            task=task,
            mlps=mlps,
            rows=capture(model, mlps, batches, max_rows=self.rows, seed=self.seed, callbacks=callbacks),
            fit=batches,
            held_out=task.held_out(model, batched(judge, self.batch)),
            folder=folder,
            told=self._told(fit),
            callbacks=callbacks,
        )

    def _check(self) -> None:
        for option in ("model", "text"):
            if not getattr(self, option):
                raise SearchError(f"give --{option}: a folder of a checkpoint and a text file are needed")
        for option in ("text", "eval"):
            file = getattr(self, option)
            if file and not Path(file).is_file():
                raise SearchError(f"--{option}: there is no file {file}")
        if min(self.k_in, self.k_out, self.terms, self.batch, self.seeds, self.epochs, self.rows) < 1:
            raise SearchError("k-in, k-out, terms, batch, seeds, epochs and rows must be at least 1")
        if self.learning_rate <= 0:
            raise SearchError(f"learning_rate={self.learning_rate}: it must be positive")

    def _length(self, model: Any) -> int:
        longest = int(model.config.max_position_embeddings)
        if self.length > longest:
            raise SearchError(f"length={self.length}: the model reads {longest} tokens at most")
        return self.length or min(PAPER_LENGTH, longest)

    def _tokens(self, model: nn.Module, tokenizer: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Sequences to fit to and to judge on."""
        # One token less, since a document's beginning is marked.
        length, framed = self._length(model), self.kind == "encoder"
        length -= 0 if framed or tokenizer.bos_token_id is None else 1
        whole = not self.opening

        def read(file: str) -> list[str]:
            return documents(Path(file).read_text(encoding="utf-8"), self.opening)

        def tokens(texts: Sequence[str]) -> list[Tensor]:
            return sequences(tokenizer, texts, length, whole=whole, framed=framed)

        if self.eval:
            return tokens(read(self.text)), tokens(read(self.eval))
        texts = read(self.text)
        if len(texts) > 1:
            fit, judge = split(texts, 0.4)
            return tokens(fit), tokens(judge)
        return split(tokens(texts), 0.4, least=2)

    def _told(self, fit: Sequence[Tensor]) -> str:
        """What decides the numbers of a tuning, besides the modules' own."""
        digest = hashlib.sha256(torch.cat(list(fit)).numpy().tobytes()).hexdigest()
        return f"{self.model} {self.dtype} {digest} {self.batch} {self.kind}"

    def _tuning(self) -> Tuning:
        return Tuning(epochs=self.epochs, learning_rate=self.learning_rate)

    def _recipes(self) -> list[Recipe]:
        tuning = self._tuning()
        made = {
            "best": best(self.k_in, self.k_out, terms=self.terms, tuning=tuning),
            # The paper tunes nothing; the report shows both, as for all others.
            "paper": replace(
                paper(self.k_in, self.k_out, regressor=self.regressor, timeout=self.timeout), tuning=tuning
            ),
        }
        return list(made.values()) if self.recipe == "all" else [made[self.recipe]]

    def _chosen(self, bench: Bench, fit: Sequence[Tensor], paths: Sequence[str]) -> Choice:
        """As many layers as fit the budget, on a part of the text that is held out to choose by.

        It is held out of the tuning; equations are fitted to rows of the whole text, captured once.

        Raises:
            SearchError: not even one does.
        """
        some, held = split(list(fit), _CHOOSING)
        choosing = replace(
            bench,
            fit=batched(some, self.batch),
            held_out=bench.task.held_out(bench.model, batched(held, self.batch)),
            told=self._told(some),
        )
        numbers = {path: number for number, path in enumerate(paths)}
        costs = layer_scan(bench.model, bench.rows, numbers, choosing.held_out, bench.task, bench.callbacks)
        baseline = bench.task.score(bench.model, choosing.held_out)
        recipe = self._recipes()[0]

        def score(chosen: Sequence[str]) -> float:
            return with_recipe(choosing.only(chosen), recipe, self.seed).final

        chosen, scores = as_many_as_fit(costs, score, baseline + self.budget)
        rises = tuple(score - baseline for score in scores)
        if not chosen:
            raise SearchError(
                f"no layer can be replaced within budget={self.budget}: the cheapest, {costs[0].path}, adds "
                f"{rises[0]:.3g}. Give a larger budget, or larger k_in, k_out and terms"
            )
        return Choice(tuple(chosen), tuple(costs), rises, self.budget)

    def _variants(self, bench: Bench) -> list[Variant]:
        """All that is compared, with every seed."""
        found, tuning = untouched_and_empty(bench), self._tuning()
        found = [replace(variant, seed=self.seed) for variant in found]
        for recipe in self._recipes():
            # What is compared over several seeds is what the report claims something of.
            for seed in range(self.seed, self.seed + (self.seeds if recipe.name == "best" else 1)):
                found.append(with_recipe(bench, recipe, seed))
        ours = [variant for variant in found if equations_of(variant)]
        cost = min(multiply_adds(block) for block in equations_of(ours[0]).values())
        sizes = Sizes(cost, self.k_in, self.k_out)
        for name in BASELINES:
            for seed in range(self.seed, self.seed + self.seeds):
                found.append(with_baseline(bench, name, sizes, tuning, seed))
        return found

    def _narrow(self, bench: Bench) -> list[Sensitivity]:
        # The sizes that are used, and around them.
        k_in = sorted(
            {max(1, self.k_in // 4), max(1, self.k_in // 2), self.k_in, 2 * self.k_in, 4 * self.k_in}
        )
        k_out = sorted({max(1, self.k_out // 2), self.k_out, 2 * self.k_out, 4 * self.k_out})
        return sensitivity(
            bench.model, bench.mlps, bench.rows, bench.held_out, bench.task,
            k_in=k_in, k_out=k_out, callbacks=bench.callbacks,
        )  # fmt: skip

    def _samples(
        self, model: nn.Module, tokenizer: Any, judge: Sequence[Tensor], variants: Sequence[Variant]
    ) -> list[Sample]:
        """What is written after the beginning of a held-out text, the likeliest token each time."""
        if self.kind != "causal":
            return []
        prompt = max(judge, key=len)[None, :_PROMPT].to(device_of(model))
        found = [Sample("", tokenizer.decode(prompt[0], skip_special_tokens=True))]
        for variant in variants:
            if variant.seed == self.seed and variant.name in ("baseline", "MLP zero", "best", "paper"):
                with placed(model, variant.modules):
                    written = model.generate(  # type: ignore[operator]
                        prompt,
                        attention_mask=torch.ones_like(prompt),
                        max_new_tokens=_WRITTEN,
                        do_sample=False,
                        pad_token_id=0,
                    )
                text = tokenizer.decode(written[0, prompt.shape[1] :], skip_special_tokens=True)
                found.append(Sample(variant.name, text))
        return found


def _numbers(layers: str, count: int) -> list[int] | None:
    """Layer numbers from ``"1,2,3"``; None for auto.

    Raises:
        SearchError: there are no such layers.
    """
    if layers.strip() == "auto":
        return None
    try:
        numbers = sorted({int(part) for part in layers.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not 0 <= numbers[0] <= numbers[-1] < count:
        raise SearchError(f"layers={layers!r}: give numbers from 0 to {count - 1}, like 1,2,3, or auto")
    return numbers


def _listed(chosen: Sequence[str], paths: Sequence[str]) -> str:
    numbers = [str(paths.index(path)) for path in chosen]
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(numbers)} of {len(paths)}"
