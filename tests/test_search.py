"""What a search may be asked, and what is refused before any work."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest
import torch

from symtorch_core import distill
from symtorch_core.errors import BackendError, FileFormatError, SearchError
from symtorch_core.events.records import (
    Callback,
    Event,
    Interrupted,
    OutputFinished,
    OutputImproved,
    OutputInterrupted,
    OutputProgressed,
    StageTold,
    notify,
)
from symtorch_core.expressions import Expression, constants, parse
from symtorch_core.search.checkpoint import FrontStore
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.losses import LOSSES
from symtorch_core.search.precision import compute_resolution, fits_single, is_constant
from symtorch_core.search.problem import Problem
from symtorch_core.search.regressor import OutputwiseRegressor, Regressor, read_start
from symtorch_core.search.run import fill_missing_fronts, regress
from symtorch_core.search.space import SearchSpace
from symtorch_core.studies import Store
from symtorch_core.testing.scripted import ScriptedRegressor


def test_the_defaults_are_those_of_the_paper() -> None:
    search = SearchSpace()
    assert search.binary_operators == ("+", "*")
    assert search.unary_operators == ("inv", "sin", "exp")
    assert search.operators == ("+", "*", "inv", "sin", "exp")
    assert search.complexity_of_operators == {"sin": 3, "exp": 3}
    assert search.niterations == 400
    assert search.rules.count(parse("sin(x)*2")) == 6


def test_aliases_and_repetitions_become_one_name() -> None:
    search = SearchSpace(
        binary_operators=["plus", "+", "pow"],
        unary_operators=[],
        complexity_of_operators={"pow": 2},
        constraints={"pow": (-1, 1)},
        nested_constraints={"pow": {"pow": 0}},
    )
    assert search.binary_operators == ("+", "^")
    assert search.complexity_of_operators == {"^": 2}
    assert search.constraints == {"^": (-1, 1)}
    assert search.nested_constraints == {"^": {"^": 0}}


def test_one_number_constrains_a_unary_operator() -> None:
    search = SearchSpace(constraints={"sin": 3})
    assert search.constraints == {"sin": (3,)}
    assert search.admits(parse("sin(x + 1)"))
    assert not search.admits(parse("sin(x + 1 + y)"))


def test_what_it_admits() -> None:
    search = SearchSpace(maxsize=5, complexity_of_variables={"x": 2}, nested_constraints={"exp": {"exp": 0}})
    assert search.admits(parse("y + y*y"))
    assert not search.admits(parse("y + y*x"))
    assert not SearchSpace(nested_constraints={"exp": {"exp": 0}}).admits(parse("exp(1 + exp(x))"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"binary_operators": ("sin",)}, "'sin' does not take 2 argument.*binary_operators"),
        ({"unary_operators": ("+",)}, r"'\+' does not take 1 argument.*unary_operators"),
        ({"unary_operators": ("sine",)}, "unknown operator 'sine'. Did you mean 'sin'"),
        ({"unary_operators": "sin"}, "takes a list of names"),
        ({"complexity_of_operators": {"sine": 3}}, "unknown operator 'sine'"),
        ({"nested_constraints": {"sin": {"cosine": 0}}}, "unknown operator 'cosine'"),
        ({"constraints": {"^": (1,)}}, "needs 2 number"),
        ({"constraints": {"^": 1}}, "needs 2 number"),
        ({"constraints": {"sin": (1, 2)}}, "needs 1 number"),
        ({"loss": "maee"}, "unknown loss 'maee'. Did you mean 'mae'.*Known losses: mse, mae, huber"),
        ({"niterations": 0}, "niterations"),
        ({"maxsize": 0}, "maxsize"),
        ({"parsimony": -1.0}, "parsimony"),
        ({"timeout_in_seconds": 0}, "timeout_in_seconds must be positive"),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        SearchSpace(**fields)  # type: ignore[arg-type]


NO_NUMBERS: tuple[object, ...] = (None, "1", [1], {"x": 1}, object(), True, math.nan)
NO_WHOLE_NUMBERS = (*NO_NUMBERS, 1.0, 2.5, math.inf)
NO_NAMES: tuple[object, ...] = (
    None,
    3,
    math.nan,
    True,
    object(),
    "sin",
    {"sin": 1},
    {"sin"},
    [1],
    [None],
    [["sin"]],
)
NO_DICTIONARIES: tuple[object, ...] = (None, 3, math.nan, True, object(), "sin", [("sin", 1)], {"sin"})
WRONG: dict[str, tuple[object, ...]] = {
    "binary_operators": (*NO_NAMES, ["+", "sin"], [""], ["f(x, y) = x", "f(x, y) = y"]),
    "unary_operators": (*NO_NAMES, ["+"], [""], ["f(x) = "]),
    "niterations": (*NO_WHOLE_NUMBERS, 0, -1),
    "maxsize": (*NO_WHOLE_NUMBERS, 0, -1),
    "parsimony": (*NO_NUMBERS, -1.0, math.inf),
    "complexity_of_operators": (
        *NO_DICTIONARIES,
        {1: 1},
        {None: 1},
        {"sine": 1},
        *({"sin": value} for value in (*NO_WHOLE_NUMBERS, -1)),
    ),
    "complexity_of_constants": (*NO_WHOLE_NUMBERS, -1, 31),
    "complexity_of_variables": (
        *(value for value in NO_WHOLE_NUMBERS if not isinstance(value, dict)),
        -1,
        {1: 1},
        *({"x": value} for value in (*NO_WHOLE_NUMBERS, -1)),
    ),
    "constraints": (
        *NO_DICTIONARIES,
        {1: 1},
        {"sine": 1},
        {"^": (1,)},
        {"sin": ()},
        {"sin": {1}},
        {"^": "12"},
        *({"sin": value} for value in NO_WHOLE_NUMBERS if value != [1]),
        {"sin": -2},
        {"^": (1, True)},
        {"^": (1.0, 1)},
    ),
    "nested_constraints": (
        *NO_DICTIONARIES,
        {1: {}},
        {"sin": {1: 1}},
        {"sin": {"sine": 1}},
        *({"sin": value} for value in NO_DICTIONARIES),
        *({"sin": {"exp": value}} for value in (*NO_WHOLE_NUMBERS, -1)),
    ),
    "loss": (None, 3, math.nan, True, object(), ["mse"], {"mse": 1}, "", "mean", "r", "-r^2", len, str),
    "timeout_in_seconds": (*(value for value in NO_NUMBERS if value is not None), 0, -1.0, math.inf),
    "refine": (None, 0, 1, "yes", math.nan, [True], object()),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}-{number}")
        for field, values in WRONG.items()
        for number, value in enumerate(values)
    ],
)
def test_a_wrong_value_of_a_field_is_refused(field: str, value: object) -> None:
    with pytest.raises(SearchError):
        SearchSpace(**{field: value})  # type: ignore[arg-type]


def test_the_table_of_wrong_values_has_every_field() -> None:
    assert WRONG.keys() == SearchSpace.field_names()


def test_what_is_unusual_and_right() -> None:
    search = SearchSpace(
        binary_operators=(name for name in ("+", "*")),
        unary_operators=[],
        maxsize=np.int64(9),
        parsimony=0,
        complexity_of_operators={},
        complexity_of_constants=0,
        constraints={"^": [-1, 1], "sin": -1},
        timeout_in_seconds=1,
    )
    assert (search.operators, search.maxsize) == (("+", "*"), 9)
    assert search.constraints == {"^": (-1, 1), "sin": (-1,)}


def test_a_maxsize_that_holds_no_constant_is_refused() -> None:
    with pytest.raises(
        SearchError, match="no equation fits into maxsize=3: a constant alone has the complexity 4"
    ):
        SearchSpace(maxsize=3, complexity_of_constants=4)


def test_complexities_of_variables_that_there_are_not_are_refused_before_the_search() -> None:
    X = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    engine = ScriptedRegressor(equations=("speed",))
    settings: dict[str, Any] = {"regressor": engine, "variable_names": ["mass", "speed"], "progress": False}
    with pytest.raises(
        SearchError, match="names 'sped', which is no input.*Did you mean 'speed'.*mass, speed"
    ):
        distill((X, X[:, 1:]), complexity_of_variables={"sped": 2}, **settings)
    result = distill((X, X[:, 1:]), complexity_of_variables={"speed": 2}, **settings)
    assert result.front()[-1].complexity == 2


@final
@dataclass(frozen=True)
class Recorder(OutputwiseRegressor):
    """A backend that notes the seed of each output."""

    name: ClassVar[str] = "recorder"
    n_jobs: int = 1
    seeds: list[int] = field(default_factory=list)

    def check(self, search: SearchSpace) -> None:
        """Accept every search."""

    def search(self, problem: Problem) -> list[Expression]:
        self.seeds.append(problem.seed)
        return []


def test_the_seed_of_an_output_depends_on_the_seed_and_on_its_data_alone() -> None:
    X = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    recorder = Recorder()

    def record(Y: torch.Tensor, seed: int) -> list[int]:
        recorder.seeds.clear()
        recorder.fit(X, Y, search=SearchSpace(), variable_names=["a", "b"], seed=seed)
        return list(recorder.seeds)

    found = [record(Y, seed)[0] for Y in (X[:, :1], X[:, 1:], 2 * X[:, :1]) for seed in (0, 1, 7)]
    assert len(set(found)) == 9
    assert record(X, 0) == [found[0], found[3]]


def test_it_travels_to_workers() -> None:
    search = SearchSpace(loss="huber", constraints={"exp": 4}, timeout_in_seconds=2.5)
    assert pickle.loads(pickle.dumps(search)) == search
    assert search.loss_function is LOSSES["huber"]


def test_its_field_names_are_what_distill_may_pass_on() -> None:
    assert {"binary_operators", "maxsize", "loss", "refine"} <= SearchSpace.field_names()


ROWS = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def measure_line(
    y: torch.Tensor, weights: torch.Tensor | None = None, search: SearchSpace | None = None
) -> ParetoFront:
    """Return the front of 2 a for a target, measured as the core does."""
    equation, search = parse("2.0*a"), search or SearchSpace()
    loss = search.loss_function(2.0 * ROWS[:, 0], y.double(), weights)
    return ParetoFront([Candidate(equation, search.rules.count(equation), loss)])


LINE = measure_line(ROWS[:, 0])
RUN: dict[str, Any] = {
    "X": ROWS,
    "weights": None,
    "search": SearchSpace(),
    "regressor": ScriptedRegressor(equations=("a",)),
    "variable_names": ("a", "b"),
    "seed": 0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"X": 2 * ROWS},
        {"X": ROWS.float()},
        {"weights": torch.ones(50)},
        {"search": SearchSpace(maxsize=9)},
        {"search": SearchSpace(constraints={"sin": 3})},
        {"regressor": ScriptedRegressor(equations=("b",))},
        {"regressor": Recorder()},
        {"variable_names": ("a", "c")},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_finished_front_is_of_its_data_and_settings_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    folder, y = tmp_path / "new" / "folder", ROWS[:, :1]
    store = FrontStore(folder, **RUN)
    assert store.load(y) is None
    store.save(y, [LINE])
    other = FrontStore(folder, **{**RUN, **change})
    assert other.load(y) is None
    assert other.folder(ROWS) != store.folder(ROWS)
    assert store.load(2 * y) is None
    assert store.load(ROWS) is None  # a set of two outputs
    again = FrontStore(folder, **{**RUN, "regressor": ScriptedRegressor(equations=("a",), n_jobs=2)})
    assert again.load(y) == [LINE]


def test_a_set_of_fronts_is_kept_in_one_file(tmp_path: Path) -> None:
    fronts = [measure_line(ROWS[:, 0]), measure_line(ROWS[:, 1])]
    store = FrontStore(tmp_path, **RUN)
    store.save(ROWS, fronts)
    assert store.load(ROWS) == fronts
    assert store.load(ROWS.flip(1)) is None
    assert len(list(tmp_path.iterdir())) == 1


def test_the_folder_of_a_backend_is_beside_the_fronts_and_of_its_targets(tmp_path: Path) -> None:
    store = FrontStore(tmp_path, **RUN)
    assert store.folder(ROWS).parent == tmp_path
    assert not store.folder(ROWS).exists()
    assert store.folder(ROWS) == FrontStore(tmp_path, **RUN).folder(ROWS.clone())
    assert len({store.folder(ROWS), store.folder(ROWS[:, :1]), store.folder(2 * ROWS)}) == 3


FALSE = [
    {},
    {"equation": "q", "complexity": 1, "loss": 1.0, "validation_loss": None, "errors": None},
    {"equation": "a*0.0", "complexity": 3, "loss": 0.0, "validation_loss": None, "errors": None},
    {
        "equation": "2.0*a",
        "complexity": 3,
        "loss": 1.001 * LINE[0].loss,
        "validation_loss": None,
        "errors": None,
    },
    {"equation": "2.0*a", "complexity": 1, "loss": LINE[0].loss, "validation_loss": None, "errors": None},
]


@pytest.mark.parametrize("entry", FALSE, ids=lambda entry: entry.get("equation", "nothing"))
def test_a_front_that_is_not_of_the_rows_is_refused_whatever_its_checksum(
    tmp_path: Path, entry: dict[str, Any]
) -> None:
    store = FrontStore(tmp_path, **RUN)
    store.save(ROWS[:, :1], [LINE])
    (path,) = tmp_path.iterdir()
    Store(tmp_path).write_json(path.stem, [[entry]])
    with pytest.raises(
        FileFormatError, match=rf"{path.name} is damaged .*delete it, and its work is done again"
    ):
        store.load(ROWS[:, :1])


def test_an_exact_front_is_the_same_on_a_machine_that_rounds_otherwise(tmp_path: Path) -> None:
    store, exact = FrontStore(tmp_path, **RUN), 2 * ROWS[:, :1]
    for loss in (0.0, 1e-33):
        store.save(exact, [ParetoFront([Candidate(parse("2.0*a"), 3, loss)])])
        assert store.load(exact) == [ParetoFront([Candidate(parse("2.0*a"), 3, loss)])]


def test_no_byte_of_a_front_can_change_unnoticed(tmp_path: Path) -> None:
    store = FrontStore(tmp_path, **RUN)
    store.save(ROWS[:, :1], [LINE])
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        for other in {b"0", b"9", b" ", b"x", bytes([whole[place] ^ 1])} - {whole[place : place + 1]}:
            path.write_bytes(whole[:place] + other + whole[place + 1 :])
            try:
                assert store.load(ROWS[:, :1]) == [LINE], path.read_text()
            except FileFormatError as error:
                assert str(path) in str(error)  # noqa: PT017 - a change of blanks is no damage


@final
@dataclass(frozen=True)
class Told(Regressor):
    """A backend that notes what it is given, tells of each output, and ends as asked."""

    name: ClassVar[str] = "told"
    neutral_options: ClassVar[tuple[str, ...]] = ("ends", "given")
    independent_outputs: ClassVar[bool] = True
    ends: BaseException | None = None
    given: list[dict[str, Any]] = field(default_factory=list)

    def fit(
        self, X: torch.Tensor, Y: torch.Tensor, *, callbacks: Sequence[Callback] = (), **settings: Any
    ) -> list[ParetoFront]:
        self.given.append({"X": X, "Y": Y, **settings})
        fronts = [measure_line(y, settings["weights"], settings["search"]) for y in Y.T]
        notify(callbacks, StageTold("regress", "started"))
        for column, front in enumerate(fronts):
            notify(callbacks, OutputProgressed(column, 0.5))
            notify(callbacks, OutputImproved(column, "a", 0.5, 1))
            if self.ends is not None and column == 1:
                notify(callbacks, OutputInterrupted(column, front))
                raise self.ends
            notify(callbacks, OutputFinished(column, front))
        return fronts


@final
@dataclass(frozen=True)
class Joint(Regressor):
    """The same with outputs that belong together."""

    name: ClassVar[str] = "joint"
    neutral_options: ClassVar[tuple[str, ...]] = ("engine",)
    engine: Told = field(default_factory=Told)

    def fit(self, X: torch.Tensor, Y: torch.Tensor, **settings: Any) -> list[ParetoFront]:
        return self.engine.fit(X, Y, **settings)


def test_a_backend_gets_the_whole_search_and_its_events_have_the_numbers_of_the_outputs(
    tmp_path: Path,
) -> None:
    Y = torch.stack([ROWS[:, 0] + i for i in range(3)], dim=1)
    weights, search = torch.linspace(1, 2, 50), SearchSpace(maxsize=9)

    def run(engine: Told, *columns: int, **more: Any) -> tuple[dict[int, ParetoFront], list[Event]]:
        events: list[Event] = []
        settings = {"weights": weights, "seed": 7, "callbacks": [events.append], **more}
        found, stopped = regress(engine, ROWS, Y[:, columns], search, ["a", "b"], **settings)
        assert not stopped
        return found, events

    engine = Told()
    lines = [measure_line(y, weights, search) for y in Y.T]
    assert run(engine, 1, resume=tmp_path)[0] == {0: lines[1]}
    found, events = run(engine, 0, 1, 2, resume=tmp_path)
    assert found == dict(enumerate(lines))
    assert events == [
        OutputFinished(1, lines[1]),  # from the disk
        StageTold("regress", "started"),
        *(
            event
            for column in (0, 2)
            for event in (
                OutputProgressed(column, 0.5),
                OutputImproved(column, "a", 0.5, 1),
                OutputFinished(column, lines[column]),
            )
        ),
    ]
    given = engine.given[1]
    assert torch.equal(given["Y"], Y[:, [0, 2]])
    assert given["X"] is ROWS
    assert given["weights"] is weights
    assert (given["search"], given["variable_names"], given["seed"]) == (search, ("a", "b"), 7)
    assert given["folder"].parent == tmp_path
    run(engine, 0)
    assert engine.given[2]["folder"] is None
    run(engine, 0, resume=tmp_path, weights=2 * weights)
    assert len(engine.given) == 4  # under other weights it is another search


@pytest.mark.parametrize("joint", [False, True], ids=["independent", "joint"])
@pytest.mark.parametrize(
    "ends", [KeyboardInterrupt(), BackendError("out of memory")], ids=["user", "backend"]
)
def test_of_a_stopped_search_the_best_so_far_is_kept_and_not_saved(
    tmp_path: Path, ends: BaseException, joint: bool
) -> None:
    events: list[Event] = []
    Y = torch.cat([ROWS, 2 * ROWS], 1)
    lines = [measure_line(y) for y in Y.T]

    def run(engine: Told) -> tuple[dict[int, ParetoFront], bool]:
        backend = Joint(engine) if joint else engine
        return regress(
            backend, ROWS, Y, SearchSpace(), ["a", "b"], callbacks=[events.append], resume=tmp_path
        )

    if isinstance(ends, BackendError):
        with pytest.warns(RuntimeWarning, match="out of memory\n.*is kept"):
            found, stopped = run(Told(ends))
    else:
        found, stopped = run(Told(ends))
    assert (found, stopped) == ({0: lines[0], 1: lines[1]}, True)
    assert events[-2:] == [OutputInterrupted(1, lines[1]), Interrupted(2)]
    engine = Told()
    assert run(engine) == (dict(enumerate(lines)), False)
    assert engine.given[0]["Y"].shape == (50, 4 if joint else 3)
    assert run(engine) == (dict(enumerate(lines)), False)
    assert len(engine.given) == 1


def test_outputs_that_belong_together_are_searched_again_in_other_company(tmp_path: Path) -> None:
    engine = Told()
    for columns in ([0, 1], [0], [0, 1], [1, 0]):
        regress(Joint(engine), ROWS, ROWS[:, columns], SearchSpace(), ["a", "b"], resume=tmp_path)
    assert [tuple(given["Y"].shape) for given in engine.given] == [(50, 2), (50, 1), (50, 2)]


def test_a_second_run_of_a_search_is_refused_while_the_first_one_is_at_it(tmp_path: Path) -> None:
    refused: list[str] = []

    def start(seed: int = 0, callbacks: Sequence[Callback] = ()) -> None:
        regress(
            Told(), ROWS, ROWS, SearchSpace(), ["a", "b"], seed=seed, resume=tmp_path, callbacks=callbacks
        )

    def start_another(event: Event) -> None:
        if isinstance(event, OutputProgressed):
            with pytest.raises(SearchError, match="another run is doing the same search") as caught:
                start()
            refused.append(str(caught.value))
            start(seed=1)  # another search, side by side

    start(callbacks=[start_another])
    assert len(refused) == 2
    assert str(tmp_path) in refused[0]
    assert "another folder" in refused[0]
    with FrontStore(tmp_path, **{**RUN, "regressor": Told()}).lock(ROWS):
        start()  # finished work is read whoever is at work


def test_a_full_disk_does_not_lose_a_finished_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", write)
        with pytest.warns(
            RuntimeWarning, match=rf"{tmp_path}.*fronts-.*json was not written .*No space left"
        ):
            found, stopped = regress(Told(), ROWS, ROWS, SearchSpace(), ["a", "b"], resume=tmp_path)
    assert (found, stopped) == ({0: measure_line(ROWS[:, 0]), 1: measure_line(ROWS[:, 1])}, False)
    engine = Told()
    regress(engine, ROWS, ROWS, SearchSpace(), ["a", "b"], resume=tmp_path)
    assert len(engine.given) == 1  # searched again, since nothing was saved


def test_an_output_that_was_not_reached_gets_its_best_constant_under_the_weights() -> None:
    T = torch.stack([ROWS[:, 0], 5 + ROWS[:, 1]], dim=1)
    weights = torch.arange(50.0)
    for w in (None, weights):
        fronts = fill_missing_fronts({0: LINE}, T, SearchSpace(), w)
        assert fronts[0] == LINE
        (constant,) = fronts[1]
        expected = np.average(T[:, 1].numpy(), weights=None if w is None else w.numpy())
        assert constants(constant.expression) == pytest.approx((expected,))


def make_problem(rows: int, weights: np.ndarray | None = None, seed: int = 0, **more: Any) -> Problem:
    X = np.arange(2.0 * rows).reshape(rows, 2)
    return Problem(X, 10 * X[:, 0], weights, SearchSpace(), ("a", "b"), seed, **more)


def test_a_sample_of_rows_to_search_on_is_without_repetition_and_in_order() -> None:
    problem = make_problem(100)
    for most in (100, 101):
        X, y = problem.search_rows(most)
        assert X is problem.X
        assert y is problem.y
    X, y = problem.search_rows(99)
    assert X.shape == (99, 2)
    assert (np.diff(X[:, 0]) > 0).all()
    assert np.array_equal(y, 10 * X[:, 0])
    assert np.array_equal(problem.search_rows(99)[0], X)
    assert not np.array_equal(make_problem(100, seed=1).search_rows(99)[0], X)


def test_rows_to_search_on_are_drawn_in_proportion_to_their_weights() -> None:
    weights = np.repeat([0.0, 1.0, 3.0], 1000)
    problem = make_problem(3000, weights)
    assert len(problem.search_rows(5000)[1]) == 3000
    X, y = problem.search_rows(2000)
    assert np.array_equal(y, 10 * X[:, 0])
    assert (np.diff(X[:, 0]) >= 0).all()
    group = (X[:, 0] / 2).astype(int) // 1000
    counts = np.bincount(group, minlength=3)
    assert counts[0] == 0
    assert counts[2] / counts[1] == pytest.approx(3, rel=0.15)
    assert counts.sum() == 2000


def test_a_problem_tells_its_callbacks_of_its_output() -> None:
    events: list[Event] = []
    problem = make_problem(2, callbacks=(events.append,), output=4)
    problem.report_progress(0.5)
    problem.report_progress(1.5)
    problem.report_improvement(parse("2.0*a"), 0.25)
    assert events == [OutputProgressed(4, 0.5), OutputProgressed(4, 1.0), OutputImproved(4, "2.0*a", 0.25)]


def test_equations_to_start_from_are_texts_and_candidates_to_the_last_digit() -> None:
    assert read_start(["a + b", Candidate(parse("0.123456789*a"), 3, 0.5)]) == ("a + b", "0.123456789*a")
    for wrong, message in (("a", r"like \('a',\)"), (3, "not a int"), ([1], "1 is a int")):
        with pytest.raises(SearchError, match=message):
            read_start(wrong)


def test_the_last_digit_is_that_of_the_precision_the_values_came_in() -> None:
    assert compute_resolution(np.array([0.5, -4.0, 1.0])) == 4 * 2.0**-23
    assert compute_resolution(np.array([0.1, -4.0, 1.0])) == 4 * 2.0**-52
    assert compute_resolution(np.zeros(3)) == compute_resolution(np.zeros(0)) == 0


def test_what_differs_by_its_last_digit_is_constant_where_rows_count() -> None:
    digit = 2.0**-52
    assert is_constant(np.array([0.8, 0.8, 0.8 + digit / 2]))
    assert not is_constant(np.array([0.8, 0.8, 0.8 + 2 * digit]))
    values = np.array([2.1, 2.1, 5.0])
    assert not is_constant(values)
    assert not is_constant(values, np.array([0.0, 0.1, 0.1]))
    assert is_constant(values, np.array([0.1, 0.5, 0.0]))
    assert is_constant(values, np.zeros(3))


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        (np.zeros(3), True),
        (np.array([0.0, -1e9]), True),
        (np.array([0.0, -1.01e9]), False),
        (np.array([0.0, -1e-9]), True),
        (np.array([0.0, -0.99e-9]), False),
        (np.array([0.0, 1e39]), False),
        (1e3 + np.linspace(0, 1, 99), True),  # moved by 3e-5 of the range
        (1e4 + np.linspace(0, 1, 99), False),  # by 5e-4
        (1e4 + np.linspace(0, 10, 99), True),
        (1e8 + 8 * np.arange(9.0), True),  # numbers of single precision
        (np.full(9, 0.1), True),
    ],
)
def test_what_single_precision_tells_apart(values: np.ndarray, fits: bool) -> None:
    assert fits_single(values) is fits


def test_targets_that_are_one_number_where_rows_count_are_not_searched() -> None:
    recorder, weights = Recorder(), (torch.arange(50) > 9).double()
    Y = torch.where(weights > 0, 2.5, ROWS[:, 0])[:, None]
    fit = {"search": SearchSpace(), "variable_names": ["a", "b"]}
    (front,) = recorder.fit(ROWS, Y, weights=weights, **fit)
    assert recorder.seeds == []
    assert front[0].text() == "2.5"
    recorder.fit(ROWS, Y, **fit)
    assert len(recorder.seeds) == 1
