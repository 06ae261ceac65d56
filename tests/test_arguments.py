"""Every argument of every public function means one thing or is refused, before any work, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.testing import ScriptedRegressor

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([[1.0, 0.5], [2.0, -1.0]])
POINTS = torch.rand(20, 2, dtype=torch.float64)


class Untouchable(nn.Module):
    """A block that must not run: whatever is wrong is known before."""

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("the block ran")


class Object:
    def __repr__(self) -> str:
        return "Object()"


WRONG: dict[str, Any] = {
    "None": None,
    "nan": float("nan"),
    "inf": float("inf"),
    "-1": -1,
    "0": 0,
    "2.5": 2.5,
    "2**40": 2**40,
    "True": True,
    "text": "no such thing",
    "empty text": "",
    "[]": [],
    "{}": {},
    "object": Object(),
    "[object]": [Object()],
    "[None]": [None],
    "['a', 'a']": ["a", "a"],
    "[0, 0]": [0, 0],
    "mask": [True, False],
    "array mask": np.array([True, False]),
    "tensor mask": torch.tensor([False, True]),
    "{0: 0}": {0: 0},
    "{'a': object}": {"a": Object()},
    "function": lambda *args: None,
}


@pytest.fixture(scope="module")
def result() -> st.Distillation:
    return st.distill(
        (X, Y),
        regressor=ScriptedRegressor(equations=("x0", "x0 + 2.0*x1", "0.5*x0 - x1")),
        progress=False,
    )


def door(*fine: str, says: str = "", **right: Any) -> tuple[tuple[str, ...], str, dict[str, Any]]:
    """Which wrong values are right for an argument, and what the message calls it if not by its name."""
    return fine, says, right


BATCHES = tuple(kind for kind in WRONG if "mask" in kind or (kind[0] in "[{" and kind not in ("[]", "{}")))
"""What may be batches of data, for all that is known before the model runs."""
SEED = door("0")
FLAG = door("True")
PATH = door("text")
NOTHING = door()
OPTIONAL = door("None")
TEXT = door("None", "text", "empty text")

DISTILL: dict[str, Any] = {
    "block": door("function", says="distill|block|rows are given|X|call"),
    "data": door(
        "{'a': object}",
        "{0: 0}",
        "[object]",
        "[None]",
        "['a', 'a']",
        "[0, 0]",
        "mask",
        "array mask",
        "tensor mask",
        says="data",
    ),
    "parent": door("None", "function"),
    "regressor": door(says="regressor"),
    "regressor_options": door("None", "{}", says="regressor_options|'torchgp' has no option"),
    "reducer": door(says="reducer"),
    "reducer_options": door("None", "{}", says="reducer_options|'identity' has no option"),
    "capture": door(says="capture"),
    "capture_options": door("None", "{}", says="capture_options|'hooks' has no option"),
    "surrogate": door(),
    "variable_names": door("None", "[]"),
    "output_names": door("None", "[]"),
    "transforms": door("None", "{}", says="transform"),
    "outputs": OPTIONAL,
    "weights": door("None", "mask", "array mask", "tensor mask", "True", "2.5", "2**40"),
    "search": OPTIONAL,
    "select": door(says="rule"),
    "test_fraction": door("0"),
    "out_of_range": FLAG,
    "max_rows": door("2**40"),
    "seed": SEED,
    "resume": door("None", "text"),
    "callbacks": door("[]"),
    "progress": FLAG,
}
CAPTURE: dict[str, Any] = {
    "model": door("function", says="model|block"),
    "blocks": door(says="block|submodule"),
    "data": DISTILL["data"],
    "max_rows": door("2**40"),
    "seed": SEED,
    "callbacks": door("[]"),
    "select_input": door("None", "0", "2**40", "text", "['a', 'a']", "[0, 0]"),
    "select_output": door("None", "0", "2**40", "text", "empty text"),
    "row_mask": door("None", "text", "empty text", "function"),
    "on_nonfinite": NOTHING,
    "batch_size": door("2**40"),
    "device": door("None"),
}
REFINE: dict[str, Any] = {
    "blocks": door(says="block"),
    "data": DISTILL["data"],
    "parent": door("None", "function"),
    "loss": door("None", "function"),
    "maps": FLAG,
    "epochs": door("2**40"),
    "learning_rate": door("2.5", "2**40"),
    "patience": door("2**40"),
    "batch_size": door("2**40"),
    "test_fraction": NOTHING,
    "seed": SEED,
    "callbacks": door("[]"),
    "progress": FLAG,
    "max_rows": door("None", "2**40"),
    "capture_options": door("None", "{}", says="capture_options|'hooks' has no option"),
}
SWITCH: dict[str, Any] = {
    "complexity": door("None", says="complexity|equation|choice"),
    "select": door("None", says="rule|equation|choice|choose"),
    "outputs": OPTIONAL,
    "trainable": FLAG,
    "release_block": FLAG,
}
SWEEP: dict[str, Any] = {
    "block": door("function", says="block|model"),
    "data": DISTILL["data"],
    "reducers": door(says="reducers"),
    "k_in": door("[None]"),
    "k_out": door("[None]"),
    "parent": door("None", "function"),
    "network": FLAG,
    "test_fraction": NOTHING,
    "max_rows": door("2**40"),
    "seed": SEED,
    "callbacks": door("[]"),
    "progress": FLAG,
}
RANK: dict[str, Any] = {
    "block": NOTHING,
    "data": DISTILL["data"],
    "by": door("function", says="importance"),
    "parent": door("None", "function"),
    "loss": door("None", "function"),
    "max_rows": door("2**40"),
    "seed": SEED,
    "batch_size": door("2**40"),
}
PRUNER: dict[str, Any] = {
    "block": NOTHING,
    "target_dim": door("2**40"),
    "total_steps": door("2**40"),
    "schedule": NOTHING,
    "end_fraction": NOTHING,
    "importance": door("function"),
}
RESIDUAL: dict[str, Any] = {
    "equation": door("text", "empty text", says="equation|expression|read"),
    "differential_equation": door(says="differential|read"),
    "points": door(says="points|columns"),
    "variable_names": door(says="variable_names|columns|variables"),
    "unknown": door(says="unknown"),
    "constants": door("None", "{}"),
}
IDENTIFY: dict[str, Any] = {k: v for k, v in RESIDUAL.items() if k != "constants"} | {"start": door("{}")}


def untouchable() -> st.SymbolicModel:
    return st.SymbolicModel(Untouchable())


def switched(result: st.Distillation) -> st.SymbolicModel:
    return st.SymbolicModel(Untouchable()).adopt(result).switch_to_symbolic()


def of_distillation(name: str) -> Callable[..., Any]:
    return lambda result, **options: getattr(result, name)(**options)


def of_block(name: str) -> Callable[..., Any]:
    return lambda result, **options: getattr(st.SymbolicModel(nn.Linear(2, 2)).adopt(result), name)(**options)


DOORS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "distill": (
        lambda _, **o: st.distill(**o),
        {"block": Untouchable(), "data": X, "regressor": "torchgp", "progress": False},
        DISTILL,
    ),
    "SymbolicModel.distill": (
        lambda _, **o: untouchable().distill(**o),
        {"data": X, "regressor": "torchgp", "progress": False},
        {k: v for k, v in DISTILL.items() if k != "block"} | {"metric": door("None", "function")},
    ),
    "capture": (
        lambda _, **o: st.capture(**o),
        {"model": nn.Sequential(Untouchable()), "blocks": ["0"], "data": X},
        CAPTURE,
    ),
    "SymbolicModel.capture": (
        lambda _, **o: untouchable().capture(**o),
        {"data": X},
        {k: v for k, v in CAPTURE.items() if k not in ("model", "blocks")},
    ),
    "refine": (
        lambda r, **o: st.refine(**{"blocks": switched(r), **o}),
        {"data": X, "progress": False},
        REFINE,
    ),
    "sweep_reducers": (lambda _, **o: st.sweep_reducers(**o), {"block": Untouchable(), "data": X}, SWEEP),
    "rank_outputs": (lambda _, **o: st.rank_outputs(**{"block": untouchable(), "data": X, **o}), {}, RANK),
    "OutputPruner": (
        lambda _, **o: st.OutputPruner(**{"block": untouchable(), "target_dim": 1, "total_steps": 2, **o}),
        {},
        PRUNER,
    ),
    "OutputPruner.step": (
        lambda _, **o: st.OutputPruner(untouchable(), 1, 2).step(**o),
        {},
        {"sample": door(*BATCHES)},
    ),
    "SymbolicModel": (
        lambda _, **o: st.SymbolicModel(**{"block": Untouchable(), **o}),
        {},
        {"block": door("function"), "name": TEXT},
    ),
    "wrap": (
        lambda _, **o: st.wrap(**{"model": nn.Sequential(Untouchable()), "path": "0", **o}),
        {},
        {
            "model": NOTHING,
            "path": door(says="path|submodule|model itself"),
            "name": door("None", "text", "empty text"),
        },
    ),
    "find_block": (
        lambda _, **o: st.find_block(**{"model": nn.Sequential(Untouchable()), "path": "0", **o}),
        {},
        {"model": NOTHING, "path": door("empty text", says="path|submodule")},
    ),
    "SymbolicModel.adopt": (lambda _, **o: untouchable().adopt(**o), {}, {"result": NOTHING}),
    "SymbolicModel.switch_to_symbolic": (of_block("switch_to_symbolic"), {}, SWITCH),
    "SymbolicModel.front": (of_block("front"), {}, {"equation": door("0", "None")}),
    "SymbolicModel.get_symbolic_function": (
        of_block("get_symbolic_function"),
        {},
        {"output": door("0", "None")},
    ),
    "SymbolicModel.export": (of_block("export"), {}, {"path": door(says="path|format")}),
    "SymbolicModel.prune_outputs": (of_block("prune_outputs"), {}, {"active": door("tensor mask")}),
    "Distillation.front": (of_distillation("front"), {}, {"equation": door("0", "None")}),
    "Distillation.chosen": (of_distillation("chosen"), {}, {k: SWITCH[k] for k in ("select", "complexity")}),
    "Distillation.surrogate": (
        of_distillation("surrogate"),
        {},
        {k: SWITCH[k] for k in ("select", "complexity")},
    ),
    "Distillation.judge": (
        lambda r, **o: r.judge(**{"activations": r.held_out, **o}),
        {},
        {"activations": NOTHING, "select": SWITCH["select"], "complexity": SWITCH["complexity"]},
    ),
    "Distillation.latex": (of_distillation("latex"), {}, {"digits": door("2**40")}),
    "Distillation.plot": (
        of_distillation("plot"),
        {},
        {
            "kind": door(says="kind of plot"),
            "output": door("0", "None", says="output|equation"),
            "ax": OPTIONAL,
        },
    ),
    "Distillation.explore": (of_distillation("explore"), {}, {"equation": door("0", "None")}),
    "Distillation.report": (
        lambda r, **o: r.report(**{"path": "page.html", **o}),
        {},
        {"path": PATH, "title": door("text", "empty text")},
    ),
    "Distillation.export": (
        lambda r, **o: r.export(**{"path": "law.py", **o}),
        {},
        {"path": door(says="path|format"), "surrogate": OPTIONAL},
    ),
    "Distillation.save": (of_distillation("save"), {}, {"path": PATH}),
    "Distillation.load": (
        lambda r, **o: st.Distillation.load(**{"path": "nothing.json", **o}),
        {},
        {
            "path": PATH,
            "transforms": door("None", "{}"),
            "loss": door("None", "function"),
        },
    ),
    "ParetoFront.select": (
        lambda r, **o: r.fronts[0].select(**o),
        {},
        {"rule": NOTHING, "complexity": door("None")},
    ),
    "Transforms": (
        lambda _, **o: st.Transforms(**{"input_names": ["x0"], **o}),
        {},
        {"input_names": door("[]"), "definitions": door("None", "{}", says="transform")},
    ),
    "Activations.of": (
        lambda _, **o: st.Activations.of(**{"X": X, "Y": Y, **o}),
        {},
        {
            "X": door(says="X"),
            "Y": door(says="Y"),
            "weights": door("None", says="weights"),
            "variable_names": door("[]", says="variable_names|names"),
            "output_names": door("[]", says="output_names|names"),
            "on_nonfinite": NOTHING,
        },
    ),
    "Activations.select_outputs": (
        lambda _, **o: st.Activations.of(X, Y).select_outputs(**o),
        {},
        {"outputs": door("[]", says="outputs|output")},
    ),
    "Activations.split": (
        lambda _, **o: st.Activations.of(X, Y).split(**{"fraction": 0.5, "seed": 0, **o}),
        {},
        {"fraction": door("0"), "seed": SEED},
    ),
    "residual_check": (
        lambda _, **o: st.residual_check(
            **{
                "equation": "x + t",
                "differential_equation": "u_t - 1",
                "points": POINTS,
                "variable_names": ["x", "t"],
                **o,
            }
        ),
        {},
        RESIDUAL,
    ),
    "identify_constants": (
        lambda _, **o: st.identify_constants(
            **{
                "equation": "x + t",
                "differential_equation": "u_t - a",
                "points": POINTS,
                "variable_names": ["x", "t"],
                "start": {"a": 0.5},
                **o,
            }
        ),
        {},
        IDENTIFY,
    ),
    "plot_slice": (
        lambda r, **o: st.plot_slice(**{"result": r, "block": nn.Linear(2, 2), "along": "x0", **o}),
        {},
        {
            "block": door("function"),
            "along": door(says="along|slice"),
            "output": door("0", "None"),
            "at": door("None", "{}", says="at|slice"),
            "ax": OPTIONAL,
        },
    ),
    "Sweep.plot": (
        lambda _, **o: st.Sweep((), 1, 1).plot(**o),
        {},
        {"value": NOTHING, "ax": OPTIONAL},
    ),
}


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, argument) for name, (_, _, arguments) in DOORS.items() for argument in arguments],
)
def test_a_wrong_value_is_refused_by_name(
    name: str, argument: str, result: st.Distillation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, right, arguments = DOORS[name]
    fine, says, _ = arguments[argument]
    for kind, value in WRONG.items():
        if kind not in fine:
            with pytest.raises(st.SymTorchError, match=says or argument):
                call(result, **{**right, argument: value})
            assert list(tmp_path.iterdir()) == []
