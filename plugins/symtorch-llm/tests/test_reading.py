"""Equations are read: on a model with a planted meaning, on other kinds of models, and against plain definitions."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from symtorch_core import Distillation, SearchError, SymbolicModel, distill
from symtorch_core.events import Event, StageAdvanced, StageFinished, StageStarted
from symtorch_core.expressions import Call, Constant, Expression, Variable, evaluate, parse
from symtorch_core.reduction import Moments
from symtorch_core.testing import ScriptedRegressor
from symtorch_llm.models.loading import load_encoder
from symtorch_llm.models.transformer import find_mlps, fold_mlps
from symtorch_llm.reading.contexts import Example, Tally
from symtorch_llm.reading.layers import read_layers
from symtorch_llm.reading.lens import Lens, Passage
from symtorch_llm.reading.passes import cut_windows, find_read_tokens
from symtorch_llm.reading.readings import Detail, LayerReading
from symtorch_llm.reading.steering import compare, correlate_ranks, scale_term
from symtorch_llm.reading.streams import find_streams
from symtorch_llm.reading.terms import compute_shares, evaluate_terms, name_term, split_terms
from symtorch_llm.reporting.pages import build_layer_page, show_token, write_layer_pages
from symtorch_llm.text import Batch, build_batches

WIDTH = 16
WORDS = torch.eye(14, WIDTH)
FOX, HEN, RAN, SAT, FAR = 3, 4, 5, 6, 11
SMALL: dict[str, Any] = {
    "vocab_size": 14,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
LAST = "model.layers.1.mlp"


@pytest.fixture(scope="module")
def tokenizer(toy: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(toy)


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    lengths = (5, 9, 12, 12, 14, 20, 20, 24)
    texts = [torch.randint(2, 14, (length,), generator=generator) for length in lengths]
    return build_batches([torch.cat([torch.tensor([1]), text]) for text in texts], 3)


@pytest.fixture(scope="module")
def found() -> Distillation:
    """0.5 fox + 0.1 ran in the direction of hen, and 0.3 ran^2 in that of sat, of rows that hold little else."""
    X = torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(0)) * 1e-3
    X[:, FOX], X[:, RAN] = 2000 * X[:, FOX], 1000 * X[:, RAN]
    Y = torch.outer(0.5 * X[:, FOX] + 0.1 * X[:, RAN], WORDS[HEN])
    return distill(
        (X, Y + torch.outer(0.3 * X[:, RAN] ** 2, WORDS[SAT])),
        regressor=ScriptedRegressor(equations=("0.5*z0 + 0.1*z1 + 0.0", "0.3*z1^2")),
        reducer="pca",
        reducer_options={"k_in": 2, "k_out": 2},
        select="accuracy",
        progress=False,
    )


def plant(found: Distillation) -> tuple[nn.Module, dict[str, SymbolicModel]]:
    """Return a model in which each word is a dimension that the head reads back, with what was found in its last MLP.

    Attention and the first MLP do nothing; the linear part writes far for ran.
    """
    model = LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=24, tie_word_embeddings=False)).eval()
    model.requires_grad_(False)
    model.model.embed_tokens.weight.copy_(4 * WORDS)
    model.lm_head.weight.copy_(WORDS)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    block = SymbolicModel(model.get_submodule(LAST), LAST).adopt(found).switch_to_symbolic()
    surrogate: Any = block.surrogate
    maps = surrogate.maps()
    maps.linear = nn.Linear(2, WIDTH)  # what was found only nearly is made exact
    maps.requires_grad_(False)
    for part, weight in ((maps.down, WORDS[[FOX, RAN]]), (maps.up, WORDS[[HEN, SAT]].T)):
        part.weight.copy_(weight)
    maps.linear.weight.copy_(torch.stack([torch.zeros(WIDTH), 0.2 * WORDS[FAR]], 1))
    for part in (maps.down, maps.up, maps.linear):
        part.bias.zero_()
    surrogate.constants.copy_(surrogate.constants.round(decimals=2))
    return model, {LAST: block}


@pytest.fixture
def planted(found: Distillation) -> tuple[nn.Module, dict[str, SymbolicModel]]:
    """A model of its own for each test."""
    return plant(found)


@pytest.fixture(scope="module")
def reading(found: Distillation, tokenizer: Any, batches: list[Batch]) -> LayerReading:
    model, blocks = plant(found)
    detail = Detail(words=1, steered=2)
    return read_layers(model, tokenizer, blocks, batches, layers={LAST: 1}, detail=detail)[LAST]


def build_block(model: nn.Module, path: str) -> SymbolicModel:
    """Return a block on any two equations."""
    X = torch.randn(100, WIDTH, generator=torch.Generator().manual_seed(1))
    result = distill(
        (X, X[:, :2] @ X[:2] + X[:, :1] ** 2),
        regressor=ScriptedRegressor(equations=("z0", "z0*z1")),
        reducer="projection",
        reducer_options={"k_in": 2, "k_out": 2},
        progress=False,
    )
    return SymbolicModel(model.get_submodule(path)).adopt(result).switch_to_symbolic()


def test_variables_are_read_by_what_excites_them(reading: LayerReading, batches: list[Batch]) -> None:
    fox, ran = reading.variables
    words = torch.cat([batch["input_ids"][find_read_tokens(batch)] for batch in batches])
    share = float((words == FOX).double().mean())
    assert reading.tokens == len(words)
    assert {example.token.strip() for example in fox.excitation.most} == {"fox"}
    assert fox.excitation.tokens_most[0] == " fox"
    assert fox.excitation.most[0].value == pytest.approx(4, rel=1e-3)
    assert fox.excitation.mean == pytest.approx(4 * share, rel=1e-3)
    assert fox.excitation.spread == pytest.approx(4 * math.sqrt(share * (1 - share)), rel=1e-3)
    assert fox.excitation.by_token == pytest.approx(1)
    assert (fox.reads.up[0], ran.reads.up[0]) == (" fox", " ran")
    assert ran.writes.up[0] == " far"


def test_equations_are_read_by_what_they_write_and_by_their_terms(reading: LayerReading) -> None:
    hen, sat = reading.equations
    assert (hen.writes.up[0], sat.writes.up[0]) == (" hen", " sat")
    assert [term.term.to_text() for term in hen.terms] == ["0.5*z0", "0.1*z1"]
    assert sum(term.share for term in hen.terms) == pytest.approx(1)
    assert hen.terms[0].share > 0.9
    assert {example.token.strip() for example in sat.terms[0].excitation.most} == {"ran"}
    assert (len(sat.terms), sat.count) == (1, 2)  # the other one is a constant
    assert sat.terms[0].share == pytest.approx(1)


def test_a_changed_term_raises_the_word_that_it_names(reading: LayerReading) -> None:
    assert {steered.term.to_text() for steered in reading.steering} == {"0.5*z0", "0.3*z1^2"}
    for steered in reading.steering:
        assert steered.effect.holds
        assert steered.effect.raised > 0.5


def test_the_check_fails_where_a_lens_is_wrong(
    planted: tuple[nn.Module, dict[str, SymbolicModel]],
    tokenizer: Any,
    batches: list[Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, blocks = planted
    right = Lens.compute_effects
    swapped = torch.arange(12)  # of the words without special tokens
    swapped[[HEN - 2, SAT - 2]] = torch.tensor([SAT - 2, HEN - 2])

    def read() -> LayerReading:
        return read_layers(model, tokenizer, blocks, batches, layers={LAST: 1}, detail=Detail(words=1))[LAST]

    monkeypatch.setattr(Lens, "compute_effects", lambda self, step: right(self, step)[:, swapped])
    assert all(
        steered.effect.raised < 0.1 for steered in read().steering
    )  # hen is named for sat, sat for hen
    monkeypatch.setattr(Lens, "compute_effects", lambda self, step: -right(self, step))
    assert not any(steered.effect.holds for steered in read().steering)


def test_terms_are_steered_on_a_part_of_the_text_even_of_a_sequence(
    planted: tuple[nn.Module, dict[str, SymbolicModel]], tokenizer: Any
) -> None:
    model, blocks = planted
    batches = build_batches([torch.tensor([1, 9, FOX, 8, RAN, 7])], 1)
    for tokens, wanted in ((2, set()), (4, {"0.5*z0"}), (6, {"0.5*z0", "0.3*z1^2"})):
        detail = Detail(tokens=tokens)
        found = read_layers(model, tokenizer, blocks, batches, layers={LAST: 1}, detail=detail)[LAST]
        assert {steered.term.to_text() for steered in found.steering} == wanted


def test_reading_leaves_the_model_as_it_was_and_tells_of_progress(
    planted: tuple[nn.Module, dict[str, SymbolicModel]], tokenizer: Any, batches: list[Batch]
) -> None:
    model, blocks = planted
    modules = dict(model.named_modules())
    events: list[Event] = []
    read_layers(model, tokenizer, blocks, batches, layers={LAST: 1}, callbacks=[events.append])
    assert dict(model.named_modules()) == modules
    for module in (*model.modules(), *blocks[LAST].modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert events[0] == StageStarted("read", len(batches) + 2)
    assert sum(isinstance(event, StageAdvanced) for event in events) == len(batches) + 2
    assert isinstance(events[-1], StageFinished)


def test_what_cannot_be_read_is_refused(
    planted: tuple[nn.Module, dict[str, SymbolicModel]], tokenizer: Any, batches: list[Batch]
) -> None:
    model, blocks = planted
    short = build_batches([torch.tensor([3])], 1)
    with pytest.raises(SearchError, match="give a longer text"):
        read_layers(model, tokenizer, blocks, short, layers={LAST: 1})
    with pytest.raises(SearchError, match="no number"):
        read_layers(model, tokenizer, blocks, batches, layers={})
    blocks[LAST].switch_to_block()
    with pytest.raises(SearchError, match="switch_to_symbolic"):
        read_layers(model, tokenizer, blocks, batches, layers={LAST: 1})
    with pytest.raises(SearchError, match="rows must be at least 1"):
        Detail(rows=0)


def test_a_scaled_term_is_the_equation_with_that_constant(
    planted: tuple[nn.Module, dict[str, SymbolicModel]],
) -> None:
    surrogate: Any = planted[1][LAST].surrogate
    X = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(3))
    before = surrogate(X)
    term = split_terms(surrogate.expressions()[0])[0]
    with scale_term(surrogate, term, 0.5, surrogate.maps().up.weight[:, 0]):
        changed = surrogate(X)
    with pytest.raises(ZeroDivisionError), scale_term(surrogate, term, 0.5, torch.ones(WIDTH)):
        raise ZeroDivisionError
    torch.testing.assert_close(surrogate(X), before, rtol=0, atol=0)
    surrogate.constants[0] *= 1.5
    torch.testing.assert_close(surrogate(X), changed)


def test_the_page_shows_tokens_and_escapes_them(reading: LayerReading, tmp_path: Path) -> None:
    example = Example(1.0, "<b>\n", "\u2028<i>", "\x00")
    variable = reading.variables[0]
    loud = replace(variable, excitation=replace(variable.excitation, most=(example,)))
    html = build_layer_page(replace(reading, variables=(loud, reading.variables[1]))).html()
    assert "1: &lt;b&gt;⏎«\\u2028&lt;i&gt;»\\x00" in html
    assert "0.5*z0: (z0: ·fox" in html
    assert "<b>" not in html
    assert show_token("x" * 100) == "x" * 24 + "…"
    assert write_layer_pages({}, tmp_path) == []
    (written,) = write_layer_pages({LAST: reading}, tmp_path)
    assert written.name == "layer-1.html"
    assert LAST in written.read_text(encoding="utf-8")


# -- lenses on other models ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "before", "after", "final"),
    [
        (
            lambda: LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=24)),
            "model.layers.1.post_attention_layernorm",
            None,
            "model.norm",
        ),
        (
            lambda: Gemma3ForCausalLM(
                Gemma3TextConfig(**SMALL, intermediate_size=24, num_key_value_heads=1, head_dim=8)
            ),
            "model.layers.1.pre_feedforward_layernorm",
            "model.layers.1.post_feedforward_layernorm",
            "model.norm",
        ),
        (
            lambda: GPT2LMHeadModel(
                GPT2Config(vocab_size=14, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=64)
            ),
            "transformer.h.1.ln_2",
            None,
            "transformer.ln_f",
        ),
        (
            lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, intermediate_size=24)),
            "gpt_neox.layers.1.post_attention_layernorm",
            None,
            "gpt_neox.final_layer_norm",
        ),
    ],
)
def test_norms_are_found_by_what_goes_through_them(
    model: Any, before: str, after: str | None, final: str, tokenizer: Any, batches: list[Batch]
) -> None:
    made = model().eval().requires_grad_(False)
    for part in made.modules():  # so that each norm is another map
        if "Norm" in type(part).__name__:
            part.weight.copy_(
                torch.rand(len(part.weight), generator=torch.Generator().manual_seed(id(part) % 1000)) + 0.5
            )
    path = find_mlps(made)[1]
    streams = find_streams(made, tokenizer, {path: build_block(made, path)}, batches)
    assert streams.why == ""
    assert streams.lens is not None
    site = streams.sites[path]
    for passage, wanted in ((site.before, before), (site.after, after), (streams.lens.norm, final)):
        assert (passage.module is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(
                passage.module.state_dict(), made.get_submodule(wanted).state_dict(), rtol=0, atol=0
            )
    # The effect is the derivative of the logits, in the middle over the states.
    norm, direction = streams.lens.norm, torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(4))
    logits = [
        made.get_output_embeddings()(norm.module(norm.states + step * direction)) for step in (1e-3, -1e-3)
    ]
    slope = ((logits[0] - logits[1]) / 2e-3).mean(0)[streams.lens.ids]
    torch.testing.assert_close(
        streams.lens.compute_effects(direction)[0], slope - slope.mean(), rtol=1e-2, atol=1e-3
    )
    # What is read before a norm is the transpose of what is written through it.
    one, other = torch.randn(2, 1, WIDTH, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close((norm.pull(one) * other).sum(), (norm.push(other) * one).sum())


def test_where_there_are_no_words_it_is_said(toy_encoder: Path, tokenizer: Any, batches: list[Batch]) -> None:
    config = BertConfig(**SMALL, intermediate_size=24)
    made = [
        (load_encoder(str(toy_encoder))[0], "the model has no head"),
        (fold_mlps(BertForMaskedLM(config).eval().requires_grad_(False)), "more than a norm lies between"),
    ]
    for model, why in made:
        path = find_mlps(model)[0]
        blocks = {path: build_block(model, path)}
        found = read_layers(model, tokenizer, blocks, batches, layers={path: 0})[path]
        assert why in found.why_no_words
        assert found.steering == ()
        assert found.variables[0].excitation.tokens_most
        assert why in build_layer_page(found).html()


# -- contexts ------------------------------------------------------------------------------


def test_windows_leave_out_first_tokens_and_padding() -> None:
    batch = build_batches([torch.tensor([5, 6, 7, 8]), torch.tensor([9, 4])], 2)[0]
    assert find_read_tokens(batch).tolist() == [[False, True, False, False], [False, True, True, True]]
    assert cut_windows(batch, 2, 1).tolist() == [[-1, 9, 4, -1], [-1, 5, 6, 7], [5, 6, 7, 8], [6, 7, 8, -1]]


@settings(max_examples=40, deadline=None)
@given(
    some.lists(some.tuples(some.integers(0, 3), some.integers(-5, 5)), min_size=2, max_size=30),
    some.integers(1, 4),
    some.integers(1, 5),
)
def test_a_tally_in_parts_is_what_all_rows_together_give(
    rows: list[tuple[int, int]], examples: int, parts: int
) -> None:
    windows = torch.tensor([[token] for token, _ in rows])
    values = torch.tensor([[float(value), -2.0 * value] for _, value in rows])
    tally = Tally(2, 1, torch.arange(4), examples, 0)
    for window, value in zip(windows.chunk(parts), values.chunk(parts), strict=True):
        tally.add(window, value)
    found = tally.finish(["a", "b"], _Numbers(), 3)
    by_token: dict[int, list[int]] = {}
    for token, value in rows:
        by_token.setdefault(token, []).append(value)
    largest = sorted((max(values) for values in by_token.values()), reverse=True)[:examples]
    assert [example.value for example in found[0].most] == largest
    assert [example.value for example in found[1].least] == [-2.0 * value for value in largest]
    assert all(int(e.token) in by_token and e.value in by_token[int(e.token)] for e in found[0].most)
    expected = Moments.of(values, values)
    torch.testing.assert_close(tally.covariance, expected.xx)
    assert found[0].mean == pytest.approx(float(expected.x[0]), abs=1e-9)
    means = {token: sum(values) / len(values) for token, values in by_token.items()}
    within = sum((value - means[token]) ** 2 for token, value in rows)
    total = sum((value - found[0].mean) ** 2 for _, value in rows)
    if 1 < len(means) < len(rows) and total > 0:
        wanted = 1 - within / (len(rows) - len(means)) * (len(rows) - 1) / total
        assert found[0].by_token == pytest.approx(wanted, abs=1e-9)
    often = {token for token, count in Counter(token for token, _ in rows).items() if count >= 3}
    assert {int(token) for token in found[0].tokens_most} <= often
    if often:
        assert means[int(found[0].tokens_most[0])] == pytest.approx(max(means[token] for token in often))


def test_rows_that_are_not_finite_are_left_out_and_counted() -> None:
    tally = Tally(1, 1, torch.arange(3), 2, 0)
    tally.add(torch.tensor([[0], [1], [2]]), torch.tensor([[1.0], [math.inf], [3.0]]))
    assert (tally.rows, tally.left_out, float(tally.covariance)) == (2, 1, 1.0)
    with pytest.raises(SearchError, match="nothing could be read"):
        Tally(1, 1, torch.arange(3), 2, 0).finish(["a"], _Numbers(), 2)


class _Numbers:
    """A tokenizer of numbers."""

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(str, tokens))


# -- terms and comparisons ------------------------------------------------------------------


def call(operator: str, *args: some.SearchStrategy[Expression]) -> some.SearchStrategy[Expression]:
    return some.tuples(*args).map(lambda parts: Call(operator, *parts))


EXPRESSIONS = some.recursive(
    some.sampled_from("xy").map(Variable) | some.integers(-9, 9).map(Constant),
    lambda parts: some.one_of(
        *(call(operator, parts, parts) for operator in "+-*/"),
        *(call(operator, parts) for operator in ("neg", "sin", "square")),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS)
def test_terms_add_up_to_their_equation(expression: Expression) -> None:
    rows = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = split_terms(expression)
    whole = evaluate(expression, {"x": rows[:, 0], "y": rows[:, 1]}).expand(12)
    if bool(whole.isfinite().all()):
        values = evaluate_terms(terms, ("x", "y"), rows)
        scale = float(values.abs().max()) if values.numel() else 1.0
        torch.testing.assert_close(values.sum(1), whole, rtol=1e-9, atol=1e-9 * max(1.0, scale))
    assert len({term.factors for term in terms}) == len(terms)
    for term in terms:  # what is a term cannot be split again
        assert split_terms(term.expression) == (term,)


@settings(max_examples=50, deadline=None)
@given(some.lists(some.lists(some.integers(-9, 9), min_size=3, max_size=3), min_size=2, max_size=8))
def test_shares_are_those_of_the_variance_and_add_up_to_one(rows: list[list[int]]) -> None:
    values = torch.tensor(rows, dtype=torch.float64)
    shares = compute_shares(torch.cov(values.T, correction=0))
    total = values.sum(1)
    variance = float(total.var(correction=0))
    if variance < 1e-9:
        assert bool(shares.isnan().all()) or variance == pytest.approx(0)
        return
    centred = total - total.mean()
    wanted = [float((column * centred).mean()) / variance for column in values.T]
    assert shares.tolist() == pytest.approx(wanted)
    assert float(shares.sum()) == pytest.approx(1)


def test_terms_are_named_by_their_variables() -> None:
    (term,) = split_terms(parse("2*sin(z1)*z0"))
    assert (
        name_term(term, {"z0": "months", "z1": "the"})
        == "2*sin(z1)*z0: (sin(z1) with z1: the) x (z0: months)"
    )
    assert name_term(split_terms(parse("3.0"))[0], {}) == "3"
    assert split_terms(parse("x - x")) == ()
    huge = split_terms(parse("1e300*(1e300*x)"))[0]  # the numbers have no product
    assert (huge.coefficient, len(huge.factors)) == (1.0, 1)


def test_ranks_of_ties_are_means() -> None:
    pandas = pytest.importorskip("pandas")
    one, other = torch.tensor([1.0, 1, 2, 5, 5]), torch.tensor([3.0, 1, 4, 1, 5])
    wanted = pandas.Series(one).rank().corr(pandas.Series(other).rank())
    assert correlate_ranks(one, other) == pytest.approx(wanted)
    assert math.isnan(correlate_ranks(one, torch.ones(5)))


def test_an_effect_holds_only_above_its_controls() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(2, 500, generator=generator)
    noise = torch.randn(500, generator=generator)

    every = torch.arange(500)
    lens = Lens(Passage(), torch.zeros(500, 1), None, every, every, _Numbers())

    def judge(measured: Tensor, random: Tensor) -> bool:
        return compare(lens, predicted, 0, measured, random, 8, 32).holds

    assert judge(predicted[0] + noise, noise)
    assert not judge(predicted[1] + 0.1 * predicted[0], noise)  # another equation's words
    assert not judge(predicted[0] + noise, predicted[0])  # any change would do it
    assert not judge(-predicted[0], noise)
    named = predicted[0].clone()
    named[
        named.abs().topk(16).indices
    ] *= -1  # the whole vocabulary follows, but not the words that are named
    assert not judge(named, noise)
