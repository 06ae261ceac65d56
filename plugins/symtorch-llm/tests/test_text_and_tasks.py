"""Text becomes batches; models are judged on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from symtorch_core import CaptureError
from symtorch_llm.models.loading import load_causal
from symtorch_llm.models.passages import prepare_passages, read_passages
from symtorch_llm.models.tasks import Embedding, LanguageModelling, Task
from symtorch_llm.models.transformer import place_modules
from symtorch_llm.text import Batch, build_batches, find_mark, hold_out, split_documents, tokenize


def test_documents_begin_where_they_are_said_to() -> None:
    text = "One day a fox ran.\n\nIt hid.\n\n\nOne day a hen sat.\n"
    assert split_documents(text, "One day") == ["One day a fox ran.\n\nIt hid.", "One day a hen sat."]
    assert split_documents(text) == [text]
    with pytest.raises(CaptureError, match="not a regular expression"):
        split_documents(text, "(")


def test_sequences_are_the_first_tokens_or_all_of_them(toy: Path) -> None:
    _, tokenizer = load_causal(str(toy))
    text = "one fox ran and then it hid"
    assert [s.tolist() for s in tokenize(tokenizer, [text], 4, mark=1)] == [[1, 2, 3, 5]]
    cut = tokenize(tokenizer, [text], 4, whole=True, mark=1)
    # Every token once, and every sequence begins with the mark that models are trained to begin with.
    assert [s.tolist() for s in cut] == [[1, 2, 3, 5], [1, 7, 8, 9], [1, 10]]
    with pytest.raises(CaptureError, match="no sequence"):
        tokenize(tokenizer, [""], 3)


def test_sequences_begin_with_a_mark_where_the_tokenizer_puts_one(toy: Path) -> None:
    _, tokenizer = load_causal(str(toy))
    assert tokenizer("one")["input_ids"] == [2]  # it has a mark, and puts none
    assert find_mark(tokenizer) is None
    assert find_mark(tokenizer, always=True) == 1
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert find_mark(tokenizer) == 1
    tokenizer.bos_token = None
    assert find_mark(tokenizer) is None
    with pytest.raises(CaptureError, match="leave mark out"):
        find_mark(tokenizer, always=True)


def test_what_is_held_out_is_the_end() -> None:
    assert hold_out(list(range(10)), 0.4) == ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9])
    with pytest.raises(CaptureError, match="too few"):
        hold_out([1], 0.4)


def score(model: Any, task: Task, batches: list[Batch], folder: Path) -> float:
    passages = prepare_passages(model, task, batches, folder)
    read_passages(passages)
    return passages.score()


def test_perplexity_is_that_of_the_formula_whatever_the_batches(
    toy: Path, toy_text: Path, tmp_path: Path
) -> None:
    model, tokenizer = load_causal(str(toy))
    tokens = tokenize(tokenizer, split_documents(toy_text.read_text(encoding="utf-8"), "one"), 30)
    task = LanguageModelling()
    total, count = 0.0, 0
    for one in tokens:  # equation 4, sequence by sequence, without padding
        with torch.no_grad():
            logits = model(input_ids=one[None]).logits[0, :-1]
        total += float(functional.cross_entropy(logits.double(), one[1:], reduction="sum"))
        count += len(one) - 1
    wanted = math.exp(total / count)
    for size in (1, 7, 60):
        found = score(model, task, build_batches(tokens, size), tmp_path)
        assert found == pytest.approx(wanted, rel=1e-5)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity(toy: Path, tmp_path: Path) -> None:
    model, _ = load_causal(str(toy))
    with torch.no_grad():
        head = nn.Linear(16, 14, bias=False)
        head.weight.zero_()
    task, batches = LanguageModelling(), build_batches([torch.tensor([1, 4, 5, 6])], 1)
    with place_modules(model, {"lm_head": head}):
        assert score(model, task, batches, tmp_path) == pytest.approx(14.0)


def test_distance_is_nothing_from_itself_and_padding_does_not_count(toy: Path) -> None:
    model, _ = load_causal(str(toy))
    task = LanguageModelling()
    (padded,) = build_batches([torch.tensor([1, 4, 5, 6, 7]), torch.tensor([1, 9, 3])], 2)
    (alone,) = build_batches([torch.tensor([1, 9, 3])], 1)
    with torch.no_grad():
        outputs, short = (task.compute_outputs(model, batch) for batch in (padded, alone))
    torch.testing.assert_close(outputs[:1, :3], short)
    kept = task.keep(outputs, padded)
    assert kept["logs"].shape == (8, 14)
    assert float(task.compute_distance(outputs, padded, kept)) == pytest.approx(0, abs=1e-6)
    moved = outputs.clone()
    moved[0, 3:] = 100.0 * torch.rand(2, 14)  # padding
    assert float(task.compute_distance(moved, padded, kept)) == pytest.approx(0, abs=1e-6)
    assert float(task.compute_distance(outputs.roll(1, 1), padded, kept)) > 0.01


def test_distance_weighs_by_the_distribution_of_the_original_per_token() -> None:
    task = LanguageModelling()
    original, outputs = (torch.tensor([[row, [0.5, 0.5]]]).log() for row in ([0.9, 0.1], [0.4, 0.6]))
    batch = {"input_ids": torch.zeros(1, 2).long(), "attention_mask": torch.ones(1, 2).long()}
    expected = (0.9 * math.log(0.9 / 0.4) + 0.1 * math.log(0.1 / 0.6)) / 2
    found = task.compute_distance(outputs, batch, task.keep(original, batch))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    back = (0.4 * math.log(0.4 / 0.9) + 0.6 * math.log(0.6 / 0.1)) / 2
    assert float(task.compute_distance(original, batch, task.keep(outputs, batch))) == pytest.approx(
        back, rel=1e-5
    )


def test_unlikely_tokens_are_lumped_together() -> None:
    task = LanguageModelling()
    generator = torch.Generator().manual_seed(0)
    original, outputs = (3 * torch.randn(1, 5, 1000, generator=generator) for _ in range(2))
    batch = {"input_ids": torch.zeros(1, 5).long(), "attention_mask": torch.ones(1, 5).long()}
    kept = task.keep(original, batch)
    assert kept["tokens"].shape == (5, 128)
    p, q = (logits[0].softmax(-1) for logits in (original, outputs))
    wanted = []
    for row in range(5):
        top = p[row].topk(128).indices
        lumped = [torch.cat([one[row][top], 1 - one[row][top].sum()[None]]) for one in (p, q)]
        wanted.append(float((lumped[0] * (lumped[0] / lumped[1]).log()).sum()))
    found = float(task.compute_distance(outputs, batch, kept))
    assert found == pytest.approx(sum(wanted) / 5, rel=1e-4)
    assert 0 < found <= float((p * (p / q).log()).sum(-1).mean())


def test_embeddings_are_compared_with_those_of_the_model_as_it_was(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(1, 40, (length,), generator=generator) for length in (4, 9, 6, 5)]
    task = Embedding()
    passages = prepare_passages(model, task, build_batches(tokens, 3), tmp_path)
    read_passages(passages)
    assert passages.score() == pytest.approx(0, abs=1e-6)
    norms = torch.cat([passages.read_original(number)["embeddings"].norm(dim=-1) for number in range(2)])
    torch.testing.assert_close(norms, torch.ones(4))
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight.zero_()
    assert 1e-4 < passages.score() < 2
