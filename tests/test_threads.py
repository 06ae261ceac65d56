"""Several threads on one model: captures take turns, forward passes see a switch whole, nothing stays changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.events import Event, StageAdvanced
from symtorch_core.testing.scripted import ScriptedRegressor

X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
SOON = 0.3
"""Seconds to wait for what must not happen."""
LONG = 60.0
"""Seconds to wait for what must happen."""


def make() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(3, 3), nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 2)
        )


def distill(block: st.SymbolicModel, data: Any, parent: nn.Module | None = None) -> st.Distillation:
    return block.distill(
        data,
        parent=parent,
        regressor=ScriptedRegressor(equations=("x0", "x0 + x1")),
        select="accuracy",
        progress=False,
    )


def in_thread(act: Callable[[], Any]) -> Any:
    """Return what a function gives in another thread, after which this one goes on."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result(LONG)


class Meeting:
    """Data for two captures, of which the first waits for the second to begin, and the second for the first to end."""

    def __init__(self) -> None:
        self.second_began, self.first_began, self.first_ended = (threading.Event() for _ in range(3))

    def first(self) -> Iterator[Tensor]:
        self.first_began.set()
        yield X[:32]
        self.second_began.wait(SOON)
        yield X[32:]

    def second(self) -> Iterator[Tensor]:
        self.second_began.set()
        yield X[:32]
        self.first_ended.wait(SOON)
        yield X[32:]


@pytest.mark.parametrize("paths", [("1", "4"), ("1", "1")])
def test_two_threads_that_distill_leave_the_model_as_it_was(paths: tuple[str, str]) -> None:
    model, alone, meeting = make().train(), make().train(), Meeting()
    expected = [distill(st.wrap(alone, path), X, alone).equations() for path in sorted(set(paths))]
    blocks = {path: st.wrap(model, path) for path in sorted(set(paths))}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()

    def run_first() -> st.Distillation:
        try:
            return distill(blocks[paths[0]], meeting.first(), model)
        finally:
            meeting.first_ended.set()

    def run_second() -> st.Distillation:
        assert meeting.first_began.wait(LONG)
        return distill(blocks[paths[1]], meeting.second(), model)

    with ThreadPoolExecutor(2) as pool:
        results = [job.result(LONG) for job in (pool.submit(run_first), pool.submit(run_second))]
    for result, found in zip(results, expected * 2, strict=False):
        assert result.equations() == found
        assert result.provenance.source.rows_seen == 64
        assert result.provenance.source.set_attributes == ()
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    for block in blocks.values():
        assert block.mode == "block"
        assert "forward" not in vars(block.block)
        assert not block.block._forward_hooks
        assert block.switch_to_symbolic()(torch.zeros(1, block.block.in_features)).shape == (1, 2)


def test_calls_by_other_threads_give_no_rows() -> None:
    model = make().eval()
    block = st.wrap(model, "1")

    def data() -> Iterator[Tensor]:
        yield X[:10]
        in_thread(lambda: (model(X + 100), block.block(X + 100), block.block.forward(X + 100)))
        yield X[10:]

    assert st.capture(model, ["1.block"], data())["1.block"].source.calls == 2
    rows = block.capture(data(), parent=model)
    assert len(rows) == 64
    assert float(rows.inputs.abs().max()) < 50
    result = distill(block, data(), model)
    assert result.provenance.source.rows_seen == 64
    block.switch_to_symbolic()  # no warning: the other thread's forward() went round nothing


def test_a_forward_pass_sees_a_switch_whole_or_not_at_all() -> None:
    block = st.SymbolicModel(nn.Linear(3, 2))
    distill(block, X)
    block.switch_to_symbolic(outputs=[0])
    expected = block(X).detach()

    def switch(*_: Any) -> None:
        in_thread(lambda: block.switch_to_symbolic(outputs=[0, 1]))

    handle = block.surrogate.register_forward_hook(switch)  # in the middle of a pass
    found = block(X).detach()
    handle.remove()
    assert torch.equal(found, expected)
    assert block.symbolic_outputs == (0, 1)


