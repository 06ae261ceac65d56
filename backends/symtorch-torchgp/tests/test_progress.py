"""A search that was stopped goes on from its last round, to what it would have found."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from symtorch_core import FileFormatError, ParetoFront, SearchSpace
from symtorch_core.events import Event, OutputProgressed
from symtorch_torchgp.regressor import TorchGPRegressor

SEARCH = SearchSpace(unary_operators=("sin",), maxsize=9, niterations=20)
ENGINE = TorchGPRegressor(population_size=40)
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(40, 2, generator=GENERATOR, dtype=torch.float64) * 4 - 2
NOISE = 0.1 * torch.randn(40, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.cat([X[:, :1] * X[:, 1:] + NOISE, torch.full((40, 1), 2.5), X[:, :1].sin() + NOISE[:, 1:]], dim=1)
FIRST_ROUND = 16 / 20
"""Share of the generations that the first round may have."""


def fit(folder: Path | None, callback: Callable[[Event], None] = lambda event: None) -> list[ParetoFront]:
    return ENGINE.fit(
        X, Y, search=SEARCH, variable_names=("a", "b"), seed=3, callbacks=[callback], folder=folder
    )


def stop_in_second_round(event: Event) -> None:
    if isinstance(event, OutputProgressed) and event.fraction > FIRST_ROUND:
        raise SystemExit  # nothing catches it, as nothing catches a kill


def test_it_goes_on_after_the_last_round_and_ends_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    fractions: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, OutputProgressed):
            fractions.append(event.fraction)

    with pytest.raises(SystemExit):
        fit(tmp_path, stop_in_second_round)
    resumed = fit(tmp_path, watch)
    assert min(fractions) > FIRST_ROUND
    fractions.clear()
    assert fit(tmp_path, watch) == resumed  # a search that has ended only builds its fronts
    assert fractions == []
    assert fit(None) == resumed


def test_damaged_progress_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, stop_in_second_round)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"generations", b"regenerates"))
    with pytest.raises(
        FileFormatError, match=f"{path.name} is damaged .*delete it, and its work is done again"
    ):
        fit(tmp_path)


def test_a_full_disk_does_not_stop_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        full.setattr(safetensors.torch, "save_file", fail)
        found = fit(tmp_path)
    assert any("progress.safetensors was not written" in str(warning.message) for warning in told)
    assert found == fit(None)
