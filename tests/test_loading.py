"""Loading a checkpoint into a wrapped model: all of it, or the model is as it was and still runs."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.testing.scripted import ScriptedRegressor

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two blocks to wrap, between other layers that are loaded before and after them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(3, 3)
            self.one = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
            self.between = nn.Linear(3, 3)
            self.two = nn.Linear(3, 2)
            self.last = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.two(self.between(self.one(self.first(x)))))


def make(seed: int, *, equations: tuple[str, ...] = ("1.5*z0", "sin(z0)"), release: bool = False) -> Net:
    """Return a model with both blocks on equations, one of them pruned and reduced."""
    model = Net(seed).eval()
    st.wrap(model, "one").distill(
        X,
        parent=model,
        regressor=ScriptedRegressor(equations=equations),
        reducer="pca",
        reducer_options={"k_in": 1, "k_out": 1},
        select="accuracy",
        progress=False,
    )
    two = st.wrap(model, "two")
    two.prune_outputs(torch.tensor([True, False]))
    two.distill(X, parent=model, regressor=ScriptedRegressor(equations=("x0 + 0.5*x1",)), progress=False)
    model.one.switch_to_symbolic(release_block=release)
    model.two.switch_to_symbolic()
    return model


@pytest.fixture(scope="module")
def saved() -> dict[str, Tensor]:
    return make(1).state_dict()


@pytest.fixture(scope="module")
def made() -> Net:
    return make(2, equations=("0.5*z0",))


@pytest.fixture
def model(made: Net) -> Net:
    return copy.deepcopy(made)


def remember(model: Net) -> Callable[[], None]:
    """Return a check that the wrappers of a model are as they are now, to the last bit."""
    wrappers = (model.one, model.two)
    expected = [copy.deepcopy(w.state_dict()) for w in wrappers]
    parts = [(w.block, w.surrogate, w.distillation, w.mode, w.released, w.pruned_outputs) for w in wrappers]
    parameters = [dict(w.named_parameters()) for w in wrappers]
    z = X[:5]
    outputs = [w(z).detach() for w in wrappers]

    def check() -> None:
        for w, output in zip(wrappers, outputs, strict=True):  # at once: running is a way to look at it
            assert torch.equal(w(z), output)
        for w, state, kept, named in zip(wrappers, expected, parts, parameters, strict=True):
            now = w.state_dict()
            assert list(now) == list(state)
            assert all(torch.equal(now[key], state[key]) for key in state)
            assert (w.block, w.surrogate, w.distillation, w.mode, w.released, w.pruned_outputs) == kept
            assert all(p is named[name] for name, p in w.named_parameters())

    return check


def mutate(saved: dict[str, Tensor], seed: int) -> dict[str, Any]:
    """Return a checkpoint with one fault."""
    rng, state = random.Random(seed), dict(saved)
    key, other = rng.sample(sorted(state), 2)
    kinds: dict[str, Callable[[], Any]] = {
        "drop": lambda: state.pop(key),
        "add": lambda: state.update({key + "x": state[key]}),
        "rename": lambda: state.update({other + ".x": state.pop(key)}),
        "reshape": lambda: state.update({key: state[key][None]}),
        "grow": lambda: state.update({key: torch.cat([state[key].reshape(-1)] * 2)}),
        "cut": lambda: state.update({key: state[key].reshape(-1)[:-1]}),
        "empty": lambda: state.update({key: state[key].new_empty(0)}),
        "text": lambda: state.update({key: "numbers"}),
        "nothing": lambda: state.update({key: None}),
        "integers": lambda: state.update({key: state[key].long()}),
        "complex": lambda: state.update({key: state[key].to(torch.complex64) * 1j}),
        "meta": lambda: state.update({key: state[key].to("meta")}),
        "nan": lambda: state.update({key: torch.full(state[key].shape, float("nan"))}),
        "swap": lambda: state.update({key: state[other], other: state[key]}),
        "equations only": lambda: [state.pop(k) for k in list(state) if ".surrogate." in k],
        "no state": lambda: [state.pop(k) for k in list(state) if k.endswith("_extra_state")],
    }
    kinds[rng.choice(sorted(kinds))]()
    return state


@pytest.mark.filterwarnings("ignore:Casting complex values", "ignore:for .*copying from a non-meta")
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("strict", [True, False])
def test_after_an_exception_the_wrappers_are_as_they_were(
    saved: dict[str, Tensor], made: Net, strict: bool, assign: bool
) -> None:
    refused, model = 0, copy.deepcopy(made)
    check = remember(model)
    for seed in range(40):
        try:
            model.load_state_dict(mutate(saved, seed), strict=strict, assign=assign)
        except (RuntimeError, st.SymTorchError, AttributeError):
            refused += 1
            check()
        else:
            for block in (model.one, model.two):
                if block.surrogate is not None:  # whatever torch let pass, the equations are whole
                    assert bool(torch.isfinite(block.surrogate(X)).all())
            model = copy.deepcopy(made)
            check = remember(model)
    assert refused > (25 if strict else 5)


FAULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an error before": lambda state: state.update({"first.weight": torch.ones(1)}),
    "an error after": lambda state: state.update({"last.weight": torch.ones(1)}),
    "a key that is missing after": lambda state: state.pop("last.bias"),
    "a key too many": lambda state: state.update({"more": torch.ones(1)}),
    "the other wrapper": lambda state: state.update({"two._extra_state": state["two._extra_state"][:-9]}),
}


@pytest.mark.parametrize("looked_at", ["forward", "state_dict", "parameters", "copy", "move", "mode"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_elsewhere_in_the_model_takes_the_wrapper_back(
    saved: dict[str, Tensor], model: Net, fault: str, looked_at: str
) -> None:
    state: dict[str, Any] = dict(saved)
    FAULTS[fault](state)
    one = model.one
    surrogate = one.surrogate
    kept = [p.detach().clone() for p in one.parameters()]
    output, weight = one(X).detach(), one.block[0].weight.detach().clone()
    with pytest.raises((RuntimeError, st.FileFormatError)):
        model.load_state_dict(state)
    if looked_at == "forward":
        assert torch.equal(one(X), output)
    elif looked_at == "state_dict":
        assert torch.equal(one.state_dict()["block.0.weight"], weight)
        assert torch.equal(model.state_dict()["one.block.0.weight"], weight)
    elif looked_at == "parameters":
        assert all(torch.equal(p, k) for p, k in zip(one.parameters(), kept, strict=True))
    elif looked_at == "copy":
        assert torch.equal(copy.deepcopy(model).one(X), output)
    elif looked_at == "move":
        assert torch.equal(model.double().one.block[0].weight, weight.double())
    else:
        assert one.surrogate is surrogate


def test_a_failed_load_neither_frees_a_block_nor_brings_one_back(model: Net) -> None:
    released = make(1, release=True).state_dict()
    live = model.one.block
    with pytest.raises(RuntimeError, match="more"):
        model.load_state_dict({**released, "more": torch.ones(1)})
    assert not model.one.released
    assert model.one.block is live
    assert torch.equal(model.one.switch_to_block()(X), live(X))
    model.load_state_dict(released)
    assert model.one.released
    assert model(X).shape == (40, 1)


@pytest.mark.parametrize("lost", ["one.surrogate.constants", "one.surrogate.reduction.down.weight"])
def test_equations_without_their_numbers_are_refused_however_lenient(
    saved: dict[str, Tensor], model: Net, lost: str
) -> None:
    state = dict(saved)
    del state[lost]
    check = remember(model)
    with pytest.raises(st.FileFormatError, match=f"not whole.*{lost} is missing"):
        model.load_state_dict(state, strict=False)
    check()


def test_a_released_block_that_equations_do_not_replace_is_refused() -> None:
    model = Net(1).eval()
    block = st.wrap(model, "two")
    block.prune_outputs(torch.tensor([True, False]))
    block.distill(X, parent=model, regressor=ScriptedRegressor(equations=("x0",)), progress=False)
    state = block.switch_to_symbolic(release_block=True).state_dict()
    del state["output_mask"]  # without it, an output has neither an equation nor a block
    fresh = st.SymbolicModel(nn.Linear(3, 2))
    with pytest.raises(st.FileFormatError, match="released.*equations do not compute all"):
        fresh.load_state_dict(state, strict=False)
    assert not fresh.released
    assert fresh(X).shape == (40, 2)


@pytest.mark.parametrize("strict", [True, False])
def test_a_block_that_was_freed_here_cannot_come_back(model: Net, strict: bool) -> None:
    state = Net(1).eval()
    st.wrap(state, "one")  # saved in block mode
    model.one.switch_to_symbolic(release_block=True)
    check = remember(model)
    saved = {key: value for key, value in state.state_dict().items() if key.startswith("one.")}
    with pytest.raises(st.FileFormatError, match="released, here.*build the model again"):
        model.load_state_dict(saved, strict=strict)
    check()


@pytest.mark.parametrize("mask", [[True], [True, True, False], [False, False], [2.0, 0.0], [[True, False]]])
def test_a_mask_that_is_none_of_this_block_is_refused(
    saved: dict[str, Tensor], model: Net, mask: list[Any]
) -> None:
    check = remember(model)
    with pytest.raises(st.FileFormatError, match="mask of"):
        model.load_state_dict({**saved, "two.output_mask": torch.tensor(mask)})
    check()


def test_parts_of_a_plain_block_load_if_torch_need_not_be_strict(model: Net) -> None:
    part = {"one.0.weight": torch.ones(4, 3), "first.bias": torch.zeros(3)}
    expected = model.one(X).detach()
    keys = model.load_state_dict(part, strict=False)
    assert "one.block.0.bias" in keys.missing_keys
    assert torch.equal(model.one.block[0].weight, torch.ones(4, 3))
    assert torch.equal(model.one(X), expected)  # the equations stay
    with pytest.raises(RuntimeError, match=r"Missing.*one\.block\.0\.bias"):
        model.load_state_dict({**part, "one.0.weight": torch.zeros(4, 3)})
    assert torch.equal(model.one.block[0].weight, torch.ones(4, 3))


def test_an_own_extra_state_of_the_block_goes_back_too() -> None:
    class Counting(nn.Linear):
        count = 0

        def get_extra_state(self) -> dict[str, int]:
            return {"count": self.count}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    model = nn.Sequential(st.SymbolicModel(Counting(2, 2)), nn.Linear(2, 2))
    state = {**model.state_dict(), "0.block._extra_state": {"count": 7}}
    with pytest.raises(RuntimeError):
        model.load_state_dict({**state, "more": torch.ones(1)})
    assert model.state_dict()["0.block._extra_state"] == {"count": 0}
    model.load_state_dict(state)
    assert model[0].block.count == 7


def test_wrappers_inside_wrappers_go_back_together() -> None:
    def nested(seed: int, equation: str) -> Net:
        model = Net(seed).eval()
        for path in ("one.2", "one"):
            block = st.wrap(model, path)
            block.distill(X, parent=model, regressor=ScriptedRegressor(equations=(equation,)), progress=False)
            block.switch_to_symbolic()
        return model

    model, state = nested(1, "x0"), nested(2, "x1").state_dict()
    before, outputs = copy.deepcopy(model.state_dict()), model(X).detach()
    with pytest.raises(RuntimeError):
        model.load_state_dict({**state, "last.bias": torch.ones(7)})
    now = model.state_dict()
    assert all(torch.equal(now[key], before[key]) for key in before if key.startswith("one."))
    model.load_state_dict(before)
    assert torch.equal(model(X), outputs)


def test_a_loaded_model_compiles_whole_and_trains_on(saved: dict[str, Tensor], model: Net) -> None:
    optimizer = torch.optim.SGD(model.one.block.parameters(), lr=0.1)
    model.load_state_dict(saved)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X), model(X))
    with model.one.running("block"), model.two.running("block"):
        torch.testing.assert_close(compiled(X), model(X))
        compiled(X).sum().backward()
    before = model.one.block[0].weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model.one.block[0].weight, before)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
