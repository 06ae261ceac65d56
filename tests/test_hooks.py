"""Hooks around a block: what runs on equations is what was fitted, and hooks go on running."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.testing import ScriptedRegressor

MIDDLE, WIDTH = torch.tensor([3.0, -2.0]), torch.tensor([10.0, 0.1])
X = MIDDLE + WIDTH * torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
SCRIPTED = ScriptedRegressor(("1.5*x0 + 2.5*x1 + 0.7",))


def scale(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return ((args[0] - MIDDLE) / WIDTH,)


class Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.core(x)
        return y


def distill(model: Parent) -> tuple[st.SymbolicModel, st.Distillation]:
    block = st.wrap(model, "core")
    return block, block.distill(X, parent=model, regressor=SCRIPTED, progress=False)


def measure_r2(found: Tensor, wanted: Tensor) -> float:
    return 1 - float((found - wanted).square().sum() / (wanted - wanted.mean()).square().sum())


def test_a_pre_hook_that_changes_the_arguments_is_part_of_the_block() -> None:
    model = Parent()
    model.core.register_forward_pre_hook(scale)
    before = model(X).detach()
    block, result = distill(model)
    assert result.train is not None
    assert float(result.train.inputs[:, 0].mean()) == pytest.approx(3.0, abs=2.0)  # what the wrapper is given
    assert result.fidelity[0].held_out is not None
    assert result.fidelity[0].held_out.r2 > 0.999999
    assert result.fidelity[0].out_of_range is not None  # the block can be asked, hook included
    block.switch_to_symbolic(select="accuracy")
    assert measure_r2(model(X), before) > 0.999999


@pytest.mark.parametrize("with_kwargs", [False, True])
def test_a_post_hook_that_changes_the_output_is_part_of_the_block(with_kwargs: bool) -> None:
    model = Parent()

    def double(module: nn.Module, *call: Any) -> Tensor:
        result: Tensor = 2 * call[-1]
        return result

    model.core.register_forward_hook(double, with_kwargs=with_kwargs)
    before = model(X).detach()
    block, result = distill(model)
    block.switch_to_symbolic(select="accuracy")
    assert measure_r2(model(X), before) > 0.999999
    torch.testing.assert_close(result.surrogate("accuracy")(X), before, rtol=1e-3, atol=1e-3)


def test_hooks_that_only_look_go_on_looking() -> None:
    model = Parent()
    seen: list[str] = []
    model.core.register_forward_pre_hook(lambda m, args: seen.append("before"))
    model.core.register_forward_pre_hook(lambda m, args, kwargs: seen.append("keywords"), with_kwargs=True)
    model.core.register_forward_hook(lambda m, args, y: seen.append(f"after {tuple(y.shape)}"))
    block, _ = distill(model)
    block.switch_to_symbolic()
    seen.clear()
    model(X[:5])
    assert seen == ["before", "keywords", "after (5, 1)"]


def test_hooks_are_given_what_the_block_gives_them() -> None:
    class Core(nn.Module):
        def forward(self, x: Tensor, *, scale: float) -> Tensor:
            return scale * x[:, :1]

    class Calling(Parent):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.core(x, scale=2.0)
            return y

    model = Calling()
    model.core = core = Core()
    seen: list[tuple[Any, ...]] = []
    core.register_forward_pre_hook(lambda *given: seen.append(("pre", *given)))
    core.register_forward_pre_hook(lambda *given: seen.append(("pre", *given)), with_kwargs=True)
    core.register_forward_hook(lambda *given: seen.append(("post", *given)))
    core.register_forward_hook(lambda *given: seen.append(("post", *given)), with_kwargs=True)
    block, _ = distill(model)
    block.switch_to_symbolic()
    for mode in ("block", "symbolic"):
        with block.running(mode):
            seen.clear()
            y = model(X)
        assert seen[:2] == [("pre", core, (X,)), ("pre", core, (X,), {"scale": 2.0})]
        assert seen[2][:-1] == ("post", core, (X,))
        assert seen[3][:-1] == ("post", core, (X,), {"scale": 2.0})
        assert torch.equal(seen[2][-1], y)
        assert torch.equal(seen[3][-1], y)


def test_post_hooks_that_come_later_build_on_one_another() -> None:
    model = Parent()
    model.core.register_forward_hook(lambda m, args, y: 10 * y)  # is in the equations
    block, _ = distill(model)
    block.switch_to_symbolic()
    plain = model(X)
    block.block.register_forward_hook(lambda m, args, y: y + 1)
    block.block.register_forward_hook(lambda m, args, kwargs, y: 2 * y, with_kwargs=True)
    assert torch.equal(model(X), 2 * (plain + 1))


def test_a_post_hook_that_comes_later_changes_the_equations_output() -> None:
    model = Parent()
    block, _ = distill(model)
    block.switch_to_symbolic()
    plain = model(X)
    handle = block.block.register_forward_hook(lambda m, args, y: y + 1)
    assert torch.equal(model(X), plain + 1)
    handle.remove()
    assert torch.equal(model(X), plain)


def test_a_pre_hook_that_comes_later_and_changes_arguments_is_refused() -> None:
    model = Parent()
    block, _ = distill(model)
    block.switch_to_symbolic()
    for with_kwargs, hook in ((False, scale), (True, lambda m, args, kwargs: (scale(m, args), kwargs))):
        handle = block.block.register_forward_pre_hook(hook, with_kwargs=with_kwargs)
        with pytest.raises(st.SwitchError, match="distill again, or remove the hook"):
            model(X)
        handle.remove()
    block.block.register_forward_pre_hook(scale)
    block.switch_to_block()
    assert model(X).shape == (300, 1)


def test_what_cannot_be_kept_is_said() -> None:
    model = Parent()
    model.core.register_forward_hook(lambda m, args, y: None)
    model.core.register_full_backward_hook(lambda m, given, taken: None)
    block, _ = distill(model)
    with pytest.warns(RuntimeWarning, match="without its forward hooks.*and without its backward hooks"):
        block.switch_to_symbolic(release_block=True)
    assert model(X).shape == (300, 1)


def test_hooks_are_known_again_after_loading() -> None:
    model = Parent()
    model.core.register_forward_pre_hook(scale)
    block, _ = distill(model)
    block.switch_to_symbolic(select="accuracy")
    fresh = Parent()
    fresh.core.register_forward_pre_hook(scale)
    st.wrap(fresh, "core")
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(X), model(X))


def test_some_outputs_stay_neural_beside_hooks() -> None:
    model = Parent()
    model.core = nn.Linear(2, 2)
    model.core.register_forward_pre_hook(scale)
    calls: list[int] = []
    model.core.register_forward_hook(lambda m, args, y: calls.append(1))
    before = model(X).detach()
    block, _ = distill(model)
    block.switch_to_symbolic(select="accuracy", outputs=[1])
    calls.clear()
    after = model(X)
    assert calls == [1]
    assert torch.equal(after[:, 0], before[:, 0])
    assert measure_r2(after[:, 1].detach(), before[:, 1]) > 0.999999


def test_compiles_with_a_hook_that_changes_the_output() -> None:
    model = Parent()
    block, _ = distill(model)
    block.switch_to_symbolic()
    block.block.register_forward_hook(lambda m, args, y: 3 * y)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X), model(X))
