"""The study as a user runs it, on a two-layer toy model; and on the small trained one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from symtorch_core import SearchError
from symtorch_core.events import Event, StageStarted
from symtorch_core.studies import StudyReport
from symtorch_core.testing import StudyContract, run_command
from symtorch_llm.models import memory
from symtorch_llm.models.loading import load_causal
from symtorch_llm.models.passages import prepare_passages, read_passages
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
            step=20,
            others="fit",
            seeds=2,
            passes=2,
        )

    def test_texts_are_apart_and_all_are_judged(self, report: StudyReport) -> None:
        for variant in report.figures["variants"]:
            assert set(variant["by_text"]["fitted"]) == {"judged", "fit"}
            if variant["tuned"] is not None:
                assert set(variant["by_text"]["tuned"]) == {"judged", "fit"}
        assert {row[0] for row in report.tables["texts"].rows} >= {"MLP zero", "best", "paper"}
        compared = [row[0] for row in report.tables["paper"].rows if row[0].startswith("perplexity")]
        assert len(compared) == 10  # five rows of the paper's table, on both texts
        assert any("MLP zero" in row for row in compared)

    def test_claims_compare_on_equal_terms(self, report: StudyReport) -> None:
        claims = {claim.text for claim in report.claims}
        against = "best, {}: rise, nats, against the paper's recipe, {}"
        assert against.format("as fitted", "as fitted") in claims
        assert against.format("tuned", "tuned alike") in claims

    def test_a_second_run_computes_nothing_again(
        self, study: LlmStudy, report: StudyReport, folder: Path
    ) -> None:
        before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")}
        events: list[Event] = []
        again = study.run(folder, [events.append])
        stages = {event.stage for event in events if isinstance(event, StageStarted)}
        assert not stages & {"capture", "tune"}
        for mine, theirs in zip(report.figures["variants"], again.figures["variants"], strict=True):
            assert mine["by_text"] == theirs["by_text"]
        kept = {file: at for file, at in before.items() if "surrogates" not in file.parts}
        assert {file: file.stat().st_mtime_ns for file in kept} == kept

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

    def test_each_layer_has_a_page(self, report: StudyReport, folder: Path) -> None:
        for number in (0, 1):
            page = folder.joinpath("layers", f"layer-{number}.html").read_text(encoding="utf-8")
            assert f"model.layers.{number}.mlp" in page
            assert "The equations" in page

    def test_what_was_saved_runs(self, report: StudyReport, folder: Path, toy: Path) -> None:
        blocks = load_surrogates(load_causal(str(toy))[0], folder / "surrogates")
        assert [block.mode for block in blocks] == ["symbolic", "symbolic"]


def test_layers_are_chosen_within_a_budget(
    toy: Path, toy_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = [
        "run", "llm", "--model", str(toy), "--text", str(toy_text), "--opening", "one", "--length", "40", "--layers",
        "auto", "--budget", "1000000", "--frontier", "--k-in", "4", "--k-out", "2",
        "--terms", "4", "--epochs", "1", "--no-sweep", "--passes", "1", "--out", str(tmp_path),
    ]  # fmt: skip
    result = run_command(arguments)
    assert result.exit_code == 0, result.output
    assert "auto: perplexity rises within the budget" in result.output
    assert "layers 0, 1 of 2" in result.output
    assert tmp_path.joinpath("report.html").is_file()
    for drawing in ("pareto", "frontier"):
        assert tmp_path.joinpath(f"{drawing}.png").is_file()
    rows = list(csv.reader(tmp_path.joinpath("frontier.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == [
        "layers replaced",
        "equations (best)",
        "linear of equal cost",
        "narrow SwiGLU",
        "removed",
    ]
    assert [row[0] for row in rows[1:]] == ["1", "2"]
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
    texts = hold_out(tokenize(tokenizer, split_documents(toy_text.read_text("utf-8"), "one"), 24), 0.4)[1]

    def score(scored: Any) -> float:
        passages = prepare_passages(scored, LanguageModelling(), build_batches(texts, 16), tmp_path / "again")
        read_passages(passages)
        return passages.score()

    assert score(model) == pytest.approx(found["baseline"]["as_fitted"], rel=1e-5)
    before = count_bytes([model])
    mlps = count_bytes([model.model.layers[number].mlp for number in (0, 2)])
    blocks = load_surrogates(model, tmp_path / "surrogates")
    assert score(model) == pytest.approx(found["best"]["tuned"], rel=1e-5)
    # The embedding is still the head, and counts once.
    assert model.lm_head.weight is model.get_input_embeddings().weight
    came = count_bytes([block.surrogate for block in blocks if block.surrogate])
    assert count_bytes([model]) == before - mlps + came


def test_a_run_that_does_not_fit_into_memory_is_refused_before_it_begins(
    toy: Path, toy_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = LlmStudy(model=str(toy), text=str(toy_text), layers="0", length=40, batch=2, k_in=4, k_out=2)
    monkeypatch.setattr(memory, "get_free_memory", lambda: 50_000)
    with pytest.raises(SearchError, match=r"the run needs .* GB beside the model .*: give fewer --rows"):
        study.run(tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    # Rows of one MLP and twice more while it is fitted; predictions and what is made of them.
    needs = memory.estimate_needs(layers=1, rows=100, width=16, sequences=2, length=40, outputs=14)
    assert needs.rows == 3 * 100 * 2 * 16 * 4
    assert needs.predictions == 4 * 2 * 40 * 14 * 4


def test_what_is_missing_or_makes_no_sense_is_said(toy: Path, toy_text: Path, tmp_path: Path) -> None:
    for study, said in (
        (LlmStudy(), "give --model"),
        (LlmStudy(model=str(toy)), "give --text"),
        (LlmStudy(model=str(toy), text="nowhere.txt"), "no file nowhere.txt"),
        (LlmStudy(model=str(toy), text=str(toy_text), k_in=0), "at least 1"),
        (LlmStudy(model=str(toy), text=str(toy_text), seed=-1), "llm's seed must be at least 0"),
        (LlmStudy(model=str(toy), text=str(toy_text), budget=float("nan")), "llm's budget must be a finite"),
        (LlmStudy(model=str(toy), text=str(toy_text), timeout=-1.0), "llm's timeout must be at least 0"),
        (LlmStudy(model=str(toy), text=str(toy_text), k_in=40), "k_in=40: the model is 16 wide"),
        (LlmStudy(model=str(toy), text=str(toy_text), others="no.txt"), "no file no.txt"),
        (LlmStudy(model=str(toy), text=str(toy_text), layers="0", frontier=True), "with --layers auto"),
        (LlmStudy(model=str(toy), text=str(toy_text), kind="encoder", step=9), "--step cuts sequences"),
        (LlmStudy(model=str(toy), text=str(toy_text), length=1000, k_in=4), "64 tokens at most"),
        (LlmStudy(model=str(toy), text=str(toy_text), layers="0,7", k_in=4), "numbers from 0 to 1"),
        (LlmStudy(model=str(toy), text=str(toy_text), layers="first", k_in=4), "numbers from 0 to 1"),
    ):
        with pytest.raises(SearchError, match=said):
            study.run(tmp_path)


def test_a_trained_model_is_won_back_further_than_by_the_papers_recipe(data: Path, tmp_path: Path) -> None:
    report = LlmStudy(
        model=str(data / "stories260K"),
        text=str(data / "text/tinystories_slice_197KB.txt"),
        opening="Once upon|One day",
        length=257,
        mark=True,
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
