"""The study as a user runs it, on a two-layer toy model; and on the small trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from symtorch_core import SearchError
from symtorch_core.studies import StudyReport
from symtorch_core.testing import StudyContract, run_command
from symtorch_llm.models.loading import load_causal
from symtorch_llm.models.saving import load_surrogates
from symtorch_llm.models.tasks import LanguageModelling
from symtorch_llm.models.transformer import count_bytes
from symtorch_llm.study import LlmStudy
from symtorch_llm.text import build_batches, hold_out, split_documents, tokenize


class TestLlmStudy(StudyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def study(cls, toy: Path, toy_text: Path) -> LlmStudy:
        return LlmStudy(
            model=str(toy),
            text=str(toy_text),
            opening="one",
            length=40,
            layers="0,1",
            recipe="all",
            k_in=4,
            k_out=2,
            terms=4,
            regressor="sparse",
            epochs=2,
            seeds=2,
        )

    def test_everything_is_compared(self, report: StudyReport) -> None:
        variants = {(v["name"], v["seed"]): v for v in report.figures["variants"]}
        names = {name for name, _ in variants}
        assert {"baseline", "MLP zero", "control (output = input)", "paper", "best", "constant"} <= names
        assert {"linear of equal cost", "full linear", "network between maps", "narrow SwiGLU"} <= names
        assert {seed for name, seed in variants if name == "best"} == {0, 1}
        for name in ("linear of equal cost", "narrow SwiGLU", "network between maps"):
            assert variants[name, 0]["cost"] <= variants["best", 0]["cost"]
        assert all(v["throughput"] > 0 for v in report.figures["variants"])
        assert len(report.tables["sensitivity"].rows) == 2 * 5 * 4

    def test_what_was_saved_runs(self, report: StudyReport, folder: Path, toy: Path) -> None:
        blocks = load_surrogates(load_causal(str(toy))[0], folder / "surrogates")
        assert [block.mode for block in blocks] == ["symbolic", "symbolic"]


def test_layers_are_chosen_within_a_budget(
    toy: Path, toy_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = [
        "run", "llm", "--model", str(toy), "--text", str(toy_text), "--opening", "one", "--length", "40", "--layers",
        "auto", "--budget", "1000000", "--k-in", "4", "--k-out", "2", "--terms", "4", "--epochs", "1", "--no-sweep",
        "--out", str(tmp_path),
    ]  # fmt: skip
    result = run_command(arguments)
    assert result.exit_code == 0, result.output
    assert "auto: perplexity rises within the budget" in result.output
    assert "layers 0, 1 of 2" in result.output
    assert tmp_path.joinpath("report.html").is_file()
    assert tmp_path.joinpath("pareto.png").is_file()
    with pytest.raises(SearchError, match="no layer can be replaced within"):
        LlmStudy(
            model=str(toy), text=str(toy_text), opening="one", length=40, budget=-100.0, k_in=4, k_out=2, terms=4,
            epochs=1,
        ).run(tmp_path)  # fmt: skip


def test_an_encoder_takes_the_same_road(toy_encoder: Path, toy_text: Path, tmp_path: Path) -> None:
    study = LlmStudy(
        model=str(toy_encoder),
        text=str(toy_text),
        opening="one",
        length=40,
        kind="encoder",
        layers="0",
        k_in=4,
        k_out=2,
        terms=4,
        epochs=2,
        sweep=False,
    )
    report = study.run(tmp_path)
    found = {v["name"]: v for v in report.figures["variants"]}
    assert found["baseline"]["as_fitted"] == pytest.approx(0, abs=1e-6)
    assert 0 < found["best"]["tuned"] < found["MLP zero"]["as_fitted"]
    assert "paper" not in report.tables  # which measured perplexities
    assert report.write(tmp_path / "written").is_file()


# What random weights compute need not be fitted by four products.
@pytest.mark.filterwarnings("ignore:.*does worse than the best constant:RuntimeWarning")
@pytest.mark.parametrize("name", ["toy_qwen2", "toy_gemma3"])
def test_models_whose_head_is_their_embedding(
    name: str, request: pytest.FixtureRequest, toy_text: Path, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(name)
    study = LlmStudy(
        model=str(folder),
        text=str(toy_text),
        opening="one",
        length=24,
        batch=16,
        layers="0,2",
        k_in=4,
        k_out=2,
        terms=4,
        regressor="sparse",
        epochs=1,
        sweep=False,
    )
    report = study.run(tmp_path)
    found = {v["name"]: v for v in report.figures["variants"]}
    model: Any
    model, tokenizer = load_causal(str(folder))
    texts = hold_out(split_documents(toy_text.read_text("utf-8"), "one"), 0.4)[1]
    batches = build_batches(tokenize(tokenizer, texts, 23), 16)
    task = LanguageModelling()

    def score(scored: Any) -> float:
        return task.score(scored, task.prepare_held_out(scored, batches))

    assert score(model) == pytest.approx(found["baseline"]["as_fitted"], rel=1e-5)
    before = count_bytes([model])
    mlps = count_bytes([model.model.layers[number].mlp for number in (0, 2)])
    blocks = load_surrogates(model, tmp_path / "surrogates")
    assert score(model) == pytest.approx(found["best"]["tuned"], rel=1e-5)
    # The embedding is still the head, and counts once.
    assert model.lm_head.weight is model.get_input_embeddings().weight
    came = count_bytes([block.surrogate for block in blocks if block.surrogate])
    assert count_bytes([model]) == before - mlps + came


def test_what_is_missing_or_makes_no_sense_is_said(toy: Path, toy_text: Path, tmp_path: Path) -> None:
    for study, said in (
        (LlmStudy(), "give --model"),
        (LlmStudy(model=str(toy)), "give --text"),
        (LlmStudy(model=str(toy), text="nowhere.txt"), "no file nowhere.txt"),
        (LlmStudy(model=str(toy), text=str(toy_text), k_in=0), "at least 1"),
        (LlmStudy(model=str(toy), text=str(toy_text), seed=-1), "llm's seed must be at least 0"),
        (LlmStudy(model=str(toy), text=str(toy_text), budget=float("nan")), "llm's budget must be a finite"),
        (LlmStudy(model=str(toy), text=str(toy_text), timeout=0), "llm's timeout must be positive"),
        (LlmStudy(model=str(toy), text=str(toy_text), length=1000), "64 tokens at most"),
        (LlmStudy(model=str(toy), text=str(toy_text), layers="0,7"), "numbers from 0 to 1"),
        (LlmStudy(model=str(toy), text=str(toy_text), layers="first"), "numbers from 0 to 1"),
    ):
        with pytest.raises(SearchError, match=said):
            study.run(tmp_path)


def test_a_trained_model_is_won_back_further_than_by_the_papers_recipe(data: Path, tmp_path: Path) -> None:
    report = LlmStudy(
        model=str(data / "stories260K"),
        text=str(data / "text/tinystories_slice_197KB.txt"),
        opening="Once upon|One day",
        length=257,
        layers="3",
        recipe="all",
        k_in=8,
        k_out=4,
        terms=8,
        regressor="sparse",
        epochs=2,
        rows=6000,
        sweep=False,
    ).run(tmp_path)
    found = {v["name"]: v for v in report.figures["variants"]}
    assert found["baseline"]["as_fitted"] == pytest.approx(6.02, abs=0.02)
    assert found["best"]["tuned"] < found["best"]["as_fitted"] < found["paper"]["as_fitted"]
    assert found["baseline"]["won_back"] == 1
    assert found["MLP zero"]["won_back"] == 0
    assert found["best"]["won_back"] > max(0.2, found["paper"]["won_back"])
    assert found["best"]["cost"] < 0.06
