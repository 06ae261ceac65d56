"""Pruning: the schedule, the mask, the ranking, and what a pruned block does afterwards."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st_
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.model.pruning import count_active_outputs
from symtorch_core.model.ranking import measure_principal_share
from symtorch_core.testing.scripted import ScriptedRegressor

SCALES = torch.tensor([0.1, 5.0, 1.0, 3.0, 0.5, 2.0])
X = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """Six outputs of different spread; in that order 1, 3, 5, 2, 4, 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x * SCALES.to(x)


def pruned(target: int = 2, block: nn.Module | None = None, **options: Any) -> st.SymbolicModel:
    wrapped = st.SymbolicModel(block or Scaled(), name="scaled")
    pruner = st.OutputPruner(wrapped, target_dim=target, total_steps=10, **options)
    for _ in range(10):
        pruner.step(X)
    assert pruner.done
    return wrapped


@given(
    outputs=st_.integers(1, 300),
    target=st_.integers(1, 300),
    total=st_.integers(1, 500),
    schedule=st_.sampled_from(["cosine", "exponential", "linear"]),
    end=st_.floats(0.01, 1.0),
)
def test_the_schedule_falls_from_all_to_exactly_the_target(
    outputs: int, target: int, total: int, schedule: str, end: float
) -> None:
    target = min(target, outputs)
    path = [count_active_outputs(step, outputs, target, total, schedule, end) for step in range(total + 1)]
    assert path[0] == outputs
    assert path[-1] == target
    assert path == sorted(path, reverse=True)
    reached = next(step for step, active in enumerate(path) if active == target) if outputs > target else 0
    assert reached <= max(1, end * total + 1)


@pytest.mark.parametrize(
    ("schedule", "half"), [("cosine", 17), ("exponential", 8), ("linear", 17)]
)  # the mean of 32 and 2, or the mean of their logarithms
def test_half_way_down_the_schedules(schedule: str, half: int) -> None:
    assert [count_active_outputs(step, 32, 2, 100, schedule, 0.5) for step in (0, 25, 50)] == [32, half, 2]
    assert [count_active_outputs(step, 32, 2, 100) for step in (64, 65)] == [3, 2]


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "linear"])
def test_a_pruner_follows_its_schedule(schedule: Any) -> None:
    pruner = st.OutputPruner(st.SymbolicModel(Scaled()), 2, 10, schedule, 0.9)
    assert pruner.active is None
    for step in range(1, 11):
        assert not pruner.done
        pruner.step(X)
        assert pruner.active == count_active_outputs(step, 6, 2, 10, schedule, 0.9)
        if step == 9:
            break
    assert pruner.done
    assert pruner.steps_taken == 9


def test_the_least_important_go_first_and_are_exactly_zero() -> None:
    block = pruned()
    assert block.pruned_outputs == (0, 2, 4, 5)
    y = block(X)
    assert torch.equal(y[:, [0, 2, 4, 5]], torch.zeros(200, 4))
    assert torch.equal(y[:, [1, 3]], (X * SCALES)[:, [1, 3]])


def test_even_what_is_not_finite_is_zero() -> None:
    class Infinite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x.sum(-1, keepdim=True) / 0.0], dim=-1)

    block = st.SymbolicModel(Infinite())
    block.prune_outputs(torch.tensor([True] * 6 + [False]))
    assert torch.equal(block(X)[:, 6], torch.zeros(200))


def test_once_pruned_always_pruned() -> None:
    block = st.SymbolicModel(Scaled())
    pruner = st.OutputPruner(block, 1, 20, "linear", 1.0)
    before: set[int] = set()
    for step in range(20):
        # The ranking turns around half-way; what is gone stays gone.
        pruner.step(X if step < 10 else X / SCALES.square())
        assert before <= set(block.pruned_outputs)
        before = set(block.pruned_outputs)
    with pytest.raises(st.SwitchError, match="stays pruned"):
        block.prune_outputs(torch.ones(6, dtype=torch.bool))
    with pytest.raises(st.SwitchError, match="no output"):
        block.prune_outputs(torch.zeros(6, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(200, 6), (4, 50, 6), (2, 2, 50, 6)])
