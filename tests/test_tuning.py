"""Fine-tuning of equations that run in a model: better numbers, the same equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.events.records import Event, StageAdvanced, StageStarted
from symtorch_core.expressions import to_text
from symtorch_core.model.refinement import Refinement
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
    assert new.shape[1] == 3  # of the model, not of its block
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


def sine(x: Tensor, size: float, frequency: float) -> Tensor:
    return size * torch.sin(frequency * x[:, 0])


def split(seed: int, test_fraction: float, form: str = "tensor") -> tuple[set[int], set[int]]:
    """Refine on ten batches; return the numbers of those that were learnt from, and of those held out."""
    block = switched()
    parts = list(X.split(40))
    learnt: set[int] = set()
    held: set[int] = set()

    def loss(new: Tensor, old: Tensor) -> Tensor:
        (number,) = (i for i, part in enumerate(parts) if torch.equal(old[:, 0], Block()(part)[:, 0]))
        (learnt if new.requires_grad else held).add(number)
        return (new - old)[:, 0].square().mean()

    given: Any = {
        "tensor": X,
        "labels": [(part, torch.zeros(40)) for part in parts],
        "labels by name": [{"x": part, "label": torch.zeros(40)} for part in parts],
        "arrays": [part.numpy() for part in parts],
    }[form]
    result = block.refine(
        given,
        loss=loss,
        seed=seed,
        test_fraction=test_fraction,
        batch_size=40,
        epochs=2,
        patience=2,
        progress=False,
        targets="block" if form == "labels" else None,
    )
    size, frequency = block.surrogate.constants.tolist()
    for found, constants in ((result.before, (1.7, 2.8)), (result.after, (size, frequency))):
        errors = [float((sine(parts[i], *constants) - sine(parts[i], 2, 3)).square().mean()) for i in held]
        assert found == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert result.after < result.before
    return learnt, held


@pytest.mark.parametrize("form", ["tensor", "labels", "labels by name", "arrays"])
def test_held_out_batches_are_judged_and_never_learnt_from(form: str) -> None:
    learnt, held = split(0, 0.3, form)
    assert len(held) == 3
    assert learnt == set(range(10)) - held
    assert split(1, 0.3, form)[1] != held


def test_one_batch_at_least_is_held_out_and_one_is_not() -> None:
    assert [len(numbers) for numbers in split(0, 0.01)] == [9, 1]
    assert [len(numbers) for numbers in split(0, 0.99)] == [1, 9]


def test_a_step_moves_each_constant_by_the_rate_times_its_size() -> None:
    once: dict[str, Any] = {"epochs": 1, "batch_size": 200, "test_fraction": 0.5, "progress": False}
    block = switched()
    block.refine(X, learning_rate=0.02, **once)
    assert block.surrogate.constants.tolist() == pytest.approx([1.7 * 1.02, 2.8 * 1.02], rel=1e-5)
    # A constant next to nothing moves as if it were a hundredth of the largest.
    block = switched(("0.9*x1*x1 + 0.0005",), outputs=[1])
    block.refine(X, **once)
    assert block.surrogate.constants.tolist() == pytest.approx([0.9 * 1.01, 0.0005 + 0.01 * 0.009], rel=1e-4)
    # The entries of a map move by their common size.
    block = switched(("1.0*sin(2.0*z0) + 0.1",), outputs=None, reducer=PCAReducer(k_in=2, k_out=1))
    before = block.surrogate.reduction.down.weight.detach().clone()
    block.refine(X, maps=True, **once)
    moved = (block.surrogate.reduction.down.weight - before).abs()
    size = before.square().mean().sqrt()
    slower = before.shape[1] ** 0.5
    assert float(moved.max()) == pytest.approx(0.01 * float(size) / slower, rel=1e-3)


def test_a_rate_that_only_does_harm_changes_nothing() -> None:
    block = switched()
    before = block.surrogate.constants.clone()
    result = block.refine(X, learning_rate=30.0, epochs=3, batch_size=32, progress=False)
    assert result.after == result.before
    assert result.improvement == 0
    assert torch.equal(block.surrogate.constants, before)


def test_only_symbolic_outputs_count() -> None:
    block = switched(("1.0*x1*x1 + 0.0005",), outputs=[1, 0])
    block.switch_to_symbolic(outputs=[1])
    result = block.refine(X, epochs=1, batch_size=50, progress=False)
    assert result.before == pytest.approx(0.0005**2, rel=1e-2)


def test_the_input_that_was_distilled_is_captured_again() -> None:
    class Second(nn.Module):
        def forward(self, other: Tensor, x: Tensor) -> Tensor:
            return 2 * torch.sin(3 * x[..., :1]) + 0 * other[..., :1]

    block = st.SymbolicModel(Second())
    data = [(torch.ones(40, 3), part) for part in X.split(40)]
    block.distill(
        data,
        regressor=ScriptedRegressor(("1.7*sin(2.8*x0)",)),
        refine=False,
        capture_options={"select_input": 1},
        progress=False,
    )
    block.switch_to_symbolic(select="accuracy")
    assert block.refine(data, epochs=60, batch_size=32, patience=30, progress=False).after < 1e-4
    assert to_text(block.surrogate.expressions()[0], digits=2) == "2*sin(3*x0)"


def test_rows_are_captured_inside_the_model() -> None:
    class Narrowing(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x[:, 1:])
            return y

    block = switched()
    wide = torch.cat([torch.full((400, 1), 99.0), X], dim=1)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 40, "progress": False}
    inside = block.refine(wide, parent=Narrowing(block), **options)
    alone = switched().refine(X, **options)
    assert (inside.before, inside.after) == (alone.before, alone.after)


def test_constants_that_were_trainable_stay_so() -> None:
    for trainable in (True, False):
        block = switched().switch_to_symbolic(trainable=trainable)
        block.refine(X, epochs=1, progress=False)
        assert block.surrogate.constants.requires_grad == trainable
        assert block.surrogate.constants.grad is None


def test_a_result_says_what_was_gained() -> None:
    result = Refinement(before=4.0, after=1.0, epochs=3, interrupted=True, seconds=2.0)
    assert result.improvement == 0.75
    assert str(result) == "held-out loss 4 -> 1 (75.0% less) after 3 epochs in 2.0 s, interrupted"
    assert Refinement(0.0, 0.0, 1, False, 0.0).improvement == 0


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
        ({"patience": 0}, st.SwitchError, "patience must be at least 1"),
        ({"batch_size": 0}, st.SwitchError, "batch_size must be at least 1"),
        ({"max_rows": 0}, st.SwitchError, "max_rows must be at least 1"),
        ({"learning_rate": 0.0}, st.SwitchError, "learning_rate must be positive"),
        ({"test_fraction": 0.0}, st.SwitchError, "test_fraction must be"),
        ({"test_fraction": 1.0}, st.SwitchError, "test_fraction must be"),
        ({"seed": -1}, st.SwitchError, "seed"),
        ({"maps": 1}, st.SwitchError, "maps must be True or False"),
        ({"loss": 3}, st.SwitchError, "loss must be a function of the model's two results"),
        ({"parent": 3}, st.SwitchError, "parent must be the model that calls the blocks"),
        ({"callbacks": 3}, st.SwitchError, "callbacks"),
        ({"capture_options": 3}, st.SwitchError, "capture_options"),
        ({"max_rows": 32, "batch_size": 32}, st.CaptureError, "single batch"),
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
    with pytest.raises(st.SwitchError, match="wrapped blocks, as of wrap\\(\\), not a Block"):
        st.refine(Block(), X, progress=False)  # type: ignore[arg-type]


def test_constants_move_to_measurements() -> None:
    truth = torch.stack([1.9 * torch.sin(2.9 * X[:, 0]), X[:, 1].square()], dim=-1)
    for data in (
        (X, truth),
        (X.numpy(), truth.numpy()),
        list(zip(X.split(50), truth.split(50), strict=True)),
    ):
        block = switched()
        result = block.refine(data, targets="data", epochs=80, batch_size=32, patience=40, progress=False)
        assert result.after < 1e-6
        assert block.surrogate.constants.tolist() == pytest.approx([1.9, 2.9], rel=1e-3)


def test_measurements_of_a_model_reach_the_block_inside() -> None:
    block = switched(outputs=None, equations=("1.7*sin(2.8*x0)", "1.0*x1*x1 + 0.001"))
    head = nn.Linear(2, 1, bias=False)
    head.weight.data = torch.tensor([[2.0, 0.0]])
    model = nn.Sequential(block, head)
    target = 2 * 1.9 * torch.sin(2.9 * X[:, :1])
    options: dict[str, Any] = {"epochs": 80, "patience": 40, "batch_size": 32, "progress": False}
    block.refine((X, target), parent=model, targets="data", **options)
    assert block.surrogate.constants.tolist()[:2] == pytest.approx([1.9, 2.9], rel=1e-3)
    other = switched(outputs=None, equations=("1.7*sin(2.8*x0)", "1.0*x1*x1 + 0.001"))
    model[0] = other

    def loss(result: Tensor, y: Tensor) -> Tensor:
        return (result[:, 0] - y.float()).abs().mean()

    batches = list(zip(X.split(32), target[:, 0].double().split(32), strict=True))
    other.refine(batches, parent=model, loss=loss, targets="data", **options)
    assert other.surrogate.constants.tolist()[:2] == pytest.approx([1.9, 2.9], rel=1e-2)
    with pytest.raises(st.CaptureError, match=r"gives \(32, 1\), the targets have shape \(32,\)"):
        block.refine((X, target[:, 0]), parent=model, targets="data", batch_size=32, progress=False)


def test_a_released_block_is_refined_towards_measurements() -> None:
    block = switched(outputs=None, equations=("1.7*sin(2.8*x0)", "0.9*x1*x1 + 0.1"))
    block.switch_to_symbolic(release_block=True)
    Y = Block()(X)
    assert (
        block.refine((X, Y), targets="data", epochs=80, batch_size=32, patience=40, progress=False).after
        < 1e-4
    )


def test_targets_are_never_ignored_in_silence() -> None:
    Y = Block()(X)
    pairs = list(zip(X.split(50), Y.split(50), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=50)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 50, "progress": False}
    for data in ((X, Y), (X.numpy(), Y.numpy()), pairs, loader, iter(pairs)):
        block = switched()
        before = block.surrogate.constants.clone()
        with pytest.raises(st.CaptureError, match=r'nothing says what .* is for: give targets="data"'):
            block.refine(data, **options)
        assert torch.equal(block.surrogate.constants, before)
    with pytest.raises(st.CaptureError, match="nothing says"):
        switched().refine(pairs, loss=lambda new, old: (new - old).square().mean(), **options)
    plain = switched().refine(X, **options)
    for data in ((X, Y), pairs, loader):
        left_out = switched().refine(data, targets="block", **options)
        assert (left_out.before, left_out.after) == (plain.before, plain.after)


def test_a_batch_of_all_arguments_leaves_nothing_out() -> None:
    class Second(nn.Module):
        def forward(self, x: Tensor, other: Tensor) -> Tensor:
            return 2 * torch.sin(3 * x[..., :1]) + 0 * other[..., :1]

    block = st.SymbolicModel(Second())
    data = [(part, torch.ones(40, 3)) for part in X.split(40)]
    block.distill(
        data,
        regressor=ScriptedRegressor(("1.7*sin(2.8*x0)",)),
        refine=False,
        select="accuracy",
        capture_options={"select_input": 0},
        progress=False,
    )
    block.switch_to_symbolic()
    assert block.refine(data, epochs=60, batch_size=32, patience=30, progress=False).after < 1e-4


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (X, {}, "takes a pair"),
        ([X, X, X], {}, "takes a pair"),
        ((X, torch.zeros(400)), {}, "have 1 outputs, block has 2"),
        ((X[:, :1], torch.zeros(400, 2)), {}, "have 1 inputs, block has 2"),
        ((X, torch.zeros(300, 2)), {}, "rows"),
        ((X, torch.full((400, 2), torch.nan)), {}, "NaN"),
        ((X, torch.zeros(400, 2)), {"max_rows": 10}, "max_rows: .* nothing is captured"),
        ((X, torch.zeros(400, 2)), {"targets": "dta"}, "Did you mean 'data'"),
    ],
)
def test_data_that_are_no_measurements(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(st.SymTorchError, match=message):
        switched().refine(data, **{"targets": "data", "progress": False, **options})
