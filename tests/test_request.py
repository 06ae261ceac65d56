"""What a distillation is asked: each option has an owner, and each argument is checked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import symtorch_core as st
from symtorch_core.events import StageStarted
from symtorch_core.testing import ScriptedRegressor

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
Y = X[:, :1] + 2 * X[:, 1:]


class Untouchable(nn.Module):
    """A block that must not run: whatever is wrong is known before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the block ran")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # options by themselves, which somebody else owns
        (
            {"batch_size": 5},
            r"'batch_size' is an option of the capture 'hooks': give capture_options=\{'batch_size'",
        ),
        ({"n_jobs": 2}, r"'n_jobs' is an option of the regressor 'torchgp': give regressor_options="),
        (
            {"device": "cpu"},
            "capture 'hooks' and the regressor 'torchgp': give capture_options=.* or regressor_options=",
        ),
        ({"reducer": "pca", "k_in": 2}, r"'k_in' is an option of the reducer 'pca': give reducer_options="),
        ({"regressor": "pysr", "populations": 9}, "'populations' is an option of the regressor 'pysr'"),
        # options that nobody owns
        (
            {"niteration": 5},
            "no option 'niteration'. Did you mean 'niterations', a field of the search space",
        ),
        ({"island": 5}, r"no option 'island'. Did you mean 'islands', in regressor_options\?"),
        ({"reducers": "pca"}, r"no option 'reducers'. Did you mean 'reducer'\?"),
        ({"zzz": 5}, "no option 'zzz'. Fields of the search space"),
        # options that went to the wrong owner, or in another form
        ({"regressor_options": {"maxsize": 5}}, "'maxsize' is a field of the search space.*give maxsize="),
        ({"regressor_options": {"islnds": 5}}, "'torchgp' has no option 'islnds'. Did you mean 'islands'"),
        ({"capture_options": {"select_inputs": 0}}, "Did you mean 'select_input'"),
        ({"regressor_options": ["islands"]}, "regressor_options takes a dictionary"),
        ({"regressor_options": {"islands": 0}}, "torchgp's islands must be at least 1, got 0"),
        (
            {"regressor": ScriptedRegressor(), "regressor_options": {"n_jobs": 2}},
            "to the scripted instance itself",
        ),
        ({"search": {"maxsize": 3}}, "search must be a SearchSpace"),
        ({"search": st.SearchSpace(), "maxsize": 3}, "search= or its fields, not both: maxsize"),
        # arguments of a wrong type, or without meaning
        ({"parent": 3}, "parent must be the model"),
        ({"variable_names": "ab"}, r"variable_names takes a list of names, like \['ab'\]"),
        ({"variable_names": [1, 2]}, "variable_names takes a list of names; 1 is a int"),
        ({"output_names": 3}, "output_names takes a list of names, not a int"),
        ({"transforms": "r = x0"}, "transforms takes a dictionary"),
        ({"transforms": {"r": "x0 +"}}, "transform 'r': cannot read"),
        ({"transforms": ["x0"]}, "transforms takes a dictionary"),
        ({"transforms": {"r 1": "x0"}}, "'r 1' cannot name a variable"),
        ({"transforms": {"r": 3}}, "transform 'r' must be an expression or a function"),
        ({"variable_names": ["a", "a"]}, "variable_names must differ"),
        ({"output_names": [None, "b"]}, "output_names takes a list of names; None is a NoneType"),
        ({"output_names": ["b", " "]}, "output_names takes a list of names; ' ' is empty"),
        ({"output_names": {"a", "b"}}, "output_names takes a list of names, not a set"),
        ({"outputs": 0}, "outputs takes a list of output columns"),
        ({"outputs": []}, r"outputs=\[\]: give different numbers or names of output columns, at least one"),
        ({"outputs": [0, 0]}, r"outputs=\[0, 0\]: give different numbers"),
        ({"outputs": [False, True]}, "outputs takes the numbers of columns, like .*, not a mask"),
        ({"outputs": np.array([True, False])}, "not a mask of True and False"),
        ({"outputs": torch.tensor([True, False])}, "not a mask of True and False"),
        ({"outputs": torch.tensor([0.0, 1.0])}, "each of outputs must be a whole number"),
        ({"outputs": [-1]}, "each of outputs must be at least 0"),
        ({"weights": [-1.0, 1.0]}, "weights must be finite and not negative"),
        ({"data": "rows.csv"}, "str is not data"),
        ({"outputs": [0.5]}, "each of outputs must be a whole number"),
        ({"surrogate": 3}, "surrogate must be the name"),
        ({"select": "scor"}, "unknown rule 'scor'. Did you mean 'score'"),
        ({"select": 3}, "unknown rule 3"),
        ({"test_fraction": "0.2"}, "test_fraction must be a finite number"),
        ({"test_fraction": 1}, "test_fraction must be at least 0 and less than 1"),
        ({"max_rows": 1}, "max_rows must be at least 2"),
        ({"max_rows": 10.0}, "max_rows must be a whole number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": True}, "seed must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": 2**32}, "seed must be at most 4294967295"),
        ({"out_of_range": 1}, "out_of_range must be True or False"),
        ({"progress": "no"}, "progress must be True or False"),
        ({"resume": 3}, "resume must be the path of a folder"),
        ({"callbacks": print}, "callbacks takes a list of functions"),
        ({"callbacks": ["print"]}, "'print' is not callable"),
        ({"timeout_in_seconds": float("nan")}, "timeout_in_seconds must be a finite number"),
        ({"timeout_in_seconds": "10"}, "timeout_in_seconds must be a finite number"),
        ({"niterations": 2.5}, "niterations must be a whole number"),
        ({"complexity_of_constants": -1}, "complexity_of_constants must be at least 0"),
        ({"refine": "yes"}, "refine must be True or False"),
    ],
)
def test_is_refused_before_the_block_runs(options: dict[str, Any], message: str) -> None:
    if options.get("regressor") == "pysr":
        pytest.importorskip("symtorch_pysr")
    with pytest.raises(st.SymTorchError, match=message):
        st.distill(Untouchable(), **{"data": X, "regressor": "torchgp", "progress": False, **options})


