"""A fresh plain model gets the wrapped blocks of a checkpoint, and no plain model takes it for its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.testing import ScriptedRegressor

transformers = pytest.importorskip("transformers")
IDS = torch.arange(60).reshape(4, 15) % 14


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(
            [nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2)]
        )
        self.head = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = layer(x)
        y: Tensor = self.head(x)
        return y


def rows() -> Tensor:
    return torch.randn(50, 2, generator=torch.Generator().manual_seed(0))


def saved(release: bool = False) -> Net:
    """Return a model with one block on equations, and another one wrapped only."""
    torch.manual_seed(1)
    model = Net()
    block = st.wrap(model, "body.1")
    st.wrap(model, "head")
    block.distill(
        rows(), parent=model, regressor=ScriptedRegressor(equations=("x0 + 0.5*x1",)), progress=False
    )
    block.switch_to_symbolic(release_block=release)
    return model


def fresh() -> Net:
    torch.manual_seed(2)
    return Net()


def write_torch(model: nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "model.pt")
    return folder / "model.pt"


def write_safetensors(model: nn.Module, folder: Path) -> Path:
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


SOURCES: dict[str, Callable[[nn.Module, Path], Any]] = {
    "state_dict": lambda model, folder: model.state_dict(),
    "torch": write_torch,
    "safetensors": write_safetensors,
    "folder": lambda model, folder: write_safetensors(model, folder).parent,
}


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_plain_model_becomes_the_one_that_was_saved(kind: str, release: bool, tmp_path: Path) -> None:
    model, plain = saved(release), fresh()
    wrappers = st.restore(plain, SOURCES[kind](model, tmp_path))
    assert list(wrappers) == ["body.1", "head"]
    assert wrappers["body.1"] is plain.body[1]
    assert (plain.body[1].mode, plain.body[1].released, plain.head.mode) == ("symbolic", release, "block")
    assert torch.equal(plain(rows()), model(rows()))
    assert plain.body[1].equations() == model.body[1].equations()
    if not release:
        plain.body[1].switch_to_block()
        model.body[1].switch_to_block()
        assert torch.equal(plain(rows()), model(rows()))


def test_blocks_that_are_wrapped_already_stay() -> None:
    model, plain = saved(), fresh()
    block = st.wrap(plain, "body.1")
    assert st.restore(plain, model.state_dict())["body.1"] is block
    assert torch.equal(plain(rows()), model(rows()))


def change(key: str, value: Tensor | None) -> Callable[[dict[str, Any]], None]:
    def act(state: dict[str, Any]) -> None:
        state.pop(key, None)
        if value is not None:
            state[key] = value

    return act


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change("body.0.0.bias", None), "body.0.0.bias is missing"),
        (change("body.1.block.0.bias", None), "body.1.block.0.bias is missing"),
        (
            change("head.block.weight", torch.ones(3, 2)),
            r"head.block.weight has shape \(3, 2\), not \(1, 2\)",
        ),
        (change("tail.weight", torch.ones(1)), "tail.weight is unknown"),
        (change("body.1.surrogate.constants", None), "equations are not whole"),
        (lambda state: change("body.1._extra_state", state["body.1._extra_state"][:-9])(state), "damaged"),
        (lambda state: change("body.7._extra_state", state["body.1._extra_state"])(state), "has no body.7"),
    ],
)
def test_what_does_not_fit_changes_nothing(damage: Callable[[dict[str, Any]], None], words: str) -> None:
    state, plain = saved().state_dict(), fresh()
    damage(state)
    before = copy.deepcopy(plain.state_dict())
    with pytest.raises(st.FileFormatError, match=words):
        st.restore(plain, state)
    after = plain.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not any(isinstance(module, st.SymbolicModel) for module in plain.modules())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda: Net().state_dict(), "holds no wrapped block"),
        (lambda: st.SymbolicModel(nn.Linear(2, 2)).state_dict(), r"SymbolicModel\(model\).load_state_dict"),
        (lambda: {"model": saved().state_dict(), "epoch": 3}, r"checkpoint\['model'\]"),
        (lambda: "nothing.pt", "nothing.pt cannot be read"),
        (dict, "no state_dict"),
    ],
)
def test_what_is_no_such_checkpoint_says_what_to_do(source: Callable[[], Any], words: str) -> None:
    with pytest.raises(st.FileFormatError, match=words):
        st.restore(fresh(), source())


def test_a_block_in_a_block_and_a_neighbour_with_a_state_of_its_own() -> None:
    class Counting(nn.Linear):
        count = 0

        def get_extra_state(self) -> dict[str, int]:
            return {"count": self.count}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    def make() -> nn.Sequential:
        return nn.Sequential(Counting(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Tanh()))

    torch.manual_seed(0)
    model, plain = make(), make()
    model[0].count = 7
    st.wrap(model, "1")
    inner = st.wrap(model, "1.block.0")
    inner.distill(rows(), regressor=ScriptedRegressor(equations=("x0 + 0.5*x1",)), progress=False)
    inner.switch_to_symbolic()
    assert list(st.restore(plain, model.state_dict())) == ["1", "1.block.0"]
    assert torch.equal(plain(rows()), model(rows()))
    assert plain[0].count == 7


@pytest.mark.parametrize("release", [False, True])
def test_a_plain_model_does_not_take_it_for_its_own(release: bool) -> None:
    # Without strict, it kept the random weights that it had.
    with pytest.raises(RuntimeError, match="body.1.0.weight"):
        fresh().load_state_dict(saved(release).state_dict(), strict=False)


def test_a_block_without_weights_has_no_mark() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    st.wrap(model, "1")
    assert set(model.state_dict()) == {"0.weight", "0.bias", "1._extra_state"}


def test_names_of_a_block_like_those_of_the_wrapper_are_kept_apart() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.weight = nn.Linear(2, 2), nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.block(x) * self.weight
            return y

    torch.manual_seed(0)
    model, plain = nn.Sequential(Inner()), nn.Sequential(Inner())
    st.wrap(model, "0")
    st.restore(plain, model.state_dict())
    assert torch.equal(plain(rows()), model(rows()))


# -- Hugging Face ----------------------------------------------------------------------------


def llama(tied: bool = True) -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=14,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
            initializer_range=0.4,
            tie_word_embeddings=tied,
            bos_token_id=1,
            eos_token_id=0,
        )
    ).eval()


def gpt2() -> Any:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=14,
            n_embd=8,
            n_layer=2,
            n_head=2,
            n_positions=32,
            initializer_range=0.4,
            bos_token_id=1,
            eos_token_id=0,
        )
    ).eval()


def on_equations(model: Any, path: str, release: bool = False) -> Any:
    block = st.wrap(model, path)
    block.distill(IDS, parent=model, regressor=ScriptedRegressor(equations=("x0 + 0.5*x1",)), progress=False)
    block.switch_to_symbolic(release_block=release)
    return model


LLAMA, GPT2 = "model.layers.1.mlp", "transformer.h.0.mlp"


@pytest.mark.parametrize(
    ("make", "path", "kind", "dtype", "release", "shard"),
    [
        (llama, LLAMA, "LlamaForCausalLM", None, False, "1GB"),
        (lambda: llama(False), LLAMA, "LlamaForCausalLM", None, False, "2KB"),
        (llama, LLAMA, "AutoModelForCausalLM", torch.bfloat16, False, "1GB"),
        (llama, LLAMA, "LlamaForCausalLM", None, True, "1GB"),
        (gpt2, GPT2, "GPT2LMHeadModel", None, False, "1GB"),
    ],
)
def test_a_folder_of_hugging_face_comes_back_whole(
    make: Callable[[], Any],
    path: str,
    kind: str,
    dtype: torch.dtype | None,
    release: bool,
    shard: str,
    tmp_path: Path,
) -> None:
    model = on_equations(make(), path, release)
    model = model if dtype is None else model.to(dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    again = st.from_pretrained(getattr(transformers, kind), tmp_path)
    block = again.get_submodule(path)
    assert (block.mode, block.released) == ("symbolic", release)
    assert again.dtype == (dtype or torch.float32)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, model(IDS).logits)
    tied = model.config.tie_word_embeddings
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied
    in_double = st.from_pretrained(getattr(transformers, kind), tmp_path, dtype=torch.float64)
    assert in_double.dtype == torch.float64


@pytest.mark.parametrize("release", [False, True])
def test_from_pretrained_of_the_plain_class_does_not_start_it_at_random(
    release: bool, tmp_path: Path
) -> None:
    on_equations(llama(), LLAMA, release).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        transformers.LlamaForCausalLM.from_pretrained(tmp_path)


def test_what_is_no_folder_of_hugging_face_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(st.FileFormatError, match="no config.json.*download it first"):
        st.from_pretrained(transformers.LlamaForCausalLM, "owner/model")
    llama().save_pretrained(tmp_path / "plain")
    with pytest.raises(st.FileFormatError, match="from_pretrained of its class loads it"):
        st.from_pretrained(transformers.LlamaForCausalLM, tmp_path / "plain")
    with pytest.raises(
        st.SwitchError, match=r"neither config_class nor from_config.*st.restore\(model, folder\)"
    ):
        st.from_pretrained(nn.Linear, tmp_path / "plain")
    (tmp_path / "plain" / "model.safetensors").unlink()
    with pytest.raises(st.FileFormatError, match="holds no weights"):
        st.from_pretrained(transformers.LlamaForCausalLM, tmp_path / "plain")