def test_any_leading_shape(shape: tuple[int, ...]) -> None:
    block = st.SymbolicModel(Scaled())
    st.OutputPruner(block, 2, 1).step(X.reshape(shape))
    assert block.pruned_outputs == (0, 2, 4, 5)
    assert block(X.reshape(shape)).shape == shape


def test_samples_as_tuples_and_dicts() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
            return {"y": (a + b) * SCALES, "other": a}

    for sample in ((X, X), {"a": X, "b": X}):
        block = st.SymbolicModel(Two())
        st.OutputPruner(block, 2, 1).step(sample)
        result = block(X, X)
        assert torch.equal(result["other"], X)
        assert int((result["y"] != 0).any(0).sum()) == 2


@pytest.mark.parametrize(
    ("sample", "message"),
    [(X[:1], "too few to rank"), (X * torch.inf, "not finite"), (X[0], "too few to rank")],
)
def test_samples_that_cannot_be_ranked_are_refused_and_nothing_is_pruned(
    sample: Tensor, message: str
) -> None:
    block = st.SymbolicModel(Scaled())
    pruner = st.OutputPruner(block, 2, 1)
    with pytest.raises(st.CaptureError, match=message):
        pruner.step(sample)
    assert block.output_mask is None
    assert pruner.steps_taken == 0


def test_two_rows_are_enough_to_rank() -> None:
    block = st.SymbolicModel(Scaled())
    st.OutputPruner(block, 2, 1).step(torch.stack([torch.ones(6), torch.zeros(6)]))
    assert block.pruned_outputs == (0, 2, 4, 5)


def test_flags_dropout_and_batch_norm_are_left_alone() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    block = st.SymbolicModel(net)
    net[1].eval()
    mean, state = net[1].running_mean.clone(), torch.get_rng_state()
    st.OutputPruner(block, 2, 1).step(X)
    assert [module.training for module in net] == [True, False, True]
    assert torch.equal(net[1].running_mean, mean)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "cosin"}, "unknown schedule 'cosin'. Did you mean 'cosine'"),
        ({"target_dim": 0}, "at least 1"),
        ({"total_steps": 0}, "at least 1"),
        ({"end_fraction": 0.0}, "end_fraction must be more than 0"),
        ({"importance": "luck"}, "unknown importance 'luck': give 'std', 'pca', or a function"),
    ],
)
def test_settings_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(st.SearchError, match=message):
        st.OutputPruner(st.SymbolicModel(Scaled()), **{"target_dim": 2, "total_steps": 5, **options})


