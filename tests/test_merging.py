"""Outputs distilled one after another, and results merged: each equation keeps where it comes from."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import symtorch_core as st
from symtorch_core.events import OutputFinished
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_pca.reducer import PCAReducer

X = torch.rand(120, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
NAMES = ("alpha", "beta", "gamma")


class Law(torch.nn.Module):
    """a + b, ab and a - b."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x[:, 0], x[:, 1]
        return torch.stack([a + b, a * b, a - b], dim=1)


def search(*equations: str, **options: Any) -> dict[str, Any]:
    return {"regressor": ScriptedRegressor(equations=equations), "progress": False, **options}


def distilled(outputs: list[int | str], *equations: str, **options: Any) -> st.Distillation:
    return st.distill(Law(), X, **search(*equations, outputs=outputs, **{"output_names": NAMES, **options}))


def test_two_results_are_one(tmp_path: Path) -> None:
    alpha = distilled(["alpha"], "x0 + x1", seed=3, select="best", maxsize=9)
    gamma = distilled(["gamma"], "x0 - x1", seed=4, select="accuracy", maxsize=11, loss="mae")
    merged = gamma | alpha
    assert (merged.outputs, merged.output_names) == ((0, 2), ("alpha", "gamma"))
    assert merged.equation_names == merged.output_names
    assert merged.fronts == (alpha.fronts[0], gamma.fronts[0])
    assert merged.fidelity == (*alpha.fidelity, *gamma.fidelity)
    torch.testing.assert_close(merged.predict(X), Law()(X)[:, [0, 2]])
    merged.save(tmp_path / "both.json")
    for both in (merged, st.merge(gamma, alpha), st.Distillation.load(tmp_path / "both.json")):
        for name, one in (("alpha", alpha), ("gamma", gamma)):
            origin = both.origin(name)
            assert origin.outputs == one.outputs
            assert origin.search == one.search
            assert origin.provenance == one.provenance
        assert both.choices == (*alpha.choices, *gamma.choices)
        assert both.select == "best and accuracy"
        assert (both.search, both.provenance.seed) == (alpha.search, 3)  # of the last search
        text = str(both)
        assert "gamma:" in text
        assert "seed 3" in text
        assert "seed 4" in text
    pytest.importorskip("matplotlib")
    page = merged.report(tmp_path / "page.html").read_text()
    for shown in (">mae<", ">mse<", ">gamma<", ">9<", ">11<"):
        assert shown in page


def test_the_later_result_replaces_the_same_output() -> None:
    first = distilled([0, 1], "x0 + x1", "x0*x1")
    second = distilled([1, 2], "x0 - x1", "x0", seed=9)
    merged = first | second
    assert merged.outputs == (0, 1, 2)
    assert merged.fronts == (first.fronts[0], *second.fronts)
    assert [o.outputs for o in merged.origins] == [(0,), (1, 2)]
    assert (second | first).fronts == (*first.fronts, second.fronts[1])
    third = merged | distilled([0], "x1", seed=5)
    assert [(o.outputs, o.provenance.seed) for o in third.origins] == [((1, 2), 9), ((0,), 5)]
    assert (first | distilled([0, 1, 2], "x0")).origins[0].outputs == (0, 1, 2)
    assert st.merge(first) is first


def test_a_merged_result_is_chosen_from_and_adopted() -> None:
    merged = distilled(["alpha"], "x0", "x0 + x1") | distilled([1], "x0*x1", "x0")
    size = merged.front("alpha").complexities[0]
    changed = merged.choose({"alpha": size})
    assert changed.fidelity[0].held_out == merged.front("alpha")[0].fidelity.held_out
    assert changed.origin("alpha") == merged.origin("alpha")
    model = st.SymbolicModel(Law()).adopt(changed).switch_to_symbolic()
    torch.testing.assert_close(model(X)[:, 1:], Law()(X)[:, 1:])
    other = st.SymbolicModel(Law())
    other.load_state_dict(model.state_dict())
    assert other.distillation.origins == changed.origins
    torch.testing.assert_close(other(X), model(X))


