"""The whole study on models of which the truth is known, and on small real ones."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch

from symtorch_arithmetic.answers.prompting import Answers
from symtorch_arithmetic.experiment import run_experiment
from symtorch_arithmetic.models.language_models import LanguageModel
from symtorch_arithmetic.models.oracles import Oracle
from symtorch_arithmetic.reporting.kind_tables import name_law, tabulate_kinds_by_law, write_law
from symtorch_arithmetic.searches import SearchSettings
from symtorch_arithmetic.study import ArithmeticStudy
from symtorch_arithmetic.tasks import TASKS, Task
from symtorch_core import SearchError, UnknownComponentError
from symtorch_core.studies import StudyReport
from symtorch_core.testing import StudyContract, run_command


def quick(folder: Path) -> SearchSettings:
    return SearchSettings("torchgp", 40, None, 0, folder / "searches")


class TestArithmetic(StudyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def study(cls) -> ArithmeticStudy:
        return ArithmeticStudy(task="add", model="trained", scale="tiny")

    def test_the_decoder_is_an_ordinary_folder_that_can_be_asked_again(
        self, study: ArithmeticStudy, folder: Path, report: StudyReport
    ) -> None:
        (decoder,) = (folder / "decoders").iterdir()
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in decoder.iterdir()}
        again = ArithmeticStudy(task="add", model=str(decoder), scale="tiny").run(folder)
        figures = [run["accuracy"] for run in (*report.figures["runs"], *again.figures["runs"])]
        assert figures[0] == figures[1]


def test_a_perfect_oracle_gives_every_law_exactly(tmp_path: Path) -> None:
    report = ArithmeticStudy(task="all", model="oracle", scale="tiny").run(tmp_path)
    assert [claim.text for claim in report.claims if claim.met is False] == []
    for run in report.figures["runs"]:
        assert run["accuracy"] == 1.0
        assert run["law_error"] < 5e-5
        assert run["errors"] in ("0", "0.0")
        assert run["named"] == []


def test_a_planted_error_is_named_and_moves_no_constant(tmp_path: Path) -> None:
    report = ArithmeticStudy(task="all", model="erring-oracle", scale="tiny").run(tmp_path)
    assert [claim.text for claim in report.claims if claim.met is False] == []
    for run in report.figures["runs"]:
        assert run["law_error"] <= 0.01
        assert run["explained"]["law and errors"] > run["explained"]["law"]
    (add,) = (run for run in report.figures["runs"] if run["task"] == "add")
    assert set(add["named"]) == {"ones_x0", "ones_x1"}
    assert [law["law"] for law in add["laws"]] == ["x0 + x1", "x0 + x1 - 10.0"]
    assert set(add["deciding"]["variables"]) == {"ones_x0", "ones_x1"}
    assert add["explained"]["law and errors"] > 0.93  # all but 3 % outliers, 1 % silence, and a border
    assert "unread" in report.tables  # the silent answers
    assert len(report.tables["answers"].rows) == sum(run["questions"] for run in report.figures["runs"])


def test_another_backend_is_another_name(tmp_path: Path) -> None:
    report = ArithmeticStudy(task="add", model="erring-oracle", scale="tiny", regressor="operon").run(
        tmp_path
    )
    (run,) = report.figures["runs"]
    assert run["law_error"] == 0.0


@final
class Scripted(LanguageModel):
    """Gives the law's answers, but for those that a function changes."""

    def __init__(self, change: dict[int, str]) -> None:
        self._oracle, self._change = Oracle(TASKS["add"]), change
        self.name, self.revision, self.batch = "scripted", repr(change), 10_000

    def answer(self, prompts: Sequence[str]) -> list[str]:
        answers = self._oracle.answer(prompts)
        return [self._change.get(place, answer) for place, answer in enumerate(answers)]


@final
class Mixed(LanguageModel):
    """Answers 40 % of all additions rightly, repeats x0 in 40 %, loses the last digit in 10 %; the rest is noise."""

    def __init__(self) -> None:
        self._oracle = Oracle(TASKS["add"])
        self.name, self.revision, self.batch = "mixed", "mixed", 10_000

    def answer(self, prompts: Sequence[str]) -> list[str]:
        return [
            self._answer(prompt, right)
            for prompt, right in zip(prompts, self._oracle.answer(prompts), strict=True)
        ]

    def _answer(self, prompt: str, right: str) -> str:
        generator = np.random.default_rng([7, *prompt.encode()])
        luck, first, second = generator.random(), *map(int, re.findall(r"\d+", prompt))
        if luck < 0.4:
            return right
        if luck < 0.8:
            return f"{first}"
        if luck < 0.9:
            return f"{first}+{second}={str(first + second)[:-1]}"
        return f"It is {generator.integers(2_000)}."


