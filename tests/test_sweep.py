"""The sweep over reducers and sizes, on blocks whose answers are known."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import nn

import symtorch_core as st
from symtorch_core.events.records import Event, StageAdvanced, StageStarted
from symtorch_core.reduction.linear import IdentityReducer
from symtorch_pca.reducer import PCAReducer

GENERATOR = torch.Generator().manual_seed(0)
MIX = torch.randn(2, 6, generator=GENERATOR)
DATA = torch.randn(600, 2, generator=GENERATOR) @ MIX  # six columns, two dimensions


class Block(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.sin(x[:, 0]), x[:, 1] * x[:, 2], 3 * x[:, 0]], dim=1)


def sweep(**options: Any) -> st.Sweep:
    settings: dict[str, Any] = {"reducers": ["pca"], "k_in": [1, 2], "progress": False, **options}
    return st.sweep_reducers(Block(), DATA, **settings)


def test_two_dimensions_are_enough_and_one_is_not() -> None:
    one, two = sweep().rows
    assert two.r2 > 1 - 1e-9
    assert one.r2 < 0.95
    assert two.r2_linear < 0.999
    assert two.r2_network is None


def test_outputs_are_narrowed_too() -> None:
    rows = sweep(k_in=[2], k_out=[1, 2, 3, "50%", None]).rows
    figures = [row.r2 for row in rows]
    assert figures[0] < figures[1] < figures[2]
    assert figures[2] == pytest.approx(1, abs=1e-6)
    assert figures[3] == figures[0]
    assert figures[4] == pytest.approx(1, abs=1e-6)


def test_a_linear_part_helps_the_narrow() -> None:
    plain, linear = sweep(
        reducers={"plain": PCAReducer(), "linear": PCAReducer(linear=True)}, k_in=[2], k_out=[1]
    ).rows
    assert (plain.reducer, linear.reducer) == ("plain", "linear")
    assert linear.r2 > plain.r2


def test_a_network_between_the_maps_can_be_asked_for() -> None:
    (row,) = sweep(k_in=[2], network=True, reducers=[PCAReducer()]).rows
    assert row.r2_network is not None
    assert row.r2_network > row.r2_linear


def test_a_size_that_does_not_fit_is_noted_and_the_others_are_kept() -> None:
    result = sweep(k_in=[2, 99])
    assert result.rows[0].r2 > 0.99
    assert "give a number from 1 to 6" in result.rows[1].note
    assert "give a number" in str(result)


def test_same_seed_same_figures_and_a_frame() -> None:
    first, second = sweep(), sweep()
    assert [row.r2 for row in first.rows] == [row.r2 for row in second.rows]
    frame = first.to_frame()
    assert list(frame["k_in"]) == [1, 2]
    assert (first.fitted, first.held_out) == (480, 120)
    assert "R2 linear" in str(first)


def test_activations_instead_of_data() -> None:
    activations = st.Activations.of(DATA, Block()(DATA))
    (row,) = st.sweep_reducers(Block(), activations, k_in=[2], progress=False).rows
    assert row.r2 > 1 - 1e-9


def test_two_of_a_name_are_told_apart() -> None:
    names = [row.reducer for row in sweep(reducers=[PCAReducer(), PCAReducer(linear=True)], k_in=[2]).rows]
    assert names == ["pca", "pca 2"]


def test_progress_is_told() -> None:
    told: list[Event] = []
    sweep(callbacks=[told.append])
    assert StageStarted("sweep", 2) in told
    assert told.count(StageAdvanced("sweep")) == 2


def test_what_cannot_be_swept() -> None:
    with pytest.raises(st.SearchError, match="no k_in and k_out"):
        sweep(reducers=[IdentityReducer()])
    with pytest.raises(st.CaptureError, match="test_fraction must be more than 0 and less than 1"):
        sweep(test_fraction=0.0)

    class Mixing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0)

    with pytest.raises(st.CaptureError, match="mixes rows"):
        st.sweep_reducers(Mixing(), DATA, progress=False)


def test_it_is_drawn_on_the_callers_axes() -> None:
    mpl.use("agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    assert sweep(k_out=[1, None]).plot(ax=ax) is ax
    assert len(ax.lines) == 2
    assert ax.lines[1].get_ydata()[1] == pytest.approx(0, abs=1e-6)
    pyplot.close(figure)
