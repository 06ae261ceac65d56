"""Whatever fails or is stopped after the search, what the search found is returned."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.events import (
    Event,
    OutputFinished,
    OutputProgressed,
    StageAdvanced,
    StageFinished,
    StageStarted,
)
from symtorch_core.testing.scripted import ScriptedRegressor

EQUATIONS = ("2.0*x0", "2.0*x0 + 3.0*x1")


def rows(n: int = 200) -> Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(0))


class Law(nn.Module):
    """y = 2 x0 + 3 x1; fails, or is stopped by the user, when no calls are left."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        super().__init__()
        self.error, self.left = error, 10**9

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.error is not None and self.left < 0:
            raise self.error("odd")
        return x @ torch.tensor([[2.0], [3.0]])


def distill(block: Any, data: Any = None, **options: Any) -> st.Distillation:
    options = {"regressor": ScriptedRegressor(equations=EQUATIONS), "progress": False, **options}
    return st.distill(block, data, **options)


def is_exact(result: st.Distillation) -> bool:
    return bool(torch.allclose(result.surrogate()(rows()), Law()(rows()), atol=1e-5))


def raise_at(wanted: Callable[[Event], bool], error: BaseException) -> Callable[[Event], None]:
    def react(event: Event) -> None:
        if wanted(event):
            raise error

    return react


def is_stage(kind: type[StageStarted | StageFinished], stage: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, kind) and event.stage == stage


KINDS = (StageStarted, StageAdvanced, StageFinished, OutputProgressed, OutputFinished)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_callback_that_fails_changes_nothing(kind: type[Event]) -> None:
    seen: list[Event] = []
    callbacks = [raise_at(lambda event: isinstance(event, kind), ValueError("odd")), seen.append]
    with pytest.warns(
        RuntimeWarning, match=rf"the callback react failed on {kind.__name__} \(ValueError\('odd'\)\)"
    ):
        result = distill(Law(), rows(), callbacks=callbacks)
    assert not result.interrupted
    assert result.fronts == distill(Law(), rows()).fronts
    assert any(isinstance(event, kind) for event in seen)  # the others are called all the same


@pytest.mark.parametrize(
    ("kind", "stage", "measured"),
    [(StageFinished, "regress", True), (StageStarted, "verify", False), (StageFinished, "verify", True)],
)
def test_ctrl_c_after_the_search_returns_its_equations(
    kind: type[StageStarted | StageFinished], stage: str, measured: bool
) -> None:
    stop = raise_at(is_stage(kind, stage), KeyboardInterrupt())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = distill(Law(), rows(), callbacks=[stop])
    assert result.interrupted
    assert is_exact(result)
    assert (result.fidelity[0].train is not None) is measured


@pytest.mark.parametrize("calls", range(6))
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_a_block_that_fails_while_it_is_measured(error: type[BaseException], calls: int) -> None:
    block = Law(error)

    def begin(event: Event) -> None:
        if is_stage(StageStarted, "verify")(event):
            block.left = calls

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = distill(block, rows(), parent=nn.Sequential(block), callbacks=[begin])
    assert is_exact(result)
    assert result.interrupted == (error is KeyboardInterrupt and block.left < 0)
    assert not block._forward_hooks


def test_a_measure_that_fails_is_named() -> None:
    held_out = 40

    def loss(residual: Tensor) -> Tensor:
        if len(residual) == held_out:
            raise ValueError("odd")
        return residual.square()

    with pytest.warns(RuntimeWarning, match="the held-out losses could not be measured \\(odd\\)"):
        result = distill(
            (rows(), Law()(rows())), loss=loss, select="validation", test_fraction=held_out / 200
        )
    assert is_exact(result)
    assert result.select == "knee"  # the rule that needs no held-out losses
    assert result.fidelity[0].held_out is not None


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 2])
def test_a_metric_that_fails_leaves_the_equations(inside: bool, error: BaseException, call: int) -> None:
    model = nn.Sequential(Law())
    block = st.wrap(model, "0")
    calls = []

    def metric(_: Any) -> float:
        calls.append(block.mode)
        if len(calls) == call:
            raise error
        return 1.0

    options = {"regressor": ScriptedRegressor(equations=EQUATIONS), "progress": False}
    with pytest.warns(RuntimeWarning, match="the equations of 0 are found, but not all is measured"):
        result = block.distill(rows(), parent=model if inside else None, metric=metric, **options)
    assert is_exact(result)
    assert result.task_metric is None
    assert result.interrupted is isinstance(error, KeyboardInterrupt)
    assert block.mode == "block"
    assert block.distillation is result
    block.switch_to_symbolic()
    assert torch.allclose(model(rows()), Law()(rows()), atol=1e-5)


def test_a_metric_that_gives_no_number_leaves_the_equations() -> None:
    block = st.SymbolicModel(Law())
    with pytest.warns(RuntimeWarning, match="not all is measured"):
        result = block.distill(
            rows(), metric=lambda _: "good", regressor=ScriptedRegressor(equations=EQUATIONS), progress=False
        )
    assert is_exact(result)


def test_a_model_that_could_not_be_inspected_is_switched_with_a_warning() -> None:
    class Once(nn.Module):
        """A model that can be run a few times only, as one whose data are a stream."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.left = Law(), 10**9

        def forward(self, x: Tensor) -> Tensor:
            self.left -= 1
            if self.left < 0:
                raise OSError("the stream is over")
            return self.inner(x)

    model = Once()
    block = st.wrap(model, "inner")

    def end(event: Event) -> None:
        if is_stage(StageFinished, "verify")(event):
            model.left = 0

    options = {"regressor": ScriptedRegressor(equations=EQUATIONS), "progress": False}
    with pytest.warns(RuntimeWarning, match="not all is measured.*the stream is over"):
        result = block.distill(rows(), parent=model, callbacks=[end], **options)
    assert is_exact(result)
    with pytest.warns(RuntimeWarning, match="it is unknown whether its model needs more"):
        block.switch_to_symbolic()
    assert block.mode == "symbolic"
