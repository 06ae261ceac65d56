"""Programs as tensors agree with the expressions they stand for, and the search finds laws."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from symtorch_core import SearchError, SearchSpace
from symtorch_core.events import Event, OutputImproved, OutputInterrupted, OutputProgressed, Stopwatch
from symtorch_core.expressions import evaluate as evaluate_expression
from symtorch_core.expressions import parse
from symtorch_core.testing import RegressorContract
from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.evaluation.evaluator import differentiate, evaluate
from symtorch_torchgp.evaluation.schedules import build_schedule
from symtorch_torchgp.evolution.population import Population
from symtorch_torchgp.fitting.constants import fit_constants
from symtorch_torchgp.fitting.scaling import score
from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import CONSTANT, Primitives
from symtorch_torchgp.regressor import TorchGPRegressor
from symtorch_torchgp.variation.inverses import invert_targets
from symtorch_torchgp.variation.mutation import vary
from symtorch_torchgp.variation.sampler import Sampler

NAMES = ("x0", "x1", "x2")
SEARCH = SearchSpace(binary_operators=("+", "-", "*", "/"), unary_operators=("sin", "exp", "square", "inv"))
TEXTS = ("x0*x0 + 3.0*sin(x2)", "sin(x1*0.5 + 1.0)*x1", "exp(x0*0.2)/(x1 + 5.0)", "square(x0 - x1)*x2", "x1")


def make_primitives() -> Primitives:
    return Primitives.of(SEARCH, NAMES, torch.device("cpu"))


def make_programs(texts: tuple[str, ...] = TEXTS, length: int = 16) -> Programs:
    encoded = [make_primitives().encode(parse(text), length) for text in texts]
    assert all(entry is not None for entry in encoded)
    return Programs(
        torch.tensor([entry[0] for entry in encoded if entry]),
        torch.tensor([entry[1] for entry in encoded if entry], dtype=torch.float64),
    )


def make_inputs(rows: int = 50) -> Tensor:
    return torch.rand(rows, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 - 2


def test_programs_decode_to_what_was_encoded() -> None:
    population = make_programs()
    for row, text in enumerate(TEXTS):
        codes, values = population.codes[row].tolist(), population.values[row].tolist()
        assert make_primitives().decode(codes, values) == parse(text)


@pytest.mark.parametrize("are_free", [True, False])
def test_all_programs_together_give_what_each_gives_alone(are_free: bool) -> None:
    population, X = make_programs(), make_inputs()
    free = population.codes == CONSTANT if are_free else None
    plan = build_schedule(population, make_primitives(), free)
    numbers = population.values[plan.free_programs, plan.free_places] if are_free else None
    buffer = evaluate(plan, make_primitives(), X.T.contiguous(), numbers)
    columns = dict(zip(NAMES, X.unbind(1), strict=True))
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(buffer[plan.roots[row]], evaluate_expression(parse(text), columns))


def test_derivatives_by_the_constants_agree_with_differences() -> None:
    population, columns = make_programs(), make_inputs().T.contiguous()
    plan = build_schedule(population, make_primitives(), population.codes == CONSTANT)
    numbers = population.values[plan.free_programs, plan.free_places]
    slopes = differentiate(plan, make_primitives(), evaluate(plan, make_primitives(), columns, numbers))
    for position, owner in enumerate(plan.free_programs.tolist()):
        step = torch.zeros_like(numbers)
        step[position] = 1e-6
        up = evaluate(plan, make_primitives(), columns, numbers + step)[plan.roots[owner]]
        down = evaluate(plan, make_primitives(), columns, numbers - step)[plan.roots[owner]]
        torch.testing.assert_close(slopes[position], (up - down) / 2e-6, rtol=1e-5, atol=1e-7)


def test_constants_are_fitted_and_scale_and_offset_are_free() -> None:
    X = make_inputs()
    y = 2.5 * torch.sin(0.7 * X[:, 1] + 1.2) * X[:, 1] + 1
    rows = Rows.of(X, y[:, None], torch.ones(1, len(X), dtype=torch.float64))
    fitted = fit_constants(
        make_programs()[1:2], torch.zeros(1, dtype=torch.long), make_primitives(), rows, 15
    )
    assert float(score(fitted, make_primitives(), rows)) < 1e-12


def test_every_child_is_a_whole_program() -> None:
    generator = torch.Generator().manual_seed(0)
    sampler = Sampler(make_primitives(), 20, generator, torch.device("cpu"))
    population = sampler.draw_trees(300)
    for _ in range(5):
        population = vary(population, population[torch.randperm(300, generator=generator)], sampler)
        for codes, values in zip(population.codes.tolist(), population.values.tolist(), strict=True):
            make_primitives().decode(codes, values)  # fails unless exactly one value is left


def test_outputs_are_searched_together_and_a_form_is_found() -> None:
    X = torch.rand(2_000, 2, generator=torch.Generator().manual_seed(0))
    decay = torch.exp(-0.2 * math.pi**2 * X[:, 1])
    Y = torch.stack([decay * X[:, 0], 3 * decay * X[:, 0] - 2, X[:, 0] * X[:, 1]], 1)
    search = SearchSpace(unary_operators=("exp",), niterations=60)
    fronts = TorchGPRegressor(population_size=500).fit(X, Y, search=search, variable_names=["x", "t"])
    for number, front in enumerate(fronts):
        assert front[-1].loss < 1e-12 * float(Y[:, number].var())


def test_it_starts_from_given_equations() -> None:
    X = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    y = torch.sin(X[:, 0] * X[:, 1]) / (X[:, 2] + X[:, 0] * X[:, 0])
    engine = TorchGPRegressor(population_size=200, start=("sin(x0*x1)/(x2 + x0*x0)",))
    search = SearchSpace(binary_operators=("+", "*", "/"), unary_operators=("sin",), niterations=2)
    (front,) = engine.fit(X, y[:, None], search=search, variable_names=NAMES)
    assert front[-1].loss < 1e-12
    with pytest.raises(SearchError, match="cannot start from"):
        TorchGPRegressor(start=("tanh(x0)",)).fit(X, y[:, None], search=search, variable_names=NAMES)


def test_islands_give_the_same_for_any_number_of_processes() -> None:
    X = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    y = torch.sin(3 * X[:, 0]) + X[:, 1] ** 2
    search = SearchSpace(unary_operators=("exp",), niterations=4)
    fronts = [
        TorchGPRegressor(population_size=150, islands=2, n_jobs=jobs).fit(
            X, y[:, None], search=search, variable_names=["x", "y"]
        )
        for jobs in (1, 2)
    ]
    assert fronts[0] == fronts[1]


def make_data() -> tuple[Tensor, Tensor]:
    X = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    return X, (torch.sin(X[:, 0] * X[:, 1]) / (X[:, 2] + X[:, 0]))[:, None]


QUICK = SearchSpace(binary_operators=("+", "*", "/"), unary_operators=("sin",), niterations=4)


def test_it_starts_from_a_front() -> None:
    X, y = make_data()
    (front,) = TorchGPRegressor(population_size=300).fit(X, y, search=QUICK, variable_names=NAMES)
    few = replace(QUICK, niterations=1)
    (again,) = TorchGPRegressor(population_size=150, start=front).fit(X, y, search=few, variable_names=NAMES)
    assert again[-1].loss <= front[-1].loss * (1 + 1e-6)


def test_parsimony_decides_who_survives() -> None:
    X, y = make_data()
    rows = Rows.of(X.float(), y, torch.ones(1, len(X), dtype=torch.float64))

    def evolve(parsimony: float) -> float:
        sampler = Sampler(make_primitives(), 16, torch.Generator().manual_seed(0), torch.device("cpu"))
        population = Population(
            rows,
            make_primitives(),
            sampler,
            size=100,
            maxsize=16,
            admit=lambda programs: torch.ones(len(programs), dtype=torch.bool),
            parsimony=parsimony,
        )
        for _ in range(4):
            population.step()
        return float(population.programs.size[:20].double().mean())

    assert evolve(10.0) < 0.8 * evolve(0.0)


def test_a_time_limit_is_for_each_output() -> None:
    X, _ = make_data()
    Y = torch.randn(len(X), 3, generator=torch.Generator().manual_seed(0))
    search = replace(QUICK, niterations=10**6, maxsize=8, timeout_in_seconds=1.2)
    watch = Stopwatch()
    searched: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, OutputProgressed):
            searched.append(watch.seconds())

    engine = TorchGPRegressor(population_size=150, patience=10**6)
    engine.fit(X, Y, search=search, variable_names=NAMES, callbacks=[note])
    assert searched[-1] > 1.6  # two thirds of 3 x 1.2 s, less the last generation


def test_an_output_that_is_good_enough_ends_the_search() -> None:
    X, y = make_data()
    generations: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, OutputProgressed):
            generations.append(event.fraction)

    search = replace(QUICK, niterations=30)
    engine = TorchGPRegressor(population_size=300, stop_below=0.2)
    engine.fit(X, y, search=search, variable_names=NAMES, callbacks=[watch])
    assert max(generations) < 0.3


def test_a_loss_of_ones_own_is_minimised() -> None:
    X, y = make_data()

    def pinball(residual: Tensor) -> Tensor:
        return torch.where(residual > 0, 0.1 * residual, -0.9 * residual)

    noisy = y + torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).abs()
    search = replace(QUICK, loss=pinball)
    (front,) = TorchGPRegressor(population_size=200).fit(X, noisy, search=search, variable_names=NAMES)
    values = evaluate_expression(front[-1].expression, dict(zip(NAMES, X.double().unbind(1), strict=True)))
    assert 0.85 < float((noisy[:, 0] < values).float().mean()) < 0.95  # the 90 % quantile


def test_a_callback_can_keep_the_live_front() -> None:
    X, y = make_data()
    live: dict[int, float] = {}

    def watch(event: Event) -> None:
        if isinstance(event, OutputImproved):
            assert event.complexity is not None
            assert event.loss < live.get(event.complexity, 1e9)
            live[event.complexity] = event.loss
            parse(event.equation, NAMES)

    TorchGPRegressor(population_size=300).fit(X, y, search=QUICK, variable_names=NAMES, callbacks=[watch])
    assert len(live) > 3


def test_ctrl_c_hands_over_the_best_so_far() -> None:
    X, y = make_data()
    told: list[Event] = []

    def watch(event: Event) -> None:
        told.append(event)
        if isinstance(event, OutputProgressed) and event.fraction >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TorchGPRegressor(population_size=300).fit(X, y, search=QUICK, variable_names=NAMES, callbacks=[watch])
    (kept,) = [event for event in told if isinstance(event, OutputInterrupted)]
    assert kept.front[-1].loss < 0.5 * float(y.var())


def test_threads_do_not_change_the_result() -> None:
    X, y = make_data()
    before, fronts = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            fronts += TorchGPRegressor(population_size=300).fit(X, y, search=QUICK, variable_names=NAMES)
    finally:
        torch.set_num_threads(before)
    assert fronts[0] == fronts[1]


def test_forces_with_heavy_tails_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(2_000, 2, generator=generator)
    r, m = d.norm(dim=1) + 0.01, torch.randn(2_000, generator=generator).exp()
    y = m * (0.7 * d[:, 0] - 0.4 * d[:, 1]) / r**3
    X = torch.stack([d[:, 0], d[:, 1], r, m], 1)
    search = SearchSpace(("+", "-", "*"), ("inv", "exp", "log"), loss="mae", timeout_in_seconds=40.0)
    (front,) = TorchGPRegressor(population_size=1000).fit(
        X, y[:, None], search=search, variable_names=("dx", "dy", "r", "m")
    )
    assert front[-1].loss < 1e-5 * float(y.abs().mean())


@pytest.mark.parametrize("loss", ["mae", "log1p(abs(r))"])
def test_robust_losses_find_what_few_rows_show_among_outliers(loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randint(10, (400, 3), generator=generator).double()
    y = -10.0 * (X[:, 0] + X[:, 1] >= 12)  # 0 in seven rows of ten
    y[:12] = 5000.0 * torch.rand(12, generator=generator, dtype=torch.float64)
    search = SearchSpace(
        ("+", "*", "greater_equal"), (), maxsize=9, niterations=200, loss=loss, timeout_in_seconds=30.0
    )
    (front,) = TorchGPRegressor(population_size=1000).fit(
        X, y[:, None], search=search, variable_names=("a", "b", "c")
    )
    columns = dict(zip("abc", X.unbind(1), strict=True))
    explained = (evaluate_expression(front[-1].expression, columns) - y).abs() < 0.1
    assert int(explained.sum()) == 388


def test_inputs_that_tell_nothing_give_the_best_constant() -> None:
    y = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    engine = TorchGPRegressor(population_size=150)
    (front,) = engine.fit(torch.ones(50, 3), y, search=replace(QUICK, niterations=2), variable_names=NAMES)
    (candidate,) = front
    assert float(str(candidate.expression)) == pytest.approx(float(y.double().mean()))


def test_a_search_without_binary_operators_works() -> None:
    X = torch.rand(100, 1, generator=torch.Generator().manual_seed(0)) + 0.5
    search = SearchSpace(binary_operators=(), unary_operators=("sin", "exp"), niterations=3)
    (front,) = TorchGPRegressor(population_size=150).fit(
        X, torch.sin(torch.exp(X)), search=search, variable_names=["x"]
    )
    assert front[-1].loss < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 0}, "torchgp's population_size must be at least 1, got 0"),
        ({"patience": 0}, "torchgp's patience must be at least 1, got 0"),
        ({"search_rows": 2.5}, "torchgp's search_rows must be a whole number, got 2.5"),
        ({"stop_below": -1.0}, "torchgp's stop_below must be at least 0, got -1.0"),
        ({"n_jobs": 0}, "torchgp's n_jobs must be a number of jobs, or -1 for one per core, got 0"),
        ({"device": "gpu"}, "torchgp's device must be a device of torch, like 'cpu' or 'cuda', got 'gpu'"),
        ({"device": 1.5}, "got 1.5"),
        ({"start": "x0"}, "start takes a list of equations, like"),
        ({"start": 3}, "start takes a list of equations, not a int"),
        ({"start": [2.0]}, "start takes texts and candidates; 2.0 is a float"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        TorchGPRegressor.with_options(options)


class TestContract(RegressorContract):
    @pytest.fixture
    def regressor(self) -> TorchGPRegressor:
        return TorchGPRegressor(population_size=400, search_rows=256)


def test_inputs_with_a_great_offset_are_told_apart() -> None:
    X = make_inputs(200)
    (front,) = TorchGPRegressor(population_size=200).fit(
        1e9 + X,
        2 * X[:, :1] - X[:, 1:2],
        search=SearchSpace(binary_operators=("+", "-", "*"), unary_operators=(), niterations=20),
        variable_names=NAMES,
    )
    assert front[-1].loss < 1e-9


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_inner_targets_have_no_unit(unit: float) -> None:
    X = make_inputs(200)
    target, ones = torch.exp(X[:, :1]) + 0.5, torch.ones(1, 200, dtype=torch.float64)
    plain, scaled = (
        invert_targets(Rows.of(X.float(), factor * target, ones), make_primitives()) for factor in (1.0, unit)
    )
    for here, there in zip(plain, scaled, strict=True):
        assert here.possible.all()
        assert there.possible.all()
        torch.testing.assert_close(here.rows.targets, there.rows.targets)
        torch.testing.assert_close(here.rows.weights, there.rows.weights)