def test_present_constants_are_judged_by_the_loss_of_their_own_search(tmp_path: Path) -> None:
    merged = distilled([0], "2.0*x0 + x1", loss="mae", refine=False) | distilled(
        [1], "2.0*x0*x1", refine=False
    )
    merged = merged.choose("accuracy")
    surrogate = merged.surrogate()
    with torch.no_grad():
        surrogate.constants.fill_(3.0)
    again = st.Distillation.load(merged.export(tmp_path / "law.json", surrogate))
    error = (surrogate(again_rows(merged)) - Law()(again_rows(merged))[:, :2]).detach()
    assert again.chosen()[0].loss == pytest.approx(float(error[:, 0].abs().mean()))
    assert again.chosen()[1].loss == pytest.approx(float(error[:, 1].square().mean()))


def again_rows(result: st.Distillation) -> torch.Tensor:
    assert result.train is not None
    return result.train.inputs


def test_derived_variables_unite() -> None:
    plain = distilled([0], "x0 + x1")
    product = distilled([1], "p", transforms={"p": "x0*x1"})
    merged = plain | product
    assert merged.transforms.variable_names == ("x0", "x1", "p")
    torch.testing.assert_close(merged.predict(X), Law()(X)[:, :2])
    same = distilled([2], "p - x1", transforms={"p": "x0 * x1", "x1": "x1"}, seed=1)
    assert (merged | same).transforms.variable_names == ("x0", "x1", "p")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: distilled([1], "p", transforms={"p": "x0 + x1"}), "'p' has two definitions, x0"),
        (lambda: distilled([1], "x0", transforms={"x0": "x0*x1"}), "'x0' has two definitions"),
        (
            lambda: distilled([1], "a", variable_names=["a", "b"]),
            "the inputs have other names: x0, x1, and a, b",
        ),
        (
            lambda: distilled([1, 2], "x0", reducer=PCAReducer(k_out=1)),
            "the reducer 'pca' mixes outputs",
        ),
        (lambda: distilled([1], "z0", reducer=PCAReducer(k_in=1)), "made fewer in two ways"),
        (
            lambda: st.distill((X, X), **search("x0", outputs=[1])),
            "of other blocks: with 3 outputs, and with 2",
        ),
        (lambda: distilled([1], "x0", output_names=["a", "alpha", "c"]), "two outputs would have one name"),
        (
            lambda: replace(
                found := distilled([1], "x0"),
                provenance=replace(
                    found.provenance, source=replace(found.provenance.source, select_output="1")
                ),
            ),
            "for other outputs of the block",
        ),
    ],
)
def test_results_that_do_not_go_together(make: Any, message: str) -> None:
    first, second = distilled([0], "p", transforms={"p": "x0*x1", "x0": "x0"}), make()
    for one, other in ((first, second), (second, first)):
        with pytest.raises(st.SelectionError, match=message if one is first else "."):
            st.merge(one, other)
    with pytest.raises(st.SelectionError, match="merge takes results of distill, not a str"):
        st.merge(first, "second")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        first | 3  # type: ignore[operator]


# -- one output after another ---------------------------------------------------------------


def test_one_output_after_another_adds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "symtorch_core")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2).double(), Law())
    wrapped = st.wrap(model, "1")
    first = wrapped.distill(
        X, parent=model, **search("a + b", outputs=["alpha"], variable_names=["a", "b"], output_names=NAMES)
    )
    assert caplog.text == ""
    both = wrapped.distill(  # the names are those of before
        X,
        parent=model,
        metric=lambda m: float(m(X)[0, 1].detach()),
        **search("a*b", outputs=["beta"], seed=2),
    )
    assert "1 keeps the equations it had for alpha, beside the new ones for beta" in caplog.text
    assert wrapped.distillation is both
    assert both.outputs == (0, 1)
    assert both.fronts[0] == first.fronts[0]
    assert both.origin("alpha").provenance == first.provenance
    assert both.model_fidelity.r2 == pytest.approx(1)
    assert both.task_metric.block == pytest.approx(both.task_metric.equations)
    again = wrapped.distill(X, parent=model, **search("a", outputs=[0], seed=3))
    assert [(o.outputs, o.provenance.seed) for o in again.origins] == [((1,), 2), ((0,), 3)]
    wrapped.switch_to_symbolic(outputs=["beta"])
    assert wrapped.symbolic_outputs == (1,)
    alone = wrapped.distill(X, parent=model, replace=True, **search("x0", outputs=[2]))
    assert alone.outputs == (2,)
    assert wrapped.distill(X, parent=model, **search("x0")).outputs == (0, 1, 2)


