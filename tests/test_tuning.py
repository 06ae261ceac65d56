"""Fine-tuning of equations that run in a model: better numbers, the same equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.events.records import Event, StageAdvanced, StageStarted
from symtorch_core.expressions import to_text
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_pca.reducer import PCAReducer

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(400, 2, generator=GENERATOR) * 2 - 1


class Block(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([2 * torch.sin(3 * x[..., 0]), x[..., 1].square() + 1e-3], dim=-1)


def switched(equations: tuple[str, ...] = ("1.7*sin(2.8*x0)",), **options: Any) -> st.SymbolicModel:
    """A block on equations whose constants are a little off."""
    block = st.SymbolicModel(Block(), name="block")
    settings: dict[str, Any] = {
        "refine": False,
        "select": "accuracy",
        "outputs": [0],
        "progress": False,
        **options,
    }
    block.distill(X, regressor=ScriptedRegressor(equations=equations), **settings)
    return block.switch_to_symbolic()


def test_constants_move_to_where_the_block_is_met() -> None:
    block = switched()
    result = block.refine(X, epochs=80, batch_size=32, patience=40, progress=False)
    assert result.before > 0.01
    assert result.after < 1e-6
    assert result.improvement > 0.999
    assert not result.interrupted
    assert to_text(block.surrogate.expressions()[0], digits=4) == "2*sin(3*x0)"
    assert "sin" in str(block.equations()["y0"])
    assert block.mode == "symbolic"
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert "->" in str(result)


def test_constants_of_very_different_size_all_move() -> None:
    block = switched(("0.9*x1*x1 + 0.0005",), outputs=[1])
    block.refine(X, epochs=100, batch_size=32, patience=50, progress=False)
    values = sorted(float(value) for value in block.surrogate.constants)
    assert values[1] == pytest.approx(1.0, abs=1e-3)


def test_the_structure_and_the_fronts_stay() -> None:
    block = switched()
    front = block.front()
    structure = block.surrogate.structure()
    block.refine(X, epochs=2, progress=False)
    assert block.surrogate.structure() == structure
    assert block.front() == front


def test_perfect_equations_are_left_alone() -> None:
    block = switched(("2.0*sin(3.0*x0)",))
    before = block.surrogate.constants.clone()
    result = block.refine(X, epochs=5, progress=False)
    assert result.after <= result.before
    torch.testing.assert_close(block.surrogate.constants, before, rtol=1e-3, atol=0)


def test_same_seed_same_constants() -> None:
    first, second = switched(), switched()
    for block in (first, second):
        block.refine(X, epochs=3, seed=4, progress=False)
    assert torch.equal(first.surrogate.constants, second.surrogate.constants)


def test_maps_are_tuned_only_when_asked() -> None:
    def reduced() -> st.SymbolicModel:
        return switched(
            ("1.0*sin(2.0*z0) + 0.1", "0.5*z1 + 0.2"),
            outputs=None,
            reducer=PCAReducer(k_in=2, k_out=1),
        )

    plain, tuned = reduced(), reduced()
    maps = plain.surrogate.reduction.down.weight.clone()
    without = plain.refine(X, epochs=30, progress=False)
    assert torch.equal(plain.surrogate.reduction.down.weight, maps)
    with_maps = tuned.refine(X, epochs=30, maps=True, progress=False)
    assert not torch.equal(tuned.surrogate.reduction.down.weight, maps)
    assert with_maps.after < 0.9 * without.after
    # The distillation keeps the maps of the search.
    assert torch.equal(tuned.distillation.reduction.down.weight, maps)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()
        self.head = nn.Linear(2, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.second(self.first(x) / 2)))


def divergence(new: Tensor, old: Tensor) -> Tensor:
    return nn.functional.kl_div(new.log_softmax(-1), old.softmax(-1), reduction="batchmean")


def test_two_blocks_under_a_loss_of_the_whole_model() -> None:
    torch.manual_seed(0)
    model = Model()
    blocks = [st.wrap(model, "first"), st.wrap(model, "second")]
    for block in blocks:
        block.distill(
            X,
            parent=model,
            regressor=ScriptedRegressor(equations=("1.7*sin(2.8*x0)", "0.8*x1*x1 + 0.1")),
            refine=False,
            select="accuracy",
            progress=False,
        )
        block.switch_to_symbolic()
    weights = model.head.weight.clone()
    result = st.refine(blocks, X, parent=model, loss=divergence, batch_size=50, epochs=40, progress=False)
    assert result.after < 0.2 * result.before
    assert [block.mode for block in blocks] == ["symbolic", "symbolic"]
    assert torch.equal(model.head.weight, weights)
    assert model.head.weight.grad is None
    assert model.training


def test_a_released_block_needs_a_loss_and_gets_no_reference() -> None:
    block = switched(outputs=None, equations=("1.7*sin(2.8*x0)", "0.8*x1*x1 + 0.1"))
    block.switch_to_symbolic(release_block=True)
    with pytest.raises(st.SwitchError, match="no block to compare with"):
        block.refine(X)

    def loss(new: Tensor, old: Tensor | None) -> Tensor:
        assert old is None
        return (new[:, 0] - 2 * torch.sin(3 * X[:50, 0])).square().mean()

    assert block.refine([X[:50]] * 8, loss=loss, epochs=60, patience=30, progress=False).after < 1e-4


def test_it_stops_early_and_can_be_interrupted() -> None:
    block = switched(("2.0*sin(3.0*x0)",))
    assert block.refine(X, epochs=500, patience=2, progress=False).epochs < 100

    def stop(event: Event) -> None:
        if isinstance(event, StageAdvanced) and event.stage == "refine":
            raise KeyboardInterrupt

    block = switched()
    result = block.refine(X, epochs=500, callbacks=[stop], progress=False)
    assert result.interrupted
    assert result.after < result.before


@pytest.mark.parametrize("learning_rate", [1.0, 30.0])
def test_steps_that_are_far_too_long_leave_the_best_constants(learning_rate: float) -> None:
    block = switched()
    wanted = Block()(X)[:, 0]

    def measure() -> float:
        return float((block(X)[:, 0] - wanted).square().mean())

    start = measure()
    result = block.refine(X, epochs=5, learning_rate=learning_rate, test_fraction=0.5, progress=False)
    assert result.after <= result.before
    assert measure() <= 1.2 * start  # on all rows, not only those held out


def test_progress_is_told() -> None:
    told: list[Event] = []
    switched().refine(X, epochs=3, callbacks=[told.append], progress=False)
    assert StageStarted("refine", 3) in told
    assert told.count(StageAdvanced("refine")) == 3


def test_what_cannot_be_refined() -> None:
    block = switched()
    block.switch_to_block()
    with pytest.raises(st.SwitchError, match="switch_to_symbolic"):
        block.refine(X)
    for options, error, message in (
        ({"epochs": 0}, st.SwitchError, "epochs must be at least 1"),
        ({"loss": lambda new, old: new}, st.CaptureError, "one number"),
        ({"loss": divergence, "max_rows": 5}, st.CaptureError, "nothing is captured"),
        ({"batch_size": 10_000}, st.CaptureError, "single batch"),
    ):
        with pytest.raises(error, match=message):
            switched().refine(X, progress=False, **options)
    with pytest.raises(st.SwitchError, match="no constants"):
        switched(("sin(x0)",)).refine(X, progress=False)
    with pytest.raises(st.SwitchError, match="several blocks"):
        st.refine([switched(), switched()], X, progress=False)
    with pytest.raises(st.SwitchError, match="at least one"):
        st.refine([], X, progress=False)
