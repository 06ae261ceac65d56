"""Particles move as their potential says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from symtorch_core import FileFormatError, SearchError
from symtorch_gnn import simulation
from symtorch_gnn.forces import FORCES, Force, compute_pair_forces
from symtorch_gnn.simulation import STEPS, compute_accelerations, compute_energy, load_or_simulate, simulate

forces = pytest.mark.parametrize("force", FORCES.values(), ids=FORCES)


def some_states(simulations: int = 50) -> Tensor:
    return simulate(FORCES["spring"], simulations, seed=3, steps=5).states[:, 0].double()


@forces
def test_forces_are_minus_the_gradient_of_the_potential(force: Force) -> None:
    first, second = some_states()[:, 0], some_states()[:, 1]
    first.requires_grad_()
    r = (first - second)[:, :2].norm(dim=1)
    potential = force.potential(r, first[:, 4], second[:, 4], first[:, 5], second[:, 5])
    (gradient,) = torch.autograd.grad(potential.sum(), first)
    pull = compute_pair_forces(force, first, second)
    assert torch.allclose(pull, -gradient[:, :2], rtol=1e-10)
    assert torch.allclose(compute_pair_forces(force, second, first), -pull)  # action and reaction


@forces
def test_accelerations_are_minus_the_gradient_of_the_energy_over_the_mass(force: Force) -> None:
    states = some_states().requires_grad_()
    potential = compute_energy(force, states)[1].sum()
    (gradient,) = torch.autograd.grad(potential, states)
    expected = -gradient[..., :2] / states[..., 5:]
    assert torch.allclose(compute_accelerations(force, states), expected, rtol=1e-9, atol=1e-12)


def test_signs_are_those_of_physics() -> None:
    left = torch.tensor([0.0, 0, 0, 0, 1, 2])
    right = torch.tensor([3.0, 0, 0, 0, 1, 5])
    for name in ("spring", "r1", "r2"):  # a long spring pulls, masses attract
        assert compute_pair_forces(FORCES[name], left, right)[0] > 0
    assert compute_pair_forces(FORCES["charge"], left, right)[0] < 0  # like charges repel
    near = torch.tensor([0.5, 0, 0, 0, 1, 5])
    assert compute_pair_forces(FORCES["spring"], left, near)[0] < 0
    assert float(compute_pair_forces(FORCES["r2"], left, right)[0]) == pytest.approx(10 / 3.01**2)


@forces
def test_energy_and_momentum_are_kept_through_near_encounters(force: Force) -> None:
    made = simulate(force, 40, seed=0, steps=STEPS // 2)
    assert made.drift.max() < 1e-6
    assert made.drift.median() < 1e-7
    momentum = (made.states[..., 2:4] * made.states[..., 5:]).double().sum(2)
    assert torch.allclose(momentum, momentum[:, :1].expand_as(momentum), atol=2e-3)  # of float32 velocities
    # The figure is told by what was kept too, in single precision, where the energy is a sum of moderate terms.
    if force.name == "spring":
        kinetic, potential = compute_energy(force, made.states.double())
        total = kinetic + potential.sum(-1)
        assert torch.allclose(total, total[:, :1].expand_as(total), rtol=1e-4)


def test_the_integrator_agrees_with_a_closed_form() -> None:
    # Two equal masses on a spring along x: the distance swings around 0.99 as a cosine of frequency 2.
    start = torch.zeros(1, 2, 6, dtype=torch.float64)
    start[..., 5] = 1.0
    start[0, :, 0] = torch.tensor([0.0, 1.5])
    states = simulation._integrate(FORCES["spring"], start, moments=40, spacing=0.05, tolerance=1e-9)
    time = 0.05 * torch.arange(40, dtype=torch.float64)
    assert torch.allclose(states[0, :, 1, 0] - states[0, :, 0, 0], 0.99 + 0.51 * (2 * time).cos(), atol=1e-7)


def test_shapes_starts_and_kept_accelerations() -> None:
    made = simulate(FORCES["charge"], 3000, seed=1, steps=10)
    assert made.states.shape == (3000, 2, 4, 6)
    assert made.accelerations.shape == (3000, 2, 4, 2)
    assert made.states.dtype == made.accelerations.dtype == torch.float32
    start = made.states[:, 0]
    assert torch.allclose(start[..., :4].mean((0, 1)), torch.zeros(4), atol=0.05)
    assert torch.allclose(start[..., :4].std((0, 1)), torch.ones(4), atol=0.05)
    assert set(start[..., 4].unique().tolist()) == {-1.0, 1.0}
    assert abs(float(start[..., 4].mean())) < 0.05
    assert abs(float(start[..., 5].log().mean())) < 0.05
    assert float(start[..., 5].log().std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(made.states[:, 0, :, 4:], made.states[:, 1, :, 4:])
    again = compute_accelerations(FORCES["charge"], made.states.double()).float()
    assert torch.allclose(again, made.accelerations, rtol=1e-2, atol=1e-3)
    x, y = made.samples()
    assert x.shape == (6000, 4, 6)
    assert torch.equal(y[1], made.accelerations[0, 1])


def test_the_same_seed_gives_the_same_data_and_leaves_torch_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = (simulate(FORCES["r1"], 5, seed=seed, steps=20) for seed in (7, 7, 8))
    assert torch.equal(one.states, two.states)
    assert not torch.equal(one.states, other.states)
    assert torch.equal(before, torch.get_rng_state())


def test_a_file_is_read_only_for_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    force = FORCES["spring"]
    made = load_or_simulate(tmp_path, force, 4, seed=0, steps=20)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(simulation, "simulate", lambda *args, **options: pytest.fail("there was a file"))
        read = load_or_simulate(tmp_path, force, 4, seed=0, steps=20)
    assert torch.equal(read.states, made.states)
    assert torch.equal(read.accelerations, made.accelerations)
    assert torch.equal(read.drift, made.drift)
    assert not torch.equal(load_or_simulate(tmp_path, force, 4, seed=1, steps=20).states, made.states)
    load_or_simulate(tmp_path, force, 4, seed=0, steps=20, tolerance=1e-3)
    assert len(list(tmp_path.iterdir())) == 3
    other = replace(force, slope=lambda r, q1, q2, m1, m2: r)  # under one name
    assert not torch.equal(load_or_simulate(tmp_path, other, 4, seed=0, steps=20).states, made.states)
    next(path for path in tmp_path.iterdir() if path != file).replace(file)
    with pytest.raises(FileFormatError, match=f"{file.name} is damaged .*name.*delete it"):
        load_or_simulate(tmp_path, force, 4, seed=0, steps=20)


def test_what_cannot_be_simulated_is_said() -> None:
    with pytest.raises(SearchError, match="at least 1"):
        simulate(FORCES["spring"], 0, seed=0)