def test_laws_of_a_model_that_mixes_them_are_found_and_named(tmp_path: Path) -> None:
    task = TASKS["add"]
    settings = SearchSettings("torchgp", 8, None, 0, tmp_path / "searches")
    run = run_experiment(
        task, Mixed(), task.draw_questions(200), Answers(tmp_path / "answers.sqlite"), settings
    )
    names = {write_law(law): name_law(run, law) for law in run.mixture.laws}
    assert names["x0 + x1"] == "right: the true law"
    assert names["x0"] == "repeated"
    shares = {write_law(law): run.mixture.compute_share(law) for law in run.mixture.laws}
    assert shares["x0 + x1"] == pytest.approx(0.4, abs=0.12)
    assert shares["x0"] == pytest.approx(0.4, abs=0.12)
    counts = {found.kind: found for found in run.count_kinds()}
    assert run.accuracy == counts["right"].share == run.accuracy_by_paper
    assert counts["right"].share == pytest.approx(0.4, abs=0.1)
    assert counts["digits lost"].share == pytest.approx(0.1, abs=0.05)
    assert max(counts["right"].by_chance, counts["repeated"].by_chance) < 0.02
    crossed = tabulate_kinds_by_law(run)
    (right,) = (row for row in crossed.rows if row[0] == "right")
    assert int(right[crossed.headings.index("x0 + x1")]) >= 0.95 * counts["right"].count
    assert run.deciding.important == ()  # it draws lots


def test_a_task_without_numbers_does_not_cost_the_report_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: ArithmeticStudy, task: Task, *_: object) -> LanguageModel:
        return Oracle(task) if task.name == "celsius" else Mute()

    monkeypatch.setattr(ArithmeticStudy, "_build_model", build)
    report = ArithmeticStudy(task="all", model="oracle", scale="tiny", questions=40).run(tmp_path)
    assert [run["task"] for run in report.figures["runs"]] == ["celsius"]
    failed = [claim for claim in report.claims if claim.text == "count: no equation"]
    assert "0 of 40 answers of mute to count have a number" in failed[0].reached


@final
class Mute(LanguageModel):
    """Never says a number."""

    def __init__(self) -> None:
        self.name, self.revision, self.batch = "mute", "mute", 10_000

    def answer(self, prompts: Sequence[str]) -> list[str]:
        return ["What a question!"] * len(prompts)


def test_absurd_answers_are_listed_and_kept_out_of_the_fit(tmp_path: Path) -> None:
    task = TASKS["add"]
    model = Scripted({3: r"\boxed{1" + "0" * 200 + "}", 5: "I pass.", 7: r"\boxed{7}"})
    run = run_experiment(
        task, model, task.draw_questions(300), Answers(tmp_path / "answers.sqlite"), quick(tmp_path)
    )
    assert int((~run.usable).sum()) == 2
    assert int((~run.right).sum()) == 3
    assert run.law.chosen()[0].text() in ("x0 + x1", "x1 + x0")
    assert sum(run.law.provenance.rows) == 298


def test_a_model_that_gives_no_numbers_is_an_error_that_shows_an_answer(tmp_path: Path) -> None:
    task = TASKS["add"]
    model = Scripted(dict.fromkeys(range(40), "What a question!"))
    with pytest.raises(SearchError, match="0 of 40 answers of scripted.*What a question!"):
        run_experiment(
            task, model, task.draw_questions(40), Answers(tmp_path / "answers.sqlite"), quick(tmp_path)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "at least 1"),
        ({"loss": "mea"}, "unknown loss 'mea'"),
        ({"regressor": "torchgb"}, "torchgp"),
        ({"new_tokens": 0}, "at least 1"),
        ({"model": "/no/such/folder"}, "cannot load a model"),
        ({"seed": -1}, "arithmetic's seed must be at least 0"),
        ({"questions": -5}, "arithmetic's questions must be at least 0"),
        ({"select": "luck"}, "unknown select of arithmetic 'luck'"),
        pytest.param(
            {"device": "cuda"},
            "finds no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_done_is_an_error_that_says_so(
    options: dict[str, Any], message: str, toy: Path, tmp_path: Path
) -> None:
    study = ArithmeticStudy.with_options({"task": "add", "model": str(toy), "scale": "tiny"} | options)
    with pytest.raises((SearchError, UnknownComponentError), match=message):
        study.run(tmp_path)


def test_squared_errors_and_pysrs_rule_bend_around_wrong_answers(tmp_path: Path) -> None:
    options = {"task": "celsius", "model": "erring-oracle", "scale": "tiny"}
    robust = ArithmeticStudy.with_options(options).run(tmp_path)
    squares = ArithmeticStudy.with_options({**options, "loss": "mse", "select": "best"}).run(tmp_path)
    assert robust.claims[1].met
    assert squares.claims[1].met is False


def test_the_command(tmp_path: Path) -> None:
    arguments = ["run", "arithmetic", "--task", "celsius", "--model", "oracle", "--scale", "tiny"]
    result = run_command([*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "1.8*x0 + 32" in result.output
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["runs"][0]["chosen"] == "1.8*x0 + 32.0"


def test_the_same_seed_gives_the_same_study(tmp_path: Path) -> None:
    study = ArithmeticStudy(task="count", model="erring-oracle", scale="tiny", seed=3)
    first, second = (study.run(tmp_path / name) for name in ("first", "second"))
    assert [claim.reached for claim in first.claims] == [claim.reached for claim in second.claims]
