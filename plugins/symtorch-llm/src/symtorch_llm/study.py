"""The study: equations in the place of a transformer's MLPs (SymTorch paper, 4.1 and D)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from symtorch_core import SearchError, SymbolicModel, find_block, load
from symtorch_core.events import Callback
from symtorch_core.studies import Study, StudyReport, make_key, setting
from symtorch_llm.choosing import build_once, measure_frontier, pick_layers
from symtorch_llm.experiment import (
    FITTED,
    JUDGED,
    Experiment,
    Variant,
    judge_baseline,
    judge_between,
    judge_recipe,
    judge_references,
    list_symbolic_blocks,
)
from symtorch_llm.fitting.baselines import BASELINES, Sizes
from symtorch_llm.fitting.recipes import Recipe, build_best_recipe, build_paper_recipe
from symtorch_llm.fitting.rows import Rows
from symtorch_llm.fitting.tuning import Tuning
from symtorch_llm.judging.costs import count_multiply_adds
from symtorch_llm.judging.layers import (
    LayerChoice,
    Replaced,
    Sensitivity,
    measure_sensitivity,
)
from symtorch_llm.judging.speed import build_token_block, measure_speeds
from symtorch_llm.models.loading import computes_bfloat16_fast, load_model
from symtorch_llm.models.memory import Needs, check_free, estimate_needs
from symtorch_llm.models.passages import capture_rows, prepare_passages, read_passages
from symtorch_llm.models.saving import save_surrogates
from symtorch_llm.models.tasks import TASKS
from symtorch_llm.models.transformer import (
    count_bytes,
    find_mlps,
    get_device,
    get_text_config,
    place_modules,
)
from symtorch_llm.presets import PRESETS
from symtorch_llm.reading.layers import read_layers
from symtorch_llm.reading.readings import LayerReading
from symtorch_llm.reporting.findings import Findings, Sample
from symtorch_llm.reporting.pages import write_layer_pages
from symtorch_llm.reporting.report import build_report
from symtorch_llm.reporting.samples import write_samples
from symtorch_llm.text import (
    PAPER_LENGTH,
    Parts,
    build_batches,
    cut_sequences,
    drop_blank_lines,
    find_mark,
    hold_out,
    split_documents,
    take_tokens,
    tokenize,
)

_JUDGED = 0.4  # share of a single text that is judged on
_STOPPING = 0.125  # share of the fitted text that decides when to stop, and what to choose
_FAST = "fast"
_WRITING = ("baseline", "MLP zero", "best", "paper")  # variants whose text is shown
_READ = 10_000  # tokens that equations are read on
_LOGITS = 2**28  # numbers in the outputs of a batch, at most
_LARGEST_BATCH = 8


@final
@dataclass(frozen=True)
class LlmStudy(Study):
    """Equations in the place of a transformer's MLPs: perplexity and speed (SymTorch paper, 4.1 and D)."""

    name: ClassVar[str] = "llm"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    model: str = setting("", "Folder of a Hugging Face checkpoint, a GGUF file, or a name on the hub.")
    text: str = setting(
        "", "A text file to fit to; the last eighth of it decides when to stop, and what to choose."
    )
    eval: str = setting("", "A text file to judge on; by default the last 40 % of the documents of --text.")
    others: str = setting(
        "", "Further text files to judge on, with commas between; fit is what was fitted to."
    )
    opening: str = setting(
        "", "Regular expression for the beginning of each document; by default the text is one document."
    )
    blank_lines: bool = setting(True, "Whether blank lines of a text count, where it is one document.")
    mark: bool = setting(
        False, "Begin every sequence with the token for that, even if the tokenizer by itself does not."
    )
    length: int = setting(0, "Most tokens in a sequence; by default 1048, or the model's context.")
    step: int = setting(
        0,
        "Most tokens in a sequence of the text that is fitted, which are a step of the tuning; by default --length.",
    )
    tokens: int = setting(0, "Most tokens of each text; 0 for all.")
    kind: Literal["causal", "encoder"] = setting(
        "causal", "Next tokens and perplexity, or sentence embeddings."
    )
    layers: str = setting("auto", "Layers to replace, like 1,2,3; or auto, within --budget.")
    mlp: str = setting("", "Path of the MLPs with {} for the layer, where they are not found automatically.")
    budget: float = setting(0.1, "With auto: how much the loss may rise, in nats for each token.")
    recipe: Literal["best", "paper", "all"] = setting("best", "How equations are found.")
    k_in: int = setting(32, "Dimensions that equations see.")
    k_out: int = setting(8, "Number of equations of each layer.")
    terms: int = setting(24, "Most terms in an equation of the best recipe.")
    regressor: str = setting("operon", "The search of the paper recipe; the paper's own is pysr.")
    timeout: float = setting(5.0, "Seconds for each equation of the paper recipe; 0 for no limit.")
    epochs: int = setting(3, "Most passes of the tuning; 0 for none.")
    learning_rate: float = setting(
        0.0,
        "Highest learning rate of the tuning, relative to the size of each number; "
        "0 for the best of 0.03, 0.1 and 0.3 in short trials.",
    )
    sweep: bool = setting(True, "Measure how narrow maps may be.")
    frontier: bool = setting(
        False,
        "With auto: also measure what replacing one layer after the other costs, by several kinds of modules.",
    )
    read: bool = setting(True, "Say what excites the variables and equations, and what they write.")
    rows: int = setting(30_000, "Largest number of tokens captured from each MLP.")
    batch: int = setting(
        0, "Sequences in a batch; 0 for as many as their predictions leave room for, at most 8."
    )
    passes: int = setting(10, "Timed passes of each variant.")
    seed: int = setting(0, "Seed of rows, searches, networks and tuning.")
    seeds: int = setting(
        1, "Number of runs of the best recipe and of the baselines, each with the next seed."
    )
    device: str = setting("cpu", "Where to run: cpu, cuda, mps.")
    dtype: str = setting(
        "auto",
        "Dtype of the model: auto (the checkpoint's own), fast (bfloat16 where it is), float32, bfloat16.",
    )

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Replace, tune, measure, save; see :class:`Study`."""
        self._check()
        fast = self.dtype == _FAST and computes_bfloat16_fast(self.device)
        dtype = "bfloat16" if fast else "auto" if self.dtype == _FAST else self.dtype
        loaded = load_model(self.model, self.kind, dtype=dtype, device=self.device)
        model, tokenizer = loaded.model, loaded.tokenizer
        self._check_sizes(model)
        paths = find_mlps(model, self.mlp or None)
        numbers = _parse_layers(self.layers, len(paths))
        parts = self._read_parts(model, tokenizer)
        needs = self._estimate_needs(model, parts, len(paths if numbers is None else numbers))
        check_free(needs)
        watched = paths if numbers is None else [paths[number] for number in numbers]
        key = make_key([], [parameter.detach() for parameter in model.parameters()])
        experiment = self._build_experiment(model, key, watched, parts, folder, callbacks)
        choice, frontier = self._choose_layers(experiment, paths) if numbers is None else (None, [])
        if choice is not None:
            experiment = self._build_experiment(model, key, choice.paths, parts, folder, callbacks)
        variants = self._judge_variants(experiment)
        shown = next(v for v in variants if v.name in ("best", "paper") and v.seed == self.seed)
        with place_modules(model, shown.modules):
            save_surrogates(model, folder / "surrogates")
        passes = measure_speeds(
            model,
            {variant.name: variant.modules for variant in variants if variant.seed == self.seed},
            build_token_block(parts.judged[JUDGED], self._size_batch(model), self._read_length(model)),
            rounds=self.passes,
            callbacks=callbacks,
            **({"use_cache": False} if self.kind == "causal" else {}),
        )
        blocks = list_symbolic_blocks(shown)
        readings = (
            self._read_equations(model, tokenizer, blocks, paths, parts, callbacks) if self.read else {}
        )
        write_layer_pages(readings, folder / "layers")
        return build_report(
            Findings(
                title=f"{Path(self.model).name}, {_describe_layers(list(experiment.mlps), paths)}",
                task=experiment.task,
                k_in=self.k_in,
                k_out=self.k_out,
                variants=variants,
                choice=choice,
                frontier=frontier,
                sensitivity=self._measure_sensitivity(experiment) if self.sweep else [],
                speeds=passes,
                bytes_before=count_bytes(list(experiment.mlps.values())),
                bytes_after=count_bytes([b.surrogate for b in blocks.values() if b.surrogate]),
                blocks=blocks,
                readings=readings,
                samples=self._write_samples(model, tokenizer, parts, variants),
                setup=f"{experiment.fit.tokens:,} tokens to fit to, {experiment.stop.tokens:,} to stop by, "
                f"{experiment.judged[JUDGED].tokens:,} to judge on, {torch.get_num_threads()} threads, "
                f"{get_device(model)}; {loaded.about}; {needs}",
            )
        )

    def _build_experiment(
        self,
        model: nn.Module,
        key: str,
        watched: Sequence[str],
        parts: Parts,
        folder: Path,
        callbacks: Sequence[Callback],
    ) -> Experiment:
        """Build what all variants share, with the rows of all watched MLPs from one pass."""
        task, size = TASKS[self.kind], self._size_batch(model)
        # Many short steps tune further than a few long ones, at the same cost.
        step = 1 if self.step else size
        mlps = {path: find_block(model, path) for path in watched}
        fit = prepare_passages(
            model, task, build_batches(parts.fit, step), folder / "passages", first=watched[0], key=key
        )
        stop = fit.with_text(build_batches(parts.stop, size))
        judged = {name: fit.with_text(build_batches(some, size)) for name, some in parts.judged.items()}
        captured = [
            capture_rows(passages, mlps, most=self.rows, seed=self.seed, callbacks=callbacks)
            for passages in (fit, stop)
        ]
        rows = {path: Rows(*(part[path] for part in captured)) for path in mlps}
        for passages in judged.values():
            read_passages(passages, callbacks)
        return Experiment(model, task, mlps, rows, fit, stop, judged, folder, callbacks)

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
        if self.step and self.kind == "encoder":
            raise SearchError(
                "--step cuts sequences, which would change what an encoder makes of a text: leave it out"
            )
        for file in self._list_others():
            if file != FITTED and not Path(file).is_file():
                raise SearchError(f"--others: there is no file {file}")
        self.one_of(TASKS, "kind")
        self.one_of(("best", "paper", "all"), "recipe")
        self.at_least(1, "k_in", "k_out", "terms", "seeds", "rows", "passes")
        self.at_least(0, "length", "step", "seed", "tokens", "batch", "epochs", "timeout", "learning_rate")
        self.at_least(-math.inf, "budget")  # any finite number: a fall may be asked for
        if self.frontier and self.layers.strip() != "auto":
            raise SearchError("--frontier ranks all layers first: use it with --layers auto")
        if self.recipe != "best":
            load("regressors", self.regressor)

    def _check_sizes(self, model: Any) -> None:
        width = int(get_text_config(model).hidden_size)
        for option in ("k_in", "k_out"):
            if getattr(self, option) > width:
                raise SearchError(
                    f"{option}={getattr(self, option)}: the model is {width} wide; give at most that"
                )
        self._read_length(model)

    def _list_others(self) -> list[str]:
        return [file.strip() for file in self.others.split(",") if file.strip()]

    def _read_length(self, model: Any) -> int:
        longest = int(get_text_config(model).max_position_embeddings)
        if self.length > longest:
            raise SearchError(f"length={self.length}: the model reads {longest} tokens at most")
        return self.length or min(PAPER_LENGTH, longest)

    def _size_batch(self, model: Any) -> int:
        outputs = self._read_length(model) * self._count_outputs(model)
        return self.batch or max(1, min(_LARGEST_BATCH, _LOGITS // outputs))

    def _count_outputs(self, model: Any) -> int:
        """Return how many numbers the model gives for a token."""
        config = get_text_config(model)
        return int(config.vocab_size if self.kind == "causal" else config.hidden_size)

    def _estimate_needs(self, model: nn.Module, parts: Parts, layers: int) -> Needs:
        return estimate_needs(
            layers=layers,
            rows=min(self.rows, sum(map(len, parts.fit))),
            width=int(get_text_config(model).hidden_size),
            sequences=self._size_batch(model),
            length=self._read_length(model),
            outputs=self._count_outputs(model),
        )

    def _read_parts(self, model: nn.Module, tokenizer: Any) -> Parts:
        """Return sequences to fit to, to stop by and to judge on; no text is in two of these parts."""
        longest, framed = self._read_length(model), self.kind == "encoder"
        mark = None if framed else find_mark(tokenizer, self.mark)

        def read(file: str) -> list[Tensor]:
            text = Path(file).read_text(encoding="utf-8")
            texts = split_documents(text if self.blank_lines else drop_blank_lines(text), self.opening)
            return tokenize(tokenizer, texts, longest, whole=not self.opening, framed=framed, mark=mark)

        fit, judged = read(self.text), read(self.eval) if self.eval else []
        if not judged:
            fit, judged = hold_out(fit, _JUDGED, least=2)
        fit, stop = hold_out(fit, _STOPPING)
        fit = take_tokens(fit, self.tokens)
        return Parts(
            cut_sequences(fit, self.step, mark) if self.step else fit,
            take_tokens(stop, self.tokens // 16),
            {
                JUDGED: take_tokens(judged, self.tokens),
                **{
                    (other if other == FITTED else Path(other).name): (
                        fit if other == FITTED else take_tokens(read(other), self.tokens)
                    )
                    for other in self._list_others()
                },
            },
        )

    def _build_tuning(self) -> Tuning | None:
        if not self.epochs:
            return None
        tuning = Tuning(epochs=self.epochs)
        return replace(tuning, learning_rates=(self.learning_rate,)) if self.learning_rate else tuning

    def _build_recipes(self) -> list[Recipe]:
        tuning = self._build_tuning()
        made = {
            "best": build_best_recipe(self.k_in, self.k_out, terms=self.terms, tuning=tuning),
            # The paper tunes nothing; the report shows scores with and without tuning.
            "paper": replace(
                build_paper_recipe(
                    self.k_in, self.k_out, regressor=self.regressor, timeout=self.timeout or None
                ),
                tuning=tuning,
            ),
        }
        return self.expand("recipe", made)

    def _choose_layers(
        self, experiment: Experiment, paths: Sequence[str]
    ) -> tuple[LayerChoice, list[Replaced]]:
        """Return the layers that the budget allows, and what replacing more and more of them costs."""
        recipe = self._build_recipes()[0]
        build = build_once(experiment, recipe, self.seed)
        numbers = {path: number for number, path in enumerate(paths)}
        choice = pick_layers(
            experiment, numbers, build, recipe, rank=self.k_in, budget=self.budget, seed=self.seed
        )
        if not self.frontier:
            return choice, []
        ranked = [cost.path for cost in choice.costs]
        return choice, measure_frontier(
            experiment, ranked, build, recipe, k_in=self.k_in, k_out=self.k_out, seed=self.seed
        )

    def _judge_variants(self, experiment: Experiment) -> list[Variant]:
        """Judge all variants, with every seed."""
        found, tuning = judge_references(experiment), self._build_tuning()
        found.append(judge_between(experiment, self.k_in, self.k_out))
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
            experiment.mlps, experiment.rows,
            lambda modules: experiment.score(modules, experiment.stop),
            k_in=k_in, k_out=k_out, device=get_device(experiment.model), callbacks=experiment.callbacks,
        )  # fmt: skip

    def _read_equations(
        self,
        model: nn.Module,
        tokenizer: Any,
        blocks: Mapping[str, SymbolicModel],
        paths: Sequence[str],
        parts: Parts,
        callbacks: Sequence[Callback],
    ) -> dict[str, LayerReading]:
        """Read the equations on text that nothing was fitted to; of an encoder, which predicts no words, nothing."""
        if self.kind != "causal":
            return {}
        return read_layers(
            model,
            tokenizer,
            blocks,
            build_batches(take_tokens(parts.judged[JUDGED], _READ), self._size_batch(model)),
            layers={path: paths.index(path) for path in blocks},
            callbacks=callbacks,
        )

    def _write_samples(
        self, model: nn.Module, tokenizer: Any, parts: Parts, variants: Sequence[Variant]
    ) -> list[Sample]:
        """Let some variants continue a text that nothing was fitted to; an encoder writes none."""
        if self.kind != "causal":
            return []
        shown = [v for v in variants if v.seed == self.seed and v.name in _WRITING]
        return write_samples(model, tokenizer, parts.judged[JUDGED], shown)


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
