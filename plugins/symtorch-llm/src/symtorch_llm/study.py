"""The study: equations in the place of a transformer's MLPs (SymTorch paper, 4.1 and D)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from symtorch_core import SearchError, capture, find_block, load
from symtorch_core.events import Callback
from symtorch_core.studies import Study, StudyReport, make_key, setting
from symtorch_llm.experiment import (
    Experiment,
    Variant,
    judge_baseline,
    judge_recipe,
    judge_references,
    list_symbolic_blocks,
)
from symtorch_llm.fitting.baselines import BASELINES, Sizes
from symtorch_llm.fitting.recipes import Recipe, build_best_recipe, build_paper_recipe
from symtorch_llm.fitting.tuning import Tuning
from symtorch_llm.judging.costs import count_multiply_adds
from symtorch_llm.judging.layers import (
    LayerChoice,
    Sensitivity,
    choose_layers,
    measure_sensitivity,
    scan_layers,
)
from symtorch_llm.judging.speed import build_token_block, measure_speeds
from symtorch_llm.models.loading import load_causal, load_encoder
from symtorch_llm.models.saving import save_surrogates
from symtorch_llm.models.tasks import TASKS
from symtorch_llm.models.transformer import (
    count_bytes,
    find_mlps,
    get_device,
    place_modules,
)
from symtorch_llm.reporting.findings import Findings, Sample
from symtorch_llm.reporting.report import build_report
from symtorch_llm.text import PAPER_LENGTH, build_batches, hold_out, split_documents, tokenize

_CHOOSING = 0.2  # share of the fitted text that is held out to choose layers by
_PROMPT = 24
_WRITTEN = 60


@final
@dataclass(frozen=True)
class LlmStudy(Study):
    """Equations in the place of a transformer's MLPs: perplexity and speed (SymTorch paper, 4.1 and D)."""

    name: ClassVar[str] = "llm"

    model: str = setting("", "Folder of a Hugging Face checkpoint, or a name on the hub.")
    text: str = setting("", "A text file to fit to.")
    eval: str = setting("", "A text file to judge on; by default the last 40 % of the documents of --text.")
    opening: str = setting(
        "", "Regular expression for the beginning of each document; by default the text is one document."
    )
    length: int = setting(0, "Most tokens in a sequence; by default 1048, or the model's context.")
    kind: Literal["causal", "encoder"] = setting(
        "causal", "Next tokens and perplexity, or sentence embeddings."
    )
    layers: str = setting("auto", "Layers to replace, like 1,2,3; or auto, within --budget.")
    mlp: str = setting("", "Path of the MLPs with {} for the layer, where they are not found automatically.")
    budget: float = setting(0.5, "With auto: how much the score (perplexity) may rise.")
    recipe: Literal["best", "paper", "all"] = setting("best", "How equations are found.")
    k_in: int = setting(32, "Dimensions that equations see.")
    k_out: int = setting(8, "Number of equations of each layer.")
    terms: int = setting(24, "Most terms in an equation of the best recipe.")
    regressor: str = setting("operon", "The search of the paper recipe; the paper's own is pysr.")
    timeout: float = setting(5.0, "Seconds for each equation of the paper recipe.")
    epochs: int = setting(30, "Most passes of the tuning.")
    learning_rate: float = setting(3e-3, "Highest learning rate of the tuning.")
    sweep: bool = setting(True, "Measure how narrow maps may be.")
    rows: int = setting(30_000, "Largest number of tokens captured from each MLP.")
    batch: int = setting(8, "Sequences in a batch.")
    seed: int = setting(0, "Seed of rows, searches, networks and tuning.")
    seeds: int = setting(
        1, "Number of runs of the best recipe and of the baselines, each with the next seed."
    )
    device: str = setting("cpu", "Where to run: cpu, cuda, mps.")
    dtype: str = setting("auto", "Dtype of the model: auto, float32, bfloat16.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Replace, tune, measure, save; see :class:`Study`."""
        self._check()
        load_model = load_causal if self.kind == "causal" else load_encoder
        model, tokenizer = load_model(self.model, dtype=self.dtype, device=self.device)
        paths = find_mlps(model, self.mlp or None)
        numbers = _parse_layers(self.layers, len(paths))
        fit, judge = self._tokenize(model, tokenizer)
        watched = paths if numbers is None else [paths[number] for number in numbers]
        experiment = self._build_experiment(model, watched, fit, judge, folder, callbacks)
        choice = self._choose_layers(experiment, fit, paths) if numbers is None else None
        if choice is not None:
            experiment = experiment.restrict(choice.paths)
        variants = self._judge_variants(experiment)
        shown = next(v for v in variants if v.name in ("best", "paper") and v.seed == self.seed)
        with place_modules(model, shown.modules):
            save_surrogates(model, folder / "surrogates")
        passes = measure_speeds(
            model,
            {variant.name: variant.modules for variant in variants if variant.seed == self.seed},
            build_token_block(judge, self.batch, self._read_length(model)),
            callbacks=callbacks,
            **({"use_cache": False} if self.kind == "causal" else {}),
        )
        blocks = list_symbolic_blocks(shown)
        return build_report(
            Findings(
                title=f"{Path(self.model).name}, {_describe_layers(list(experiment.mlps), paths)}",
                task=experiment.task,
                k_in=self.k_in,
                k_out=self.k_out,
                variants=variants,
                choice=choice,
                sensitivity=self._measure_sensitivity(experiment) if self.sweep else [],
                speeds=passes,
                bytes_before=count_bytes(list(experiment.mlps.values())),
                bytes_after=count_bytes([b.surrogate for b in blocks.values() if b.surrogate]),
                blocks=blocks,
                samples=self._write_samples(model, tokenizer, judge, variants),
                setup=f"{sum(map(len, fit)):,} tokens to fit to, {sum(map(len, judge)):,} to judge on, "
                f"{torch.get_num_threads()} threads, {get_device(model)}",
            )
        )

    def _build_experiment(
        self,
        model: nn.Module,
        watched: Sequence[str],
        fit: Sequence[Tensor],
        judge: Sequence[Tensor],
        folder: Path,
        callbacks: Sequence[Callback],
    ) -> Experiment:
        """Build what all variants share, with the rows of all watched MLPs from one pass."""
        task, batches = TASKS[self.kind], build_batches(fit, self.batch)
        mlps = {path: find_block(model, path) for path in watched}
        return Experiment(
            model=model,
            task=task,
            mlps=mlps,
            rows=capture(model, mlps, batches, max_rows=self.rows, seed=self.seed, callbacks=callbacks),
            fit=batches,
            held_out=task.prepare_held_out(model, build_batches(judge, self.batch)),
            folder=folder,
            key=self._make_key(fit),
            callbacks=callbacks,
        )

    def _check(self) -> None:
        for option in ("model", "text"):
            if not getattr(self, option):
                raise SearchError(
                    f"give --{option}: the study needs a folder of a checkpoint and a text file"
                )
        for option in ("text", "eval"):
            file = getattr(self, option)
            if file and not Path(file).is_file():
                raise SearchError(f"--{option}: there is no file {file}")
        self.one_of(TASKS, "kind")
        self.one_of(("best", "paper", "all"), "recipe")
        self.at_least(1, "k_in", "k_out", "terms", "batch", "seeds", "epochs", "rows")
        self.at_least(0, "length", "seed")
        self.at_least(-math.inf, "budget")  # any finite number: a fall may be asked for
        self.more_than(0, "learning_rate", "timeout")
        if self.recipe != "best":
            load("regressors", self.regressor)

    def _read_length(self, model: Any) -> int:
        longest = int(model.config.max_position_embeddings)
        if self.length > longest:
            raise SearchError(f"length={self.length}: the model reads {longest} tokens at most")
        return self.length or min(PAPER_LENGTH, longest)

    def _tokenize(self, model: nn.Module, tokenizer: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Return sequences to fit to and to judge on."""
        # One token less, for the mark of a document's beginning.
        length, framed = self._read_length(model), self.kind == "encoder"
        length -= 0 if framed or tokenizer.bos_token_id is None else 1
        whole = not self.opening

        def read(file: str) -> list[str]:
            return split_documents(Path(file).read_text(encoding="utf-8"), self.opening)

        def tokens(texts: Sequence[str]) -> list[Tensor]:
            return tokenize(tokenizer, texts, length, whole=whole, framed=framed)

        if self.eval:
            return tokens(read(self.text)), tokens(read(self.eval))
        texts = read(self.text)
        if len(texts) > 1:
            fit, judge = hold_out(texts, 0.4)
            return tokens(fit), tokens(judge)
        return hold_out(tokens(texts), 0.4, least=2)

    def _make_key(self, fit: Sequence[Tensor]) -> str:
        """Return a key of what decides the result of a tuning, besides the modules themselves."""
        return make_key([self.model, self.dtype, self.batch, self.kind], fit)

    def _build_tuning(self) -> Tuning:
        return Tuning(epochs=self.epochs, learning_rate=self.learning_rate)

    def _build_recipes(self) -> list[Recipe]:
        tuning = self._build_tuning()
        made = {
            "best": build_best_recipe(self.k_in, self.k_out, terms=self.terms, tuning=tuning),
            # The paper tunes nothing; the report shows scores with and without tuning.
            "paper": replace(
                build_paper_recipe(self.k_in, self.k_out, regressor=self.regressor, timeout=self.timeout),
                tuning=tuning,
            ),
        }
        return self.expand("recipe", made)

    def _choose_layers(
        self, experiment: Experiment, fit: Sequence[Tensor], paths: Sequence[str]
    ) -> LayerChoice:
        """Choose as many layers as fit the budget, on a part of the text that is held out for this choice.

        That part is held out of the tuning; equations are fitted to rows of the whole text, captured once.

        Raises:
            SearchError: not even one layer fits.
        """
        some, held = hold_out(list(fit), _CHOOSING)
        choosing = replace(
            experiment,
            fit=build_batches(some, self.batch),
            held_out=experiment.task.prepare_held_out(experiment.model, build_batches(held, self.batch)),
            key=self._make_key(some),
        )
        numbers = {path: number for number, path in enumerate(paths)}
        costs = scan_layers(
            experiment.model,
            experiment.rows,
            numbers,
            choosing.held_out,
            experiment.task,
            experiment.callbacks,
        )
        baseline = experiment.task.score(experiment.model, choosing.held_out)
        recipe = self._build_recipes()[0]

        def score(chosen: Sequence[str]) -> float:
            return judge_recipe(choosing.restrict(chosen), recipe, self.seed).final

        chosen, scores = choose_layers(costs, score, baseline + self.budget)
        rises = tuple(score - baseline for score in scores)
        if not chosen:
            raise SearchError(
                f"no layer can be replaced within budget={self.budget}: the cheapest, {costs[0].path}, adds "
                f"{rises[0]:.3g}. Give a larger budget, or larger k_in, k_out and terms"
            )
        return LayerChoice(tuple(chosen), tuple(costs), rises, self.budget)

    def _judge_variants(self, experiment: Experiment) -> list[Variant]:
        """Judge all variants, with every seed."""
        found, tuning = judge_references(experiment), self._build_tuning()
        found = [replace(variant, seed=self.seed) for variant in found]
        for recipe in self._build_recipes():
            # Several seeds only for what the report makes claims about.
            for seed in range(self.seed, self.seed + (self.seeds if recipe.name == "best" else 1)):
                found.append(judge_recipe(experiment, recipe, seed))
        ours = [variant for variant in found if list_symbolic_blocks(variant)]
        cost = min(count_multiply_adds(block) for block in list_symbolic_blocks(ours[0]).values())
        sizes = Sizes(cost, self.k_in, self.k_out)
        for name in BASELINES:
            for seed in range(self.seed, self.seed + self.seeds):
                found.append(judge_baseline(experiment, name, sizes, tuning, seed))
        return found

    def _measure_sensitivity(self, experiment: Experiment) -> list[Sensitivity]:
        # The sizes of the study, and those around them.
        k_in = sorted(
            {max(1, self.k_in // 4), max(1, self.k_in // 2), self.k_in, 2 * self.k_in, 4 * self.k_in}
        )
        k_out = sorted({max(1, self.k_out // 2), self.k_out, 2 * self.k_out, 4 * self.k_out})
        return measure_sensitivity(
            experiment.model, experiment.mlps, experiment.rows, experiment.held_out, experiment.task,
            k_in=k_in, k_out=k_out, callbacks=experiment.callbacks,
        )  # fmt: skip

    def _write_samples(
        self, model: nn.Module, tokenizer: Any, judge: Sequence[Tensor], variants: Sequence[Variant]
    ) -> list[Sample]:
        """Let variants continue a held-out text with the likeliest tokens; return what they write."""
        if self.kind != "causal":
            return []
        prompt = max(judge, key=len)[None, :_PROMPT].to(get_device(model))
        found = [Sample("", tokenizer.decode(prompt[0], skip_special_tokens=True))]
        for variant in variants:
            if variant.seed == self.seed and variant.name in ("baseline", "MLP zero", "best", "paper"):
                with place_modules(model, variant.modules):
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


def _parse_layers(layers: str, count: int) -> list[int] | None:
    """Return layer numbers from ``"1,2,3"``; None for auto.

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


def _describe_layers(chosen: Sequence[str], paths: Sequence[str]) -> str:
    numbers = [str(paths.index(path)) for path in chosen]
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(numbers)} of {len(paths)}"
