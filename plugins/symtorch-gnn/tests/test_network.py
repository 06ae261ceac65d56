"""The graph network, its messages, and what they are charged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import symtorch_core as st
from symtorch_core import SearchError
from symtorch_gnn.forces import FORCES
from symtorch_gnn.messages import (
    compute_forces,
    compute_forces_per_mass,
    compute_messages,
    fit_messages,
    fit_trimmed,
    rank_by_kl,
    rank_by_std,
    sample_edges,
)
from symtorch_gnn.network import VARIANTS, ParticleNetwork, build_network, connect_all
from symtorch_gnn.simulation import simulate

variants = pytest.mark.parametrize("variant", VARIANTS)


def network(variant: str = "bottleneck", seed: int = 0) -> ParticleNetwork:
    return build_network(VARIANTS[variant], hidden=16, activation="silu", seed=seed)


def states(graphs: int = 3) -> Tensor:
    return torch.randn(graphs * 4, 6, generator=torch.Generator().manual_seed(5))


def test_edges_are_all_pairs_of_a_graph_but_none_to_oneself() -> None:
    edges = connect_all(3, 4)
    assert edges.shape == (2, 36)
    pairs = {(int(s), int(r)) for s, r in edges.T}
    assert pairs == {(s, r) for s in range(12) for r in range(12) if s != r and s // 4 == r // 4}
    assert torch.equal(edges[1].sort().values, edges[1])


def test_edge_rows_are_receiver_then_sender() -> None:
    x, edges = states(), connect_all(3, 4)
    sender, receiver = edges
    assert torch.equal(network().gather_edge_rows(x, edges), torch.cat([x[receiver], x[sender]], dim=1))


@variants
def test_the_network_is_what_it_is_said_to_be(variant: str) -> None:
    model, x, edges = network(variant).eval(), states(), connect_all(3, 4)
    messages = model.edge_model(model.gather_edge_rows(x, edges))
    assert messages.shape == (36, 2 if variant == "bottleneck" else 100)
    total = messages.new_zeros(12, messages.shape[1]).index_add(0, edges[1], messages)
    expected = model.node_model(torch.cat([x, total], dim=1))
    assert torch.allclose(model(x, edges), expected, atol=1e-6)


def test_order_of_particles_and_other_graphs_do_not_matter() -> None:
    model, x = network("standard").eval(), states()
    together = model(x, connect_all(3, 4))
    assert torch.allclose(together[4:8], model(x[4:8], connect_all(1, 4)), atol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(model(x[:4][order], connect_all(1, 4)), together[:4][order], atol=1e-5)


def test_l1_is_a_hundredth_of_the_sum_of_absolute_messages() -> None:
    model, x, edges = network("l1"), states(), connect_all(3, 4)
    predicted, penalty = model.forward_with_penalty(x, edges)
    messages = model.edge_model(model.gather_edge_rows(x, edges))
    assert penalty.item() == pytest.approx(0.01 * messages.abs().sum().item(), rel=1e-5)
    assert torch.equal(predicted, model(x, edges))


def test_kl_is_the_divergence_from_the_standard_normal_and_messages_are_sampled_in_training_only() -> None:
    model, x, edges = network("kl"), states(), connect_all(3, 4)
    _, penalty = model.forward_with_penalty(x, edges, torch.Generator().manual_seed(0))
    mean, log_variance = model.edge_model.distribution(model.gather_edge_rows(x, edges))  # type: ignore[operator]
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)
    samples = [
        model.forward_with_penalty(x, edges, torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)
    ]
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    assert torch.equal(model(x, edges), model(x, edges))


@pytest.mark.parametrize("variant", ["standard", "bottleneck", "pruning"])
def test_the_other_variants_charge_nothing(variant: str) -> None:
    assert network(variant).forward_with_penalty(states(), connect_all(3, 4))[1].item() == 0


def test_first_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = network(seed=1), network(seed=1), network(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    x, edges = states(), connect_all(3, 4)
    assert torch.equal(one(x, edges), two(x, edges))
    assert not torch.equal(one(x, edges), other(x, edges))


@pytest.mark.parametrize("variant", ["bottleneck", "kl"])
def test_the_edge_model_can_be_wrapped(variant: str) -> None:
    model, x, edges = network(variant).eval(), states(), connect_all(3, 4)
    before = model(x, edges)
    rows = sample_edges(simulate(FORCES["spring"], 20, seed=0, steps=10), 100)
    block = st.wrap(model, "edge_model")
    assert torch.equal(model(x, edges), before)
    seen = block.capture([(x, edges)], parent=model)
    assert seen.inputs.shape == (36, 12)
    assert seen.outputs.shape == (36, VARIANTS[variant].message_dim)
    assert compute_messages(model, rows).shape == (100, VARIANTS[variant].message_dim)


def test_messages_are_ranked_by_spread_or_by_divergence() -> None:
    assert rank_by_std(torch.tensor([[0.0, 1, -3], [0, 2, 5]])).tolist() == [2, 1, 0]
    model, rows = network("kl"), sample_edges(simulate(FORCES["spring"], 20, seed=0, steps=10), 300)
    with torch.no_grad():
        model.edge_model.layers[-1].bias[7] += 5.0  # type: ignore[index, union-attr, operator, operator]
    assert int(rank_by_kl(model, rows)[0]) == 7
    with pytest.raises(SearchError, match="not sampled"):
        rank_by_kl(network("l1"), rows)


def test_edge_rows_of_data_come_with_their_forces() -> None:
    made = simulate(FORCES["r2"], 30, seed=0, steps=10)
    rows = sample_edges(made, 30 * 2 * 12)
    forces = compute_forces(FORCES["r2"], rows)
    # Every edge of every moment is there once, so accelerations are sums over them.
    x = made.samples()[0]
    for particle in (x[0, 0], x[31, 2]):
        mine = (rows[:, :6] == particle).all(1)
        assert int(mine.sum()) == 3
        at = (x == particle).all(-1).nonzero()[0]
        expected = made.samples()[1][at[0], at[1]]
        assert torch.allclose(forces[mine].sum(0) / particle[5], expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(SearchError, match="720"):
        sample_edges(made, 721)


def test_trimmed_fits_look_away_from_the_worst_tenth() -> None:
    generator = torch.Generator().manual_seed(0)
    forces = torch.randn(2000, 2, generator=generator)
    message = 2 * forces[:, 0] - forces[:, 1] + 0.5
    message[:150] += 100 * torch.rand(150, generator=generator)
    fit = fit_trimmed(forces, message)
    assert fit.slopes.tolist() == pytest.approx([2, -1], abs=1e-5)
    assert fit.intercept == pytest.approx(0.5, abs=1e-5)
    assert fit.r2 > 1 - 1e-9
    assert int(fit.kept.sum()) == 1800
    assert fit_trimmed(forces, message, trim=0.0).r2 < 0.5
    noise = torch.randn(2000, 1, generator=generator)
    good, bad = fit_messages(torch.cat([message[:, None], noise], dim=1), forces)
    assert good.r2 > 0.999
    assert bad.r2 < 0.05


def test_the_force_may_come_times_a_function_of_the_receivers_mass() -> None:
    force, made = FORCES["spring"], simulate(FORCES["spring"], 100, seed=0, steps=10)
    rows = sample_edges(made, 2000)
    forces, mass = compute_forces(force, rows), rows[:, 5:6]
    assert torch.allclose(compute_forces_per_mass(force, rows) * mass, forces, rtol=1e-5)
    message = forces * (1 + 0.3 * mass.log())
    assert fit_messages(message, forces)[0].r2 < 0.98
    assert fit_messages(forces / mass, compute_forces_per_mass(force, rows))[1].r2 > 1 - 1e-9


def test_an_unknown_activation_is_an_error() -> None:
    with pytest.raises(SearchError, match="unknown activation 'rellu'"):
        build_network(VARIANTS["l1"], 8, "rellu", 0)