def test_passes_beside_many_switches_give_one_setting_or_another() -> None:
    block = st.SymbolicModel(nn.Linear(3, 2))
    distill(block, X)
    acts: list[Callable[[], Any]] = [
        block.switch_to_block,
        lambda: block.switch_to_symbolic(outputs=[0]),
        lambda: block.switch_to_symbolic(outputs=[1], complexity={1: 1}),
        lambda: block.switch_to_symbolic(complexity=1),
    ]
    known = []
    for act in acts:
        act()
        known.append(block(X).detach())
    stop, seen = threading.Event(), []

    def run() -> None:
        while not stop.is_set():
            seen.append(block(X).detach())

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(run) for _ in range(2)]
        for number in range(400):
            acts[number % len(acts)]()
        stop.set()
        for job in jobs:
            job.result(LONG)
    assert seen
    for found in seen:
        assert any(torch.equal(found, one) for one in known)


def test_a_thread_runs_on_its_block_while_others_stay_on_equations() -> None:
    block = st.SymbolicModel(nn.Sequential(nn.Linear(3, 2), nn.Tanh()))
    neural = block(X)
    distill(block, X)
    symbolic = block.switch_to_symbolic()(X)
    with block.running("block"):
        assert torch.equal(block(X), neural)
        assert in_thread(lambda: block.mode) == "symbolic"
        assert torch.equal(in_thread(lambda: block(X)), symbolic)
        in_thread(block.switch_to_block)
        assert in_thread(lambda: block.mode) == "block"
    assert block.mode == "block"  # what was switched meanwhile

    def look(event: Event) -> None:
        if isinstance(event, StageAdvanced):
            seen.append(in_thread(lambda: block.mode))

    seen: list[str] = []
    block.switch_to_symbolic()
    block.capture(X, callbacks=[look])
    assert seen == ["symbolic"]


def test_fused_attention_stays_allowed_during_a_capture() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0).eval()
    data, flags = torch.randn(6, 5, 4), []
    with torch.no_grad():
        plain = st.capture(
            layer,
            ["linear1"],
            data,
            callbacks=[lambda event: flags.append(torch.backends.mha.get_fastpath_enabled())],
        )["linear1"]
    assert len(plain) == 30
    assert all(flags)


def test_captures_nest_and_threads_that_cross_do_not_wait_for_each_other() -> None:
    models = [make(), make()]

    def cross(first: nn.Module, second: nn.Module) -> int:
        def nest(event: Event) -> None:
            if isinstance(event, StageAdvanced):
                counts.append(len(st.capture(second, ["1"], X)["1"]))

        counts: list[int] = []
        counts.append(len(st.capture(first, ["1"], X, callbacks=[nest])["1"]))
        return sum(counts)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(cross, *pair) for pair in (models, models[::-1])]
        assert [job.result(LONG) for job in jobs] == [128, 128]


def test_pruning_waits_for_a_capture_that_would_undo_it() -> None:
    block = st.SymbolicModel(nn.Linear(3, 2))
    inside, asked = threading.Event(), threading.Event()

    def data() -> Iterator[Tensor]:
        inside.set()
        yield X
        asked.wait(SOON)

    def prune() -> None:
        assert inside.wait(LONG)
        block.prune_outputs(torch.tensor([True, False]))
        asked.set()

    parent = nn.Sequential(block)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(prune)
        block.capture(data(), parent=parent)
        job.result(LONG)
    assert block.pruned_outputs == (1,)
    assert not block(X)[:, 1].any()


def test_a_checkpoint_holds_one_setting_though_another_thread_switches() -> None:
    block = st.SymbolicModel(nn.Linear(3, 2))
    distill(block, X)
    expected = block.switch_to_symbolic()(X).detach()
    with ThreadPoolExecutor(1) as pool:

        def switch(*_: Any) -> None:  # when the block is saved: after the mode, before the equations
            wait([pool.submit(block.switch_to_symbolic, complexity=1)], SOON)

        block.block.register_state_dict_pre_hook(switch)
        state = block.state_dict()
    fresh = st.SymbolicModel(nn.Linear(3, 2))
    fresh.load_state_dict(state)
    assert torch.equal(fresh(X), expected)
    assert not torch.equal(block(X), expected)


def test_a_compiled_model_is_captured_and_measured() -> None:
    model = make().eval()
    block = st.wrap(model, "1")
    compiled = torch.compile(model, backend="eager")
    compiled(X)
    result = distill(block, X, compiled)  # a warning of the compiler would be an error
    assert result.provenance.source.rows_seen == 64
    assert result.model_fidelity is not None
    block.switch_to_symbolic()
    torch.testing.assert_close(compiled(X), model(X))
