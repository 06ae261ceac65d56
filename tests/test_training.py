"""The training loop: descent, best state, clipping, interruption, and going on from a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from symtorch_core import FileFormatError, SearchError
from symtorch_core.events import Event, Interrupted, StageAdvanced, StageFinished, StageStarted
from symtorch_core.studies import Checkpoint, Descent, compute_learning_rate, descend, fork_seed


def line(seed: int = 0) -> nn.Linear:
    with fork_seed(seed):
        return nn.Linear(3, 1)


X = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.25


def rows(epoch: int) -> list[Tensor]:
    return list(torch.randperm(64, generator=torch.Generator().manual_seed(epoch)).split(16))


def train(network: nn.Linear, epochs: int = 60, **options: object) -> Descent:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: compute_learning_rate(step, 4 * epochs, highest=1.0, warmup=0.1)
    )
    return descend(
        lambda part: (network(X[part]) - Y[part]).square().mean(),
        network.parameters(),
        rows,
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        **options,  # type: ignore[arg-type]
    )


def test_least_squares_are_reached() -> None:
    network = line()
    done = train(network, 200)
    assert network.weight.detach()[0].tolist() == pytest.approx([1.0, -2.0, 0.5], abs=1e-3)
    assert float(network.bias.detach()) == pytest.approx(0.25, abs=1e-3)
    assert done.losses.shape == (200,)
    assert float(done.losses[-1]) < 1e-5 < float(done.losses[0])
    assert math.isnan(done.after)


def test_the_best_state_is_kept_and_patience_ends_the_training() -> None:
    network = line()
    asked: list[float] = []

    def judge() -> float:  # lowest after the second epoch, worse ever after
        asked.append([3.0, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0][min(len(asked), 6)])
        states.append(network.weight.detach().clone())
        return asked[-1]

    states: list[Tensor] = []
    done = train(network, judge=judge, patience=3)
    assert (done.before, done.after, done.epochs) == (3.0, 1.0, 5)
    assert torch.equal(network.weight, states[2])
    assert not torch.equal(states[2], states[-1])


def test_a_judge_that_is_not_finite_never_wins() -> None:
    network = line()
    before = network.weight.detach().clone()
    done = train(network, 3, judge=lambda: math.nan)
    assert done.after == math.inf
    assert torch.equal(network.weight, before)


def test_a_gradient_that_is_not_finite_is_left_out() -> None:
    x = nn.Parameter(torch.tensor([3.0]))
    descend(
        lambda scale: scale * (x - 1).square().sum(),
        [x],
        lambda epoch: [1.0, math.inf] * 300,
        optimizer=torch.optim.Adam([x], lr=0.05),
        clip=1.0,
    )
    assert float(x.detach()) == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("judged", [True, False])
def test_ctrl_c_keeps_the_best_or_is_raised(judged: bool) -> None:
    network = line()
    events: list[Event] = []

    def stop(step: int) -> None:
        if step == 40:
            raise KeyboardInterrupt

    def judge() -> float:
        return float((network(X) - Y).detach().square().mean())

    options = {"before_step": stop, "stage": "train", "callbacks": [events.append]}
    if not judged:
        with pytest.raises(KeyboardInterrupt):
            train(network, **options)
        return
    done = train(network, judge=judge, **options)
    assert done.interrupted
    assert done.epochs == 10
    assert done.after < done.before
    assert judge() == pytest.approx(done.after)
    assert Interrupted(1) in events


@pytest.mark.parametrize("stopped_at", [1, 37, 99])
def test_a_stopped_training_ends_as_if_it_had_not_been(tmp_path: Path, stopped_at: int) -> None:
    def run(network: nn.Linear, file: Path, stop: int | None = None) -> Descent:
        noise = torch.Generator().manual_seed(5)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)

        def cost(part: Tensor) -> Tensor:
            moved = X[part] + 0.01 * torch.randn(3, generator=noise)
            return (network(moved) - Y[part]).square().mean()

        def check(step: int) -> None:
            if step == stop:
                raise KeyboardInterrupt

        return descend(
            cost,
            network.parameters(),
            rows,
            optimizer=optimizer,
            schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120),
            epochs=30,
            before_step=check,
            generator=noise,
            checkpoint=Checkpoint(file, network, "key", every=10),
        )

    whole, parts = line(), line()
    expected = run(whole, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run(parts, tmp_path / "parts.pt", stopped_at)
    again = line(1)  # a new process would start from other weights, or the same; the file decides
    if stopped_at < 10:
        again = line()
    found = run(again, tmp_path / "parts.pt")
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(found.losses, expected.losses)
    finished = line(2)
    assert torch.equal(run(finished, tmp_path / "parts.pt").losses, expected.losses)
    assert torch.equal(finished.weight, whole.weight)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file, network = tmp_path / "training.pt", line()
    train(network, 1, checkpoint=Checkpoint(file, network, "one"))
    with pytest.raises(FileFormatError, match="another training"):
        train(network, 1, checkpoint=Checkpoint(file, network, "two"))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    file, network = tmp_path / "training.pt", line()
    train(network, 1, checkpoint=Checkpoint(file, network))
    whole = file.read_bytes()
    weight = whole.index(network.weight.detach().numpy().tobytes())
    for damaged in (
        b"",
        whole[:-9],
        whole[: len(whole) // 2],
        whole[:weight] + b"\x00" + whole[weight + 1 :],
        whole[: weight + 7] + bytes([whole[weight + 7] ^ 1]) + whole[weight + 8 :],
    ):
        file.write_bytes(damaged)
        with pytest.raises(
            FileFormatError, match="training.pt is damaged .*delete it, and its training starts again"
        ):
            train(network, 1, checkpoint=Checkpoint(file, network))


def test_a_training_is_refused_while_another_one_has_its_checkpoint(tmp_path: Path) -> None:
    network, refused = line(), []

    def start_another(step: int) -> None:
        if step == 2:
            with pytest.raises(SearchError, match="another run is doing this training") as caught:
                train(line(), 1, checkpoint=Checkpoint(tmp_path / "training.pt", network))
            refused.append(str(caught.value))
            train(line(), 1, checkpoint=Checkpoint(tmp_path / "other.pt", network))

    train(network, 1, checkpoint=Checkpoint(tmp_path / "training.pt", network), before_step=start_another)
    assert len(refused) == 1
    assert str(tmp_path) in refused[0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("file write failed")])
def test_a_training_goes_on_where_its_checkpoint_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def save(*_: object) -> None:
        raise error

    with_disk, without = line(), line()
    train(with_disk, 3)
    with monkeypatch.context() as full:
        full.setattr(torch, "save", save)
        with pytest.warns(RuntimeWarning, match="training.pt was not written"):
            train(without, 3, checkpoint=Checkpoint(tmp_path / "training.pt", without, every=2))
    assert torch.equal(with_disk.weight, without.weight)


def test_callbacks_hear_every_step_once() -> None:
    for epochs in (2, 300):
        events: list[Event] = []
        train(line(), epochs, stage="train", callbacks=[events.append])
        assert events[0] == StageStarted("train", 4 * epochs)
        assert sum(e.steps for e in events if isinstance(e, StageAdvanced)) == 4 * epochs
        assert isinstance(events[-1], StageFinished)
        assert len(events) < 1_100
