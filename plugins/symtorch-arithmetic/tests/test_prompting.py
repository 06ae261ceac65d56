"""Nothing is asked twice, nothing that was answered is lost; transformers' models through the same door."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from symtorch_arithmetic.answers.prompting import Answers, ask
from symtorch_arithmetic.answers.reading import CUT_OFF, read_number
from symtorch_arithmetic.models.language_models import HuggingFaceModel, LanguageModel
from symtorch_arithmetic.models.oracles import OUTLIERS, SILENT, Oracle
from symtorch_arithmetic.tasks import TASKS, Task
from symtorch_core import FileFormatError, SearchError
from symtorch_core.events import Event, StageAdvanced, StageFinished, StageStarted


@final
class Echo(LanguageModel):
    """Says what it hears, writes down what it was asked, and may be stopped."""

    def __init__(self, revision: str = "echo", *, stops_after: int = 10**9, batch: int = 3) -> None:
        self.name, self.revision, self.batch = "echo", revision, batch
        self.heard: list[str] = []
        self._stops_after = stops_after

    def answer(self, prompts: Sequence[str]) -> list[str]:
        if len(self.heard) >= self._stops_after:
            raise KeyboardInterrupt
        self.heard += prompts
        return [f"{prompt}!" for prompt in prompts]


SaveToy = Callable[..., Path]
TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}<answer> "
PROMPTS = [f"question {number}" for number in range(10)]


def test_every_prompt_is_asked_once(tmp_path: Path) -> None:
    model, answers = Echo(), Answers(tmp_path / "answers.sqlite")
    events: list[Event] = []
    assert ask(model, [*PROMPTS, *PROMPTS], answers, [events.append]) == [
        f"{p}!" for p in [*PROMPTS, *PROMPTS]
    ]
    assert sorted(model.heard) == sorted(PROMPTS)
    assert events[0] == StageStarted("ask", 10)
    assert sum(event.steps for event in events if isinstance(event, StageAdvanced)) == 10
    assert isinstance(events[-1], StageFinished)
    again = Echo()
    assert ask(again, PROMPTS[::-1], Answers(tmp_path / "answers.sqlite")) == [f"{p}!" for p in PROMPTS[::-1]]
    assert again.heard == []


def test_what_was_answered_before_a_stop_is_kept(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers.sqlite")
    stopped = Echo(stops_after=6)
    with pytest.raises(KeyboardInterrupt):
        ask(stopped, PROMPTS, answers)
    assert len(answers.load("echo")) == 6
    resumed = Echo()
    ask(resumed, PROMPTS, answers)
    assert len(resumed.heard) == 4


def test_another_revision_is_another_model(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers.sqlite")
    ask(Echo("first"), PROMPTS, answers)
    other = Echo("second")
    ask(other, PROMPTS, answers)
    assert len(other.heard) == 10


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "answers.sqlite"
    file.write_text("no database, but a long enough text to look like something" * 20, encoding="utf-8")
    with pytest.raises(FileFormatError, match="remove it"):
        Answers(file)


class TestHuggingFace:
    def test_answers_do_not_depend_on_the_batch(self, toy: Path) -> None:
        model = HuggingFaceModel(str(toy), new_tokens=12)
        prompts = TASKS["add"].write_prompts(torch.tensor([[1, 2], [123, 456], [99, 7], [999, 999]]))
        together = model.answer(prompts)
        assert together == [model.answer([prompt])[0] for prompt in prompts]
        assert len(set(together)) > 1

    def test_it_is_greedy_and_uses_the_chat_template(self, toy: Path) -> None:
        loaded, tokenizer = AutoModelForCausalLM.from_pretrained(toy), AutoTokenizer.from_pretrained(toy)
        ids = tokenizer("<user> 12+7 <answer> ", return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        for _ in range(8):
            ids = torch.cat([ids, loaded(ids).logits[:, -1:].argmax(-1)], dim=1)
        expected = tokenizer.decode(ids[0, start:], skip_special_tokens=True)
        assert HuggingFaceModel(str(toy), new_tokens=8).answer(["12+7"]) == [expected + CUT_OFF]

    def test_the_checkpoints_settings_of_sampling_and_penalties_change_nothing(
        self, toy: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "sampling"
        shutil.copytree(toy, other)
        file = other / "generation_config.json"
        settings = {
            "do_sample": True,
            "temperature": 9.0,
            "top_k": 3,
            "top_p": 0.5,
            "repetition_penalty": 9.0,
        }
        more = {"no_repeat_ngram_size": 1, "min_new_tokens": 7, "max_length": 3, "num_beams": 2}
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | settings | more), encoding="utf-8")
        prompts = TASKS["add"].write_prompts(TASKS["add"].draw_questions(6))
        plain, sampling = (HuggingFaceModel(str(folder), new_tokens=12) for folder in (toy, other))
        assert sampling.answer(prompts) == plain.answer(prompts)
        assert sampling.revision == plain.revision

    def test_a_template_without_a_role_for_the_system_is_used(
        self, tmp_path: Path, save_toy: SaveToy
    ) -> None:
        strict = (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
        )
        folder = save_toy(tmp_path / "strict", chat_template=strict)
        templated = HuggingFaceModel(str(save_toy(tmp_path / "templated")), new_tokens=8)
        assert HuggingFaceModel(str(folder), new_tokens=8).answer(["12+7"]) == templated.answer(["12+7"])

    def test_a_template_that_cannot_write_a_question_is_an_error_before_any_is_asked(
        self, tmp_path: Path, save_toy: SaveToy
    ) -> None:
        folder = save_toy(tmp_path / "broken", chat_template="{{ raise_exception('tools only') }}")
        with pytest.raises(SearchError, match="chat template of .*tools only"):
            HuggingFaceModel(str(folder))

    def test_a_template_that_writes_the_date_does_not_make_another_model_every_day(
        self, tmp_path: Path, save_toy: SaveToy
    ) -> None:
        dated = "{% if not date_string is defined %}{{ strftime_now('%H %M %S %f') }}{% endif %}" + TEMPLATE
        folder = str(save_toy(tmp_path / "dated", chat_template=dated))
        assert HuggingFaceModel(folder).revision == HuggingFaceModel(folder).revision

    def test_an_answer_that_ends_by_itself_is_not_marked_as_cut_off(self, toy: Path, tmp_path: Path) -> None:
        whole = HuggingFaceModel(str(toy), new_tokens=8)
        (cut,) = whole.answer(["12+7"])
        assert cut.endswith(CUT_OFF)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(toy), AutoTokenizer.from_pretrained(toy)
        ids = tokenizer("<user> 12+7 <answer> ", return_tensors="pt")["input_ids"]
        model.generation_config.eos_token_id = int(model(ids).logits[0, -1].argmax())
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        (answer,) = HuggingFaceModel(str(tmp_path), new_tokens=8).answer(["12+7"])
        assert not answer.endswith(CUT_OFF)

    def test_another_precision_is_another_model(self, toy: Path) -> None:
        exact, rounded = (HuggingFaceModel(str(toy), dtype=dtype) for dtype in ("float32", "bfloat16"))
        assert exact.revision == HuggingFaceModel(str(toy)).revision != rounded.revision

    def test_a_model_without_a_template_gets_the_prompt_itself(
        self, tmp_path: Path, save_toy: SaveToy
    ) -> None:
        plain = save_toy(tmp_path / "plain", chat_template=None)
        templated = HuggingFaceModel(str(save_toy(tmp_path / "templated")), new_tokens=8)
        model = HuggingFaceModel(str(plain), new_tokens=8)
        assert model.answer(["<user> 12+7 <answer> "]) == templated.answer(["12+7"])

    def test_the_revision_tells_models_apart(self, toy: Path, tmp_path: Path, save_toy: SaveToy) -> None:
        revision = HuggingFaceModel(str(toy)).revision
        assert HuggingFaceModel(str(save_toy(tmp_path / "copy"))).revision == revision
        assert HuggingFaceModel(str(save_toy(tmp_path / "other", seed=1))).revision != revision
        assert HuggingFaceModel(str(toy), new_tokens=10).revision != revision
        assert HuggingFaceModel(str(save_toy(tmp_path / "bare", chat_template=None))).revision != revision

    def test_answers_end_where_the_model_has_no_positions_left(self, toy: Path) -> None:
        model = HuggingFaceModel(str(toy), new_tokens=10**6)
        (answer,) = model.answer(["1 " * 250])
        assert len(AutoTokenizer.from_pretrained(toy)(answer)["input_ids"]) < 512

    def test_a_model_that_is_not_there_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(SearchError, match="cannot load a model"):
            HuggingFaceModel(str(tmp_path / "nothing"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_answers(toy: Path) -> None:
    prompts = TASKS["add"].write_prompts(TASKS["add"].draw_questions(40))
    here, there = (HuggingFaceModel(str(toy), device=device, new_tokens=12) for device in ("cpu", "cuda"))
    assert here.revision == there.revision
    assert here.answer(prompts) == there.answer(prompts)


class TestOracles:
    @pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
    def test_an_oracle_is_right(self, task: Task) -> None:
        numbers = task.draw_questions(200)
        answers = Oracle(task).answer(task.write_prompts(numbers))
        values = torch.tensor([read_number(text).value for text in answers], dtype=torch.float64)
        assert bool(task.find_right(values, numbers).all())

    def test_an_erring_oracle_errs_as_planted_but_for_outliers_and_silence(self) -> None:
        task = TASKS["add"]
        numbers = task.draw_questions(4_000)
        prompts = task.write_prompts(numbers)
        answers = Oracle(task, errs=True).answer(prompts)
        values = torch.tensor([read_number(text).value for text in answers], dtype=torch.float64)
        planned = task.compute_truth(numbers) + task.evaluate(task.planted, numbers)
        assert float(values.isnan().double().mean()) == pytest.approx(SILENT, abs=0.006)
        assert float((values != planned).double().mean()) == pytest.approx(SILENT + OUTLIERS, abs=0.012)
        assert Oracle(task, errs=True).answer(prompts[::-1]) == answers[::-1]

    def test_it_knows_its_own_questions_only(self) -> None:
        with pytest.raises(ValueError, match="not a question of add"):
            Oracle(TASKS["add"]).answer(["How are you?"])