class Forbidden(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("ran")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": {"p": "x0 - x1"}}, "'p' has two definitions"),
        ({"variable_names": ["a", "b"]}, "other names"),
        ({"reducer": "pca", "reducer_options": {"k_out": 1}}, "'pca' mixes outputs"),
        ({"reducer": PCAReducer(k_out=1)}, "'pca' mixes outputs"),
        ({"reducer_options": {"linear": True}}, "'identity' mixes outputs"),
    ],
)
def test_what_cannot_be_added_is_refused_before_the_block_runs(options: dict[str, Any], message: str) -> None:
    block = st.SymbolicModel(Law()).adopt(distilled([0], "p", transforms={"p": "x0*x1", "x0": "x0"}))
    before = block.distillation
    block.block = Forbidden()
    with pytest.raises(st.SwitchError, match=rf"Law has equations for alpha.*{message}.*replace=True"):
        block.distill(X, **search("x0", outputs=[1], **options))
    assert block.distillation is before
    with pytest.raises(AssertionError, match="ran"):  # as asked
        block.distill(X, replace=True, **search("x0", outputs=[1], **options))


def test_equations_of_a_mixing_reducer_are_replaced_only_as_a_whole() -> None:
    block = st.SymbolicModel(Law())
    block.distill(X, **search("x0", reducer=PCAReducer(k_out=1)))
    with pytest.raises(st.SwitchError, match="'pca' mixes outputs"):
        block.distill(X, **search("x0", outputs=[1]))
    assert block.distill(X, **search("x0*x1")).outputs == (0, 1, 2)


def test_equations_of_pruned_outputs_do_not_stay() -> None:
    block = st.SymbolicModel(Law())
    block.distill(X, **search("x0"))
    block.prune_outputs(torch.tensor([True, False, True]))
    assert block.distill(X, **search("x0", outputs=[2])).outputs == (0, 2)
    with pytest.raises(st.SwitchError, match="output 1 of Law is pruned"):
        block.distill(X, **search("x0", outputs=["y1"]))


def test_what_was_in_use_stays_with_its_constants() -> None:
    block = st.SymbolicModel(Law())
    block.distill(X, **search("x0", "1.1*x0 + 0.9*x1", outputs=[0], refine=False))
    block.switch_to_symbolic(select="accuracy")
    with torch.no_grad():
        block.surrogate.constants.fill_(1.0)
    both = block.distill(X, **search("x0*x1", outputs=[1]))
    block.switch_to_symbolic()
    torch.testing.assert_close(block(X)[:, :2], Law()(X)[:, :2])
    assert both.fidelity[0].held_out.r2 == pytest.approx(1)


def test_two_threads_add_to_one_block() -> None:
    block, started, inner = st.SymbolicModel(Law()), threading.Event(), threading.Event()

    def wait(event: Any) -> None:
        if isinstance(event, OutputFinished) and not started.is_set():
            started.set()
            assert inner.wait(60)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(block.distill, X, **search("x0 + x1", outputs=[0], callbacks=[wait]))
        assert started.wait(60)
        block.distill(X, **search("x0*x1", outputs=[1]))
        inner.set()
        both = slow.result(60)
    assert both.outputs == (0, 1)
    assert block.distillation is both
