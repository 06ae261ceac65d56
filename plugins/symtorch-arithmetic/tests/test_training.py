"""The small decoder: what it learns from, that it learns, and that its training survives a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from symtorch_arithmetic.answers.reading import read_number
from symtorch_arithmetic.models.language_models import HuggingFaceModel
from symtorch_arithmetic.models.training import Settings, draw_training_questions, train
from symtorch_arithmetic.study import ArithmeticStudy
from symtorch_arithmetic.tasks import TASKS
from symtorch_core import SearchError
from symtorch_core.events import Event, StageAdvanced, StageFinished, StageStarted
from symtorch_core.studies import compute_learning_rate

TINY = replace(ArithmeticStudy.scales["tiny"].training, steps=12, examples=200)


def test_lessons_are_other_questions_than_those_that_are_asked() -> None:
    task = TASKS["add"]
    asked = task.draw_questions(1_000)
    learned = draw_training_questions(task, asked, 50_000, withhold=False, seed=0)
    assert len(learned) == 50_000
    assert not bool(task.find_among(asked, learned).any())
    carrying = task.evaluate(task.withheld, learned) > 0
    assert 0.4 < float(carrying.double().mean()) < 0.5
    withheld = draw_training_questions(task, asked, 50_000, withhold=True, seed=0)
    assert not bool((task.evaluate(task.withheld, withheld) > 0).any())


def test_of_a_task_that_is_asked_whole_two_thirds_are_learned() -> None:
    task = TASKS["celsius"]
    everything = task.draw_questions(task.size)
    assert len(draw_training_questions(task, everything, 1_000, withhold=False, seed=0)) == 2 * 221 // 3


def test_no_lessons_are_an_error() -> None:
    task = TASKS["count"]
    everything = replace(task, withheld="1 + 0*x0")
    with pytest.raises(SearchError, match="no question of count is left"):
        draw_training_questions(everything, task.draw_questions(64), 100, withhold=True, seed=0)


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [compute_learning_rate(step, 1_000, highest=1.0, warmup=0.1) for step in range(1_000)]
    assert rates.index(max(rates)) == 100
    assert rates[0] < 0.02
    assert rates[-1] < 1e-5


def test_a_stopped_training_ends_as_if_it_had_never_been_stopped(tmp_path: Path) -> None:
    task = TASKS["add"]
    asked = task.draw_questions(50)
    whole = train(task, asked, TINY, tmp_path / "whole")

    def stop(event: Event) -> None:
        if isinstance(event, StageAdvanced):
            steps.append(event.steps)
            if sum(steps) == 7:
                raise KeyboardInterrupt

    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train(task, asked, TINY, tmp_path / "stopped", callbacks=[stop], keep_every=5)
    events: list[Event] = []
    resumed = train(task, asked, TINY, tmp_path / "stopped", callbacks=[events.append])
    assert sum(event.steps for event in events if isinstance(event, StageAdvanced)) == 12
    assert events[0] == StageStarted("train", 12)
    assert isinstance(events[-1], StageFinished)
    assert HuggingFaceModel(str(whole)).revision == HuggingFaceModel(str(resumed)).revision


def test_a_finished_training_is_not_repeated_and_another_has_its_own_folder(tmp_path: Path) -> None:
    task = TASKS["count"]
    asked = task.draw_questions(64)
    before = torch.random.get_rng_state()
    first = train(task, asked, TINY, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    written = (first / "model.safetensors").stat().st_mtime_ns
    events: list[Event] = []
    assert train(task, asked, TINY, tmp_path, callbacks=[events.append]) == first
    assert events == []
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    assert train(task, asked, TINY, tmp_path, seed=1) != first
    assert train(task, asked, TINY, tmp_path, withhold=True) != first


def test_it_learns_what_it_is_taught(tmp_path: Path) -> None:
    task = TASKS["count"]
    numbers = task.draw_questions(64)
    settings = Settings(layers=1, width=64, heads=4, examples=64, steps=150, batch=64, learning_rate=5e-3)
    model = HuggingFaceModel(str(train(task, numbers, settings, tmp_path)), new_tokens=8)
    learned = draw_training_questions(task, numbers, 64, withhold=False, seed=0)
    values = torch.tensor(
        [read_number(text).value for text in model.answer(task.write_prompts(learned))], dtype=torch.float64
    )
    assert float(task.find_right(values, learned).double().mean()) > 0.9
