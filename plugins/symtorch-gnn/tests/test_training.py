"""Training: it learns, repeats itself, stops and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from symtorch_core import FileFormatError, SearchError, SymbolicModel
from symtorch_core.events import Event, StageAdvanced, StageFinished, StageStarted
from symtorch_core.studies import compute_learning_rate
from symtorch_gnn.forces import FORCES
from symtorch_gnn.network import VARIANTS, ParticleNetwork, build_network
from symtorch_gnn.simulation import Trajectories, simulate
from symtorch_gnn.study import GnnStudy
from symtorch_gnn.training import CHECKPOINT, Settings, measure_error, train

TINY = GnnStudy.scales["tiny"].training


@pytest.fixture(scope="module")
def data() -> Trajectories:
    return simulate(FORCES["spring"], 50, seed=0, steps=200)


def network(variant: str, seed: int = 0) -> ParticleNetwork:
    return build_network(VARIANTS[variant], TINY.hidden, TINY.activation, seed)


def same(one: ParticleNetwork, two: ParticleNetwork) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns(data: Trajectories) -> None:
    model = network("bottleneck")
    before = measure_error(model, data)
    result = train(model, data, replace(TINY, epochs=20))
    assert result.losses.shape == (20,)
    assert result.losses[-1] < 0.5 * result.losses[0]
    assert measure_error(model, data) < 0.5 * before
    assert not model.training
    # Two components a node, positions shifted in training only.
    assert float(result.losses[-1]) == pytest.approx(2 * measure_error(model, data), rel=0.3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_seed_gives_the_same_weights(variant: str, data: Trajectories) -> None:
    settings, before = replace(TINY, epochs=1), torch.get_rng_state()
    one, two, other = network(variant), network(variant), network(variant)
    train(one, data, settings, seed=1)
    train(two, data, settings, seed=1)
    train(other, data, settings, seed=2)
    assert same(one, two)
    assert not same(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_pruning_ends_with_two_messages_at_65_percent(data: Trajectories) -> None:
    model, active = network("pruning"), []

    def watch(event: Event) -> None:
        if isinstance(event, StageAdvanced) and isinstance(model.edge_model, SymbolicModel):
            active.append(100 - len(model.edge_model.pruned_outputs))

    train(model, data, replace(TINY, epochs=4), callbacks=[watch])
    assert active == sorted(active, reverse=True)
    assert active[-1] == 2
    assert active[int(0.5 * len(active))] > 2
    assert active[int(0.68 * len(active))] == 2
    assert len(model.edge_model.pruned_outputs) == 98  # type: ignore[arg-type]


class Stop(BaseException):
    """The end of the process: an Exception in a callback would only be a warning."""


@pytest.mark.parametrize("variant", ["bottleneck", "kl", "pruning"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    variant: str, data: Trajectories, tmp_path: Path
) -> None:
    whole, stopped, resumed = network(variant), network(variant), network(variant)
    expected = train(whole, data, TINY, seed=3)
    done = 0

    def stop(event: Event) -> None:
        nonlocal done
        done += event.steps if isinstance(event, StageAdvanced) else 0
        if done > 20:
            raise Stop

    with pytest.raises(Stop):
        train(stopped, data, TINY, seed=3, callbacks=[stop], folder=tmp_path, keep_every=9)
    events: list[Event] = []
    result = train(resumed, data, TINY, seed=3, callbacks=[events.append], folder=tmp_path)
    assert events[1] == StageAdvanced("train", 18)
    assert same(whole, resumed)
    assert torch.equal(result.losses, expected.losses)
    # What is done is not done again.
    finished = network(variant)
    again = train(finished, data, TINY, seed=3, folder=tmp_path)
    assert same(whole, finished)
    assert torch.equal(again.losses, expected.losses)


def test_another_trainings_checkpoint_is_refused(data: Trajectories, tmp_path: Path) -> None:
    train(network("bottleneck"), data, replace(TINY, epochs=1), folder=tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    with pytest.raises(FileFormatError, match="another training"):
        train(network("bottleneck"), data, replace(TINY, epochs=1), seed=1, folder=tmp_path)


def test_a_training_on_another_kind_of_device_is_read_but_not_gone_on_with(
    data: Trajectories, tmp_path: Path
) -> None:
    settings = replace(TINY, epochs=1)
    train(network("bottleneck"), data, settings, folder=tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state["generator"] = torch.zeros(16, dtype=torch.uint8)  # as CUDA's generators have it
    torch.save(state, tmp_path / CHECKPOINT)
    train(network("bottleneck"), data, settings, folder=tmp_path)
    torch.save(state | {"step": 1}, tmp_path / CHECKPOINT)
    with pytest.raises(FileFormatError, match="another kind of device"):
        train(network("bottleneck"), data, settings, folder=tmp_path)


def test_progress_is_told_step_by_step(data: Trajectories) -> None:
    events: list[Event] = []
    train(network("bottleneck"), data, replace(TINY, epochs=1), callbacks=[events.append])
    steps = len(data.samples()[0]) // TINY.batch
    assert events[0] == StageStarted("train", steps)
    assert isinstance(events[-1], StageFinished)
    assert sum(event.steps for event in events if isinstance(event, StageAdvanced)) == steps


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [compute_learning_rate(step, 1000, highest=1.0, warmup=0.1) for step in range(1000)]
    assert max(rates) == rates[100] == 1.0
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] < 1e-5
    paper = {"highest": Settings().learning_rate, "warmup": Settings().warmup}
    assert compute_learning_rate(0, 1000, **paper) == 1e-3  # the paper's: no rise
    assert compute_learning_rate(500, 1000, **paper) == pytest.approx(5e-4)


def test_too_few_samples_are_said(data: Trajectories) -> None:
    with pytest.raises(SearchError, match="do not fill one batch"):
        train(network("bottleneck"), data, replace(TINY, batch=100_000))


def test_a_checkpoint_is_known_again_whatever_the_number_of_threads(tmp_path: Path) -> None:
    many = simulate(FORCES["r2"], 1000, seed=0, steps=250)  # enough that threads share its sums
    settings, before = replace(TINY, epochs=1, batch=50_000), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(train(network("bottleneck"), many, settings, folder=tmp_path))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0].losses, results[1].losses)