def test_what_cannot_be_pruned_or_ranked() -> None:
    block = st.SymbolicModel(Scaled())
    with pytest.raises(st.SearchError, match=r"a wrapped block, as of wrap\(\), not a Scaled"):
        st.OutputPruner(Scaled(), 2, 5)  # type: ignore[arg-type]
    with pytest.raises(st.SearchError, match=r"a wrapped block, as of wrap\(\), not a Scaled"):
        st.rank_outputs(Scaled(), X)  # type: ignore[arg-type]
    for sample in ([], {}, "x", None):
        with pytest.raises(st.CaptureError, match="sample must be an input of the block"):
            st.OutputPruner(block, 2, 5).step(sample)
    for active in ([True] * 6, torch.ones(6)):
        with pytest.raises(st.SwitchError, match="a tensor of True and False"):
            block.prune_outputs(active)  # type: ignore[arg-type]
    for options, message in (
        ({"parent": 3}, "parent must be the model that calls the block"),
        ({"loss": 3}, "loss must be a function from the model's result"),
        ({"max_rows": 0}, "max_rows must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(st.SearchError, match=message):
            st.rank_outputs(block, X, **options)
    with pytest.raises(st.CaptureError, match="never called: pass the model that calls it"):
        st.rank_outputs(block, X, "gradient", parent=nn.Identity(), loss=lambda y: y.sum())
    assert block.output_mask is None


def test_more_than_there_are_and_importances_of_the_wrong_shape() -> None:
    with pytest.raises(st.SearchError, match="has 6 outputs"):
        st.OutputPruner(st.SymbolicModel(Scaled()), 7, 5).step(X)
    with pytest.raises(st.CaptureError, match="6 finite numbers"):
        st.OutputPruner(st.SymbolicModel(Scaled()), 2, 1, importance=lambda y: y.mean()).step(X)
    block = st.SymbolicModel(Scaled())
    st.OutputPruner(block, 1, 1, importance=lambda y: -y.std(0)).step(X)
    assert block.pruned_outputs == (1, 2, 3, 4, 5)


def test_the_mask_moves_saves_loads_and_compiles(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    block = st.wrap(model, "0")
    st.OutputPruner(block, 2, 1).step(X)
    assert block.output_mask is not None
    assert nn.Sequential(block).to("meta")[0].output_mask.device.type == "meta"
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    block = st.wrap(model, "0")
    st.OutputPruner(block, 2, 1).step(X)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    fresh = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    other = st.wrap(fresh, "0")
    fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert other.pruned_outputs == block.pruned_outputs
    assert torch.equal(fresh(X), model(X))
    compiled = torch.compile(fresh, fullgraph=True, backend="eager")
    assert torch.equal(compiled(X), model(X))
    plain = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    fresh.load_state_dict(plain.state_dict())  # a checkpoint of the plain model keeps the mask that is here
    assert other.pruned_outputs == block.pruned_outputs
    unpruned = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    st.wrap(unpruned, "0")
    fresh.load_state_dict(unpruned.state_dict())
    assert other.pruned_outputs == ()


def test_distilling_searches_active_outputs_only_and_zeros_stay_zeros() -> None:
    block = pruned()
    result = block.distill(X, regressor=ScriptedRegressor(equations=("4.0*x1", "2.0*x3")), progress=False)
    assert result.outputs == (1, 3)
    assert result.output_names == ("y1", "y3")
    block.switch_to_symbolic()
    torch.testing.assert_close(block(X), X * SCALES * block.output_mask)
    block.switch_to_symbolic(outputs=[3])
    torch.testing.assert_close(block(X), X * SCALES * block.output_mask)
    block.switch_to_symbolic(release_block=True)
    torch.testing.assert_close(block(X), X * SCALES * block.output_mask)
    with pytest.raises(st.SwitchError, match="output 0 of scaled is pruned"):
        pruned().distill(X, regressor=ScriptedRegressor(equations=("x0",)), outputs=[0, 1], progress=False)


def test_outputs_distilled_before_pruning_are_zero_too() -> None:
    block = st.SymbolicModel(Scaled())
    block.distill(X, regressor=ScriptedRegressor(equations=tuple(f"x{i}" for i in range(6))), progress=False)
    st.OutputPruner(block, 2, 1).step(X)
    block.switch_to_symbolic()
    torch.testing.assert_close(block(X), X * SCALES * block.output_mask, rtol=1e-4, atol=1e-5)


def test_gradients_reach_active_outputs_only() -> None:
    linear = nn.Linear(6, 6)
    block = pruned(block=linear)
    block(X).sum().backward()
    rows = (linear.weight.grad != 0).any(1)
    assert torch.equal(rows, block.output_mask)


def test_rankings() -> None:
    block = st.SymbolicModel(Scaled())
    ranking = st.rank_outputs(block, X)
    assert ranking.order == (1, 3, 5, 2, 4, 0)
    torch.testing.assert_close(ranking.importance, (X * SCALES).double().std(0, correction=0))
    model = nn.Sequential(block)
    slopes = st.rank_outputs(block, X, "gradient", parent=model, loss=lambda y: y[:, 0].sum() + y[:, 4].sum())
    assert set(slopes.order[:2]) == {0, 4}
    assert slopes.importance[[1, 2, 3, 5]].abs().max() == 0
    torch.testing.assert_close(slopes.importance[0], (X[:, 0] * 0.1).double().abs().mean() / 1.0)
    assert st.rank_outputs(block, X, lambda y: -y.std(0)).order == (0, 4, 2, 5, 3, 1)
    assert st.rank_outputs(pruned(), X).order == (1, 3)
    with pytest.raises(st.SearchError, match="needs loss="):
        st.rank_outputs(block, X, "gradient")
    with pytest.raises(st.SearchError, match="unknown importance 'luck'"):
        st.rank_outputs(block, X, "luck")


@pytest.mark.parametrize("batch_size", [200, 64])
@pytest.mark.parametrize("linear", [False, True])
def test_slopes_are_averaged_over_all_rows_of_all_calls(batch_size: int, linear: bool) -> None:
    block = st.SymbolicModel(nn.Linear(6, 6, bias=False) if linear else Scaled())
    with torch.no_grad():
        once = block(X).double().abs().mean(0)

        class Twice(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                block(5 * x)  # of no consequence
                return block(x) + block(2 * x)

        found = st.rank_outputs(block, X, "gradient", loss=lambda y: y.sum(), batch_size=batch_size)
        torch.testing.assert_close(found.importance, once)
        found = st.rank_outputs(
            block, X, "gradient", parent=Twice(), loss=lambda y: 3 * y.sum(), batch_size=batch_size
        )
        torch.testing.assert_close(found.importance, 3 * (0 + 1 + 2) / 3 * once)
    assert all(parameter.grad is None for parameter in block.parameters())


@pytest.mark.parametrize("form", ["labels", "labels by name", "arrays"])
def test_samples_come_as_data_do(form: str) -> None:
    # What the block does not take is left out; arrays become tensors of the block's own type.
    data: Any = {
        "labels": (X, torch.zeros(200)),
        "labels by name": {"input": X, "label": torch.zeros(200)},
        "arrays": X.double().numpy(),
    }[form]
    torch.manual_seed(0)
    block, twin = (st.SymbolicModel(nn.Linear(6, 6)) for _ in range(2))
    twin.load_state_dict(block.state_dict())
    batches = data if form == "arrays" else [data]
    found = st.rank_outputs(block, batches, "gradient", loss=lambda y: y.square().sum())
    expected = st.rank_outputs(twin, X, "gradient", loss=lambda y: y.square().sum())
    torch.testing.assert_close(found.importance, expected.importance)
    st.OutputPruner(block, 2, 1).step(data)
    st.OutputPruner(twin, 2, 1).step(X)
    assert block.pruned_outputs == twin.pruned_outputs


def test_a_block_in_training_is_ranked_as_it_will_be_used() -> None:
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5)).train()
    block = st.SymbolicModel(net)
    net[0].running_mean.fill_(0.5)
    buffers = [buffer.clone() for buffer in net.buffers()]
    used = copy.deepcopy(net).eval()(X).detach()
    seen: list[Tensor] = []
    st.OutputPruner(block, 6, 1, importance=lambda y: seen.append(y) or y.std(0)).step(X)
    torch.testing.assert_close(seen[0], used)
    ranking = st.rank_outputs(block, X, "gradient", loss=lambda y: y.sum())
    torch.testing.assert_close(ranking.importance, used.double().abs().mean(0))
    assert all(torch.equal(*pair) for pair in zip(net.buffers(), buffers, strict=True))
    assert net[1].training


def test_a_sample_of_rows_ranks() -> None:
    def rank(seed: int) -> Tensor:
        return st.rank_outputs(st.SymbolicModel(Scaled()), X, summed, max_rows=50, seed=seed).importance

    def summed(outputs: Tensor) -> Tensor:
        assert outputs.shape == (50, 6)
        return outputs.sum(0)

    assert torch.equal(rank(1), rank(1))
    assert not torch.equal(rank(1), rank(2))


def test_of_equals_the_first_columns_stay() -> None:
    block = st.SymbolicModel(Scaled())
    assert st.rank_outputs(block, X, lambda y: torch.ones(6)).order == (0, 1, 2, 3, 4, 5)
    st.OutputPruner(block, 2, 1, importance=lambda y: torch.ones(6)).step(X)
    assert block.pruned_outputs == (2, 3, 4, 5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_shares_in_the_principal_components(scale: float) -> None:
    # Without correlations, the columns are the components: of variance 4, 1 and 0.01, the first two explain 95 %.
    signs = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    outputs = scale * signs.double() * torch.tensor([2.0, 1.0, 0.1])
    expected = torch.tensor([4.0, 1.0, 0.0], dtype=torch.double) / 5.01
    torch.testing.assert_close(measure_principal_share(outputs), expected, rtol=1e-6, atol=1e-9)
    assert torch.equal(measure_principal_share(0 * outputs), torch.zeros(3, dtype=torch.double))
    block = st.SymbolicModel(nn.Identity())
    st.OutputPruner(block, 1, 1, importance="pca").step(outputs)
    assert block.pruned_outputs == (1, 2)


def test_principal_components_pass_over_noise_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(2000, 1, generator=generator) @ torch.ones(1, 8)
    noise = 1.2 * torch.randn(2000, 1, generator=generator)
    shares = measure_principal_share(torch.cat([signal, noise], dim=1) * torch.tensor([1.0] * 8 + [0.5]))
    assert int(shares.argmin()) == 8
    assert float(shares.sum()) <= 1.0


class Around(nn.Module):
    """A model that calls the block twice and changes what it returns in place."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.first, self.block = nn.Linear(6, 6), block

    def forward(self, x: Tensor, *, again: bool = True) -> Tensor:
        h = self.block(self.first(x)).mul_(0.0)
        return self.block(h + 1.0) if again else h


@pytest.mark.parametrize("symbolic", [False, True])
def test_a_hidden_block_is_ranked_on_what_its_model_gives_it(symbolic: bool) -> None:
    model = Around(Scaled()).train()
    block = st.wrap(model, "block")
    if symbolic:
        block.distill(X, regressor=ScriptedRegressor(equations=("x0",)), progress=False)
        block.switch_to_symbolic()
    with torch.no_grad():  # the spread of what goes in makes the last output the largest
        model.first.weight.copy_(torch.diag(torch.tensor([1.0, 0.01, 0.01, 0.01, 0.01, 9.0])))
    pruner = st.OutputPruner(block, target_dim=1, total_steps=1)
    pruner.step({"x": X, "again": False}, parent=model)
    assert block.output_mask.tolist() == [False] * 5 + [True]
    assert model.training
    assert not block.block._forward_hooks
    seen: list[Tensor] = []
    pruner = st.OutputPruner(
        st.SymbolicModel(block.block), 1, 1, importance=lambda rows: seen.append(rows) or rows.std(0)
    )
    pruner.step(X, parent=lambda x: (pruner.block(x), pruner.block(2 * x)))
    assert torch.equal(seen[0], torch.cat([X * SCALES, 2 * X * SCALES]))  # every call, before it is changed


def test_a_parent_that_does_not_call_the_block_prunes_nothing() -> None:
    block = st.SymbolicModel(Scaled(), name="hidden")
    pruner = st.OutputPruner(block, target_dim=1, total_steps=1)
    with pytest.raises(st.CaptureError, match="parent never called hidden"):
        pruner.step(X, parent=nn.Linear(6, 6))
    with pytest.raises(st.SearchError, match="parent must be the model"):
        pruner.step(X, parent=3)  # type: ignore[arg-type]
    assert (pruner.steps_taken, block.output_mask) == (0, None)


def test_a_training_continues_from_the_pruners_state() -> None:
    def make() -> tuple[st.SymbolicModel, st.OutputPruner]:
        block = st.SymbolicModel(Scaled())
        return block, st.OutputPruner(block, target_dim=2, total_steps=10, schedule="linear")

    (whole, through), (block, pruner), (again, continued) = make(), make(), make()
    for _ in range(10):
        through.step(X)
    for _ in range(4):
        pruner.step(X)
    file = io.BytesIO()
    torch.save({"block": block.state_dict(), "pruner": pruner.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again.load_state_dict(state["block"])
    continued.load_state_dict(state["pruner"])
    assert (continued.steps_taken, continued.active) == (4, pruner.active)
    active = []
    for _ in range(6):
        continued.step(X)
        pruner.step(X)
        active.append((continued.active, pruner.active))
    assert all(one == other for one, other in active)
    assert continued.done
    assert torch.equal(again.output_mask, whole.output_mask)


@pytest.mark.parametrize(
    "change",
    [
        {"steps_taken": -1},
        {"steps_taken": 2.5},
        {"target_dim": 0},
        {"schedule": "sudden"},
        {"end_fraction": 2.0},
        {"more": 1},
        None,
    ],
)
def test_a_damaged_state_of_a_pruner_changes_nothing(change: dict[str, Any] | None) -> None:
    pruner = st.OutputPruner(st.SymbolicModel(Scaled()), target_dim=2, total_steps=10)
    other = st.OutputPruner(pruner.block, target_dim=3, total_steps=7, schedule="linear").state_dict()
    before = pruner.state_dict()
    with pytest.raises(st.FileFormatError):
        pruner.load_state_dict(None if change is None else {**other, **change})  # type: ignore[arg-type]
    assert pruner.state_dict() == before
    pruner.load_state_dict(other)
    assert pruner.state_dict() == other
