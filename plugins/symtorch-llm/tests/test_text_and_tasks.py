"""Text becomes batches; models are judged on them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from symtorch_core import CaptureError
from symtorch_llm.models.loading import load_causal
from symtorch_llm.models.tasks import Embedding, LanguageModelling
from symtorch_llm.models.transformer import place_modules
from symtorch_llm.text import build_batches, hold_out, split_documents, tokenize


def test_documents_begin_where_they_are_said_to() -> None:
    text = "One day a fox ran.\n\nIt hid.\n\n\nOne day a hen sat.\n"
    assert split_documents(text, "One day") == ["One day a fox ran.\n\nIt hid.", "One day a hen sat."]
    assert split_documents(text) == [text]
    with pytest.raises(CaptureError, match="not a regular expression"):
        split_documents(text, "(")


def test_sequences_are_the_first_tokens_or_all_of_them(toy: Path) -> None:
    _, tokenizer = load_causal(str(toy))
    text = "one fox ran and then it hid"
    assert [s.tolist() for s in tokenize(tokenizer, [text], 3)] == [[1, 2, 3, 5]]
    cut = tokenize(tokenizer, [text], 3, whole=True)
    # Every token once; the beginning is marked once; a single token left over predicts nothing.
    assert [s.tolist() for s in cut] == [[1, 2, 3, 5], [7, 8, 9]]
    with pytest.raises(CaptureError, match="no sequence"):
        tokenize(tokenizer, [""], 3)


def test_what_is_held_out_is_the_end() -> None:
    assert hold_out(list(range(10)), 0.4) == ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9])
    with pytest.raises(CaptureError, match="too few"):
        hold_out([1], 0.4)


def test_perplexity_is_that_of_the_formula_whatever_the_batches(toy: Path, toy_text: Path) -> None:
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
        found = task.score(model, task.prepare_held_out(model, build_batches(tokens, size)))
        assert found == pytest.approx(wanted, rel=1e-5)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity(toy: Path) -> None:
    model, _ = load_causal(str(toy))
    with torch.no_grad():
        head = nn.Linear(16, 14, bias=False)
        head.weight.zero_()
    task, batches = LanguageModelling(), build_batches([torch.tensor([1, 4, 5, 6])], 1)
    with place_modules(model, {"lm_head": head}):
        assert task.score(model, task.prepare_held_out(model, batches)) == pytest.approx(14.0)


def test_distance_is_nothing_from_itself_and_padding_does_not_count(toy: Path) -> None:
    model, _ = load_causal(str(toy))
    task = LanguageModelling()
    (padded,) = build_batches([torch.tensor([1, 4, 5, 6, 7]), torch.tensor([1, 9, 3])], 2)
    (alone,) = build_batches([torch.tensor([1, 9, 3])], 1)
    with torch.no_grad():
        rows = task.compute_outputs(model, padded)
        assert rows.shape == (8, 14)
        torch.testing.assert_close(rows[:3], task.compute_outputs(model, alone))
        assert float(task.compute_distance(rows, rows)) == pytest.approx(0, abs=1e-6)
        assert float(task.compute_distance(rows, rows.roll(1, 0))) > 0.01


def test_distance_weighs_by_the_distribution_that_is_wanted() -> None:
    wanted, outputs = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    there = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    back = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    task = LanguageModelling()
    assert float(task.compute_distance(outputs.log(), wanted.log())) == pytest.approx(there, rel=1e-5)
    assert float(task.compute_distance(wanted.log(), outputs.log())) == pytest.approx(back, rel=1e-5)
    # For each token, however many there are.
    many = [tensor.log().expand(7, 2) for tensor in (outputs, wanted)]
    assert float(task.compute_distance(*many)) == pytest.approx(there, rel=1e-5)


def test_embeddings_are_compared_with_those_of_the_model_as_it_was() -> None:
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
    data = task.prepare_held_out(model, build_batches(tokens, 3))
    assert task.score(model, data) == pytest.approx(0, abs=1e-6)
    norms = torch.cat([one.norm(dim=-1) for one in data.originals])
    torch.testing.assert_close(norms, torch.ones(4))
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight.zero_()
    assert 1e-4 < task.score(model, data) < 2


def test_the_divergence_is_that_of_the_model_from_the_equations_per_token() -> None:
    wanted, outputs = (torch.tensor([row, [0.5, 0.5]]).log() for row in ([0.9, 0.1], [0.4, 0.6]))
    expected = (0.9 * math.log(0.9 / 0.4) + 0.1 * math.log(0.1 / 0.6)) / 2
    assert float(LanguageModelling().compute_distance(outputs, wanted)) == pytest.approx(expected)