@pytest.mark.parametrize("outputs", [[1, 0], np.array([1, 0]), torch.tensor([1, 0]), iter([1, 0])])
def test_columns_may_come_as_an_array(outputs: Any) -> None:
    result = st.distill(
        (X, torch.cat([Y, 2 * Y], dim=1)), regressor="sparse", outputs=outputs, progress=False
    )
    assert result.outputs == (1, 0)
    assert result.output_names == ("y1", "y0")


@pytest.mark.parametrize("select", ["simplest", "validation"])
@pytest.mark.parametrize(("rows", "fraction"), [(4, 0.1), (60, 0.0), (2, 0.4)])
def test_a_rule_without_held_out_rows_is_refused_before_the_search(
    select: str, rows: int, fraction: float
) -> None:
    events: list[Any] = []
    with pytest.raises(st.SelectionError, match=f'the rule "{select}" needs rows held out'):
        st.distill(
            (X[:rows], Y[:rows]),
            regressor="sparse",
            select=select,
            test_fraction=fraction,
            callbacks=[events.append],
            progress=False,
        )
    assert not any(isinstance(event, StageStarted) for event in events)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    result = st.distill(
        (X, Y),
        regressor="sparse",
        seed=np.int64(3),
        maxsize=np.int32(9),
        parsimony=np.float32(0),
        progress=False,
    )
    result.save(tmp_path / "r.json")
    assert st.Distillation.load(tmp_path / "r.json").provenance.seed == 3


def test_a_metric_is_refused_before_the_block_runs() -> None:
    block = st.SymbolicModel(Untouchable())
    with pytest.raises(st.SearchError, match="metric must be a function of the model.*capture_options="):
        block.distill(X, regressor="torchgp", capture="slime", metric="cosine")
    assert block.mode == "block"


def test_options_reach_their_owners() -> None:
    seen: list[torch.Size] = []

    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape)
            return x[:, :1] * 3

    result = st.distill(
        Block(),
        X,
        regressor="sparse",
        regressor_options={"degree": 1},
        reducer="pca",
        reducer_options={"k_in": 2},
        capture_options={"batch_size": 25},
        maxsize=9,
        progress=False,
    )
    assert [shape[0] for shape in seen[:3]] == [25, 25, 10]
    assert result.reduction.variable_names == ("z0", "z1")
    assert result.search.maxsize == 9
    assert result.fidelity[0].train.r2 == pytest.approx(1.0)


def test_what_can_be_read_once_is_read_once() -> None:
    events: list[Any] = []
    result = st.distill(
        (X, Y.repeat(1, 2)),
        regressor="sparse",
        variable_names=(name for name in "ab"),
        output_names=iter(["p", "q"]),
        outputs=iter([1]),
        unary_operators=(name for name in ["sin"]),
        callbacks=iter([events.append]),
        progress=False,
    )
    assert list(result.equations()) == ["q"]
    assert result.reduction.variable_names == ("a", "b")
    assert result.search.unary_operators == ("sin",)
    assert events


def test_rows_that_are_given_are_not_captured() -> None:
    with pytest.raises(st.SearchError, match="select_input: the rows are given"):
        st.distill((X, Y), regressor="sparse", capture_options={"select_input": 0}, progress=False)
    bad = Y.clone()
    bad[3] = float("nan")
    result = st.distill(
        (X, bad), regressor="sparse", capture_options={"on_nonfinite": "drop"}, progress=False
    )
    assert result.provenance.source.rows_dropped == 1
