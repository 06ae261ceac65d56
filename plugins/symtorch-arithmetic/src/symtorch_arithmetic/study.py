"""The study: train or load a model, ask it, distill its answers, and report (SymTorch paper, 4.3.2 and G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, final, get_args

import torch
from torch import Tensor

from symtorch_arithmetic.analysis.laws import WITHIN
from symtorch_arithmetic.answers.prompting import Answers
from symtorch_arithmetic.experiment import Run, TooFewNumbersError, run_experiment
from symtorch_arithmetic.models.language_models import NEW_TOKENS, HuggingFaceModel, LanguageModel, Precision
from symtorch_arithmetic.models.oracles import Oracle
from symtorch_arithmetic.models.training import Settings, draw_training_questions, train
from symtorch_arithmetic.reporting.report import Expectation, build_report
from symtorch_arithmetic.searches import LOSS, SearchSettings
from symtorch_arithmetic.tasks import TASKS, Task
from symtorch_core import SearchError, load
from symtorch_core.events import Callback
from symtorch_core.search import SelectionRule, get_loss
from symtorch_core.studies import Study, StudyReport, setting

TRAINED: Final = "trained"
ORACLE: Final = "oracle"
ERRING_ORACLE: Final = "erring-oracle"
ENOUGH: Final = 0.95
"""Accuracy that is asked of a decoder trained on a GPU, in addition and in multiplication of all kinds."""
_TO_FOUR_DIGITS: Final = 5e-5
_ITERATIONS: Final = 400


@final
@dataclass(frozen=True)
class Scale:
    """Amount of work at one scale.

    Attributes:
        training: of a decoder.
        questions: to ask.
        niterations, timeout: of each search; the time is in seconds, None for no limit.
    """

    training: Settings
    questions: int
    niterations: int
    timeout: float | None


@final
@dataclass(frozen=True)
class ArithmeticStudy(Study):
    """What arithmetic a language model has learned, as equations (SymTorch paper, 4.3.2 and G)."""

    name: ClassVar[str] = "arithmetic"
    scales: ClassVar[Mapping[str, Scale]] = {
        "tiny": Scale(
            Settings(layers=1, width=32, heads=2, examples=2_000, steps=30, batch=32, learning_rate=5e-3),
            questions=200,
            niterations=40,
            timeout=None,
        ),
        "laptop": Scale(Settings(), questions=1_000, niterations=_ITERATIONS, timeout=15.0),
        "gpu": Scale(
            Settings(
                layers=4, width=256, heads=8, examples=200_000, steps=4_000, batch=1_024, learning_rate=1e-3
            ),
            questions=1_000,
            niterations=_ITERATIONS,
            timeout=15.0,
        ),
    }

    task: Literal["add", "multiply", "count", "celsius", "all"] = setting("add", "The task.")
    model: str = setting(
        TRAINED,
        "A name on the hub or a folder of a causal language model. Or: trained, a small decoder that the study trains "
        "from scratch; oracle, a stub that is always right; erring-oracle, one with a planted error.",
    )
    scale: Literal["tiny", "laptop", "gpu"] = setting(
        "laptop", "tiny: for a look; laptop: minutes on two cores; gpu: a larger decoder, trained for longer."
    )
    regressor: str = setting("torchgp", "The search; `symtorch plugins` lists what is installed.")
    loss: str = setting(LOSS, "Loss of the searches: mse, mae, huber, or a formula in the error r.")
    select: SelectionRule = setting("simplest", "The rule that chooses equations.")
    questions: int = setting(0, "Number of questions; 0 for the number of the scale.")
    withhold: bool = setting(
        True, "Train without questions that carry out of the ones (and similar ones in other tasks)."
    )
    device: str = setting("auto", "Where models run: auto, cpu, cuda, ...")
    dtype: Precision = setting(
        "auto",
        "Precision of the model: auto, as in its file; bfloat16, several times as fast on many processors.",
    )
    batch: int = setting(32, "Questions that the model answers at once.")
    new_tokens: int = setting(NEW_TOKENS, "Longest answer, in tokens.")
    seed: int = setting(0, "Seed of questions, training and searches.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Ask and distill, task by task; see :class:`Study`."""
        # Before any model is asked: a misspelt name must not cost an hour.
        tasks = self.expand("task", TASKS)
        self.at_least(1, "batch", "new_tokens")
        self.at_least(0, "seed", "questions")
        self.one_of(get_args(SelectionRule), "select")
        load("regressors", self.regressor)
        get_loss(self.loss)
        own = self.model in (TRAINED, ORACLE, ERRING_ORACLE)
        given = None if own else self._load_model(self.model)
        runs, failures = [], {}
        for task in tasks:
            try:
                runs.append((self._run_task(task, given, folder, callbacks), self._expect(task)))
            except TooFewNumbersError as error:
                failures[task.name] = str(error)  # the answers to other tasks are worth a report
        if not runs:
            raise TooFewNumbersError(" ".join(failures.values()))
        name = f"a decoder trained here, {self.scale} scale" if self.model == TRAINED else self.model
        precision = "" if self.dtype == "auto" else f", {self.dtype}"
        return build_report(
            runs,
            f"{name}{precision}; {self.regressor}, loss {self.loss}, rule {self.select}, seed {self.seed}",
            failures,
        )

    def _expect(self, task: Task) -> Expectation:
        if self.model == ORACLE:
            return Expectation(accuracy=1.0, law_within=_TO_FOUR_DIGITS)
        if self.model == ERRING_ORACLE:
            return Expectation(law_within=WITHIN, planted=True)
        taught = self.model == TRAINED and self.scale == "gpu" and not self.withhold
        return Expectation(accuracy=ENOUGH if taught and task.name in ("add", "multiply") else None)

    def _run_task(
        self, task: Task, given: LanguageModel | None, folder: Path, callbacks: Sequence[Callback]
    ) -> Run:
        scale: Scale = self.settings
        numbers = task.draw_questions(self.questions or scale.questions, self.seed)
        return run_experiment(
            task,
            given or self._build_model(task, numbers, folder, callbacks),
            numbers,
            Answers(folder / "answers.sqlite"),
            SearchSettings(
                regressor=self.regressor,
                niterations=scale.niterations,
                timeout=scale.timeout,
                seed=self.seed,
                folder=folder / "searches",
                callbacks=callbacks,
                loss=self.loss,
                select=self.select,
            ),
            kinds=self._split_kinds(task, numbers) if self.model == TRAINED else {},
        )

    def _build_model(
        self, task: Task, numbers: Tensor, folder: Path, callbacks: Sequence[Callback]
    ) -> LanguageModel:
        """Build a model for one task: a stub, or a decoder trained for it."""
        if self.model in (ORACLE, ERRING_ORACLE):
            return Oracle(task, errs=self.model == ERRING_ORACLE, seed=self.seed)
        decoder = train(
            task,
            numbers,
            self.settings.training,
            folder / "decoders",
            withhold=self.withhold,
            seed=self.seed,
            device=self._choose_device(),
            callbacks=callbacks,
        )
        return self._load_model(str(decoder))

    def _load_model(self, path: str) -> LanguageModel:
        return HuggingFaceModel(
            path,
            device=self._choose_device(),
            batch=self.batch,
            new_tokens=self.new_tokens,
            dtype=self.dtype,
        )

    def _split_kinds(self, task: Task, numbers: Tensor) -> dict[str, Tensor]:
        """Return the kinds of questions for which the accuracy of a decoder trained here is reported separately."""
        examples = self.settings.training.examples
        learned = draw_training_questions(task, numbers, examples, withhold=self.withhold, seed=self.seed)
        kinds = {"learned from": task.find_among(numbers, learned)}
        if self.withhold:
            kinds["of the kind that was withheld from training"] = task.evaluate(task.withheld, numbers) > 0
        return {name: kind for name, kind in kinds.items() if bool(kind.any())}

    def _choose_device(self) -> str:
        there = torch.cuda.is_available()
        if self.device.startswith("cuda") and not there:
            raise SearchError(f"device={self.device!r}: torch finds no GPU here; use auto or cpu")
        return ("cuda" if there else "cpu") if self.device == "auto" else self.device
