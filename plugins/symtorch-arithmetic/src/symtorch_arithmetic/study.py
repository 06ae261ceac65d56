"""The study: train or load a model, ask it, distill its answers, report (SymTorch paper, 4.3.2 and G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final, Literal, final

import torch
from torch import Tensor

from symtorch_arithmetic.asking import Answers
from symtorch_arithmetic.laws import WITHIN
from symtorch_arithmetic.models import NEW_TOKENS, HuggingFaceModel, LanguageModel
from symtorch_arithmetic.oracles import Oracle
from symtorch_arithmetic.report import Expected, report_of
from symtorch_arithmetic.solving import LOSS, Run, Searching, solve
from symtorch_arithmetic.tasks import TASKS, Task
from symtorch_arithmetic.training import Settings, lessons, train
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
    """How much is done.

    Attributes:
        training: of a decoder.
        questions: to ask.
        timeout: of each search, in seconds.
    """

    training: Settings
    questions: int
    timeout: float


SCALES: Final[Mapping[str, Scale]] = MappingProxyType(
    {
        "tiny": Scale(
            Settings(layers=1, width=32, heads=2, examples=2_000, steps=30, batch=32, learning_rate=5e-3),
            questions=200,
            timeout=4.0,
        ),
        "laptop": Scale(Settings(), questions=1_000, timeout=15.0),
        "gpu": Scale(
            Settings(
                layers=4, width=256, heads=8, examples=200_000, steps=4_000, batch=1_024, learning_rate=1e-3
            ),
            questions=1_000,
            timeout=15.0,
        ),
    }
)


@final
@dataclass(frozen=True)
class ArithmeticStudy(Study):
    """What arithmetic a language model has learned, as equations (SymTorch paper, 4.3.2 and G)."""

    name: ClassVar[str] = "arithmetic"

    task: Literal["add", "multiply", "count", "celsius", "all"] = setting("add", "What to ask.")
    model: str = setting(
        TRAINED,
        "A hub's name or a folder of a causal language model. Or: trained, a small decoder that the study trains from "
        "scratch; oracle, a stub that is always right; erring-oracle, one with a planted error.",
    )
    scale: Literal["tiny", "laptop", "gpu"] = setting(
        "laptop", "tiny: for a look; laptop: minutes on two cores; gpu: a larger decoder, trained for longer."
    )
    regressor: str = setting("torchgp", "The search; `symtorch plugins` lists what is installed.")
    loss: str = setting(LOSS, "Of the searches: mse, mae, huber, or a formula in the error r.")
    select: SelectionRule = setting("simplest", "The rule that chooses equations.")
    questions: int = setting(0, "How many questions to ask; 0 for the scale's number.")
    withhold: bool = setting(
        True, "Train without questions that carry out of the ones (and their like in other tasks)."
    )
    device: str = setting("auto", "Where models run: auto, cpu, cuda, ...")
    batch: int = setting(64, "Questions to the model at once.")
    new_tokens: int = setting(NEW_TOKENS, "Longest answer, in tokens.")
    seed: int = setting(0, "Of questions, training and searches.")

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> StudyReport:
        """Ask and distill, task by task; see :class:`Study`."""
        # What is misspelt is better known before a model is asked than after.
        load("regressors", self.regressor)
        get_loss(self.loss)
        tasks = list(TASKS.values()) if self.task == "all" else [TASKS[self.task]]
        own = self.model in (TRAINED, ORACLE, ERRING_ORACLE)
        given = None if own else self._loaded(self.model)
        runs = [(self._solved(task, given, folder, callbacks), self._expected(task)) for task in tasks]
        name = f"a decoder trained here, {self.scale} scale" if self.model == TRAINED else self.model
        return report_of(
            runs, f"{name}; {self.regressor}, loss {self.loss}, rule {self.select}, seed {self.seed}"
        )

    def _expected(self, task: Task) -> Expected:
        if self.model == ORACLE:
            return Expected(accuracy=1.0, law_within=_TO_FOUR_DIGITS)
        if self.model == ERRING_ORACLE:
            return Expected(law_within=WITHIN, planted=True)
        taught = self.model == TRAINED and self.scale == "gpu" and not self.withhold
        return Expected(accuracy=ENOUGH if taught and task.name in ("add", "multiply") else None)

    def _solved(
        self, task: Task, given: LanguageModel | None, folder: Path, callbacks: Sequence[Callback]
    ) -> Run:
        scale = SCALES[self.scale]
        numbers = task.questions(self.questions or scale.questions, self.seed)
        return solve(
            task,
            given or self._own(task, numbers, folder, callbacks),
            numbers,
            Answers(folder / "answers.sqlite"),
            Searching(
                regressor=self.regressor,
                niterations=_ITERATIONS,
                timeout=scale.timeout,
                seed=self.seed,
                folder=folder / "searches",
                callbacks=callbacks,
                loss=self.loss,
                select=self.select,
            ),
            kinds=self._kinds(task, numbers) if self.model == TRAINED else {},
        )

    def _own(self, task: Task, numbers: Tensor, folder: Path, callbacks: Sequence[Callback]) -> LanguageModel:
        """A model for one task: a stub, or a decoder trained for it."""
        if self.model in (ORACLE, ERRING_ORACLE):
            return Oracle(task, errs=self.model == ERRING_ORACLE, seed=self.seed)
        decoder = train(
            task,
            numbers,
            SCALES[self.scale].training,
            folder / "decoders",
            withhold=self.withhold,
            seed=self.seed,
            device=self._device(),
            callbacks=callbacks,
        )
        return self._loaded(str(decoder))

    def _loaded(self, path: str) -> LanguageModel:
        return HuggingFaceModel(path, device=self._device(), batch=self.batch, new_tokens=self.new_tokens)

    def _kinds(self, task: Task, numbers: Tensor) -> dict[str, Tensor]:
        """Questions of which the accuracy of a decoder trained here is told apart."""
        examples = SCALES[self.scale].training.examples
        learned = lessons(task, numbers, examples, withhold=self.withhold, seed=self.seed)
        kinds = {"learned from": task.among(numbers, learned)}
        if self.withhold:
            kinds["of the kind that was kept from training"] = task.value(task.withheld, numbers) > 0
        return {name: kind for name, kind in kinds.items() if bool(kind.any())}

    def _device(self) -> str:
        there = torch.cuda.is_available()
        if self.device.startswith("cuda") and not there:
            raise SearchError(f"device={self.device!r}: torch finds no GPU here; give auto or cpu")
        return ("cuda" if there else "cpu") if self.device == "auto" else self.device
