"""Exports, loaded or compiled again: the same numbers in every language."""

from __future__ import annotations

import ctypes
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import symtorch_core as st
from symtorch_core.exports import FORMATS, Deployed, to_c, to_latex_table, to_python
from symtorch_core.exports.code import NUMPY, C
from symtorch_core.expressions import OPERATORS, Call, Variable, evaluate
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_pca.reducer import PCAReducer

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(300, 3, generator=GENERATOR, dtype=torch.float64) + 0.2
EQUATIONS = ("1.5*sin(2.0*z1) - exp(0.3*z1)^2.5 + 0.1", "max(z0, -0.25)/(2.5 + z1^3)", "-7.25e-5")
compiler = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(compiler is None, reason="no C compiler on this machine")


@pytest.fixture(scope="module")
def result() -> st.Distillation:
    """Transforms, principal components, a linear part and three equations."""
    Y = torch.stack([X[:, 0] * X[:, 1], torch.sin(X[:, 2]), X.sum(1), X.prod(1)], dim=1)
    return st.distill(
        (X, Y),
        regressor=ScriptedRegressor(equations=EQUATIONS),
        variable_names=["a", "lambda_", "ü"],
        transforms={"r": "sqrt(a^2 + ü^2)", "a": "a", "d": "log(lambda_) - ü"},
        reducer=PCAReducer(k_in=2, k_out=3, linear=True),
        select="accuracy",
        progress=False,
    )


@pytest.fixture(scope="module")
def plain() -> st.Distillation:
    """Nothing around the equations."""
    return st.distill(
        (X, torch.stack([2 * X[:, 0] + X[:, 1] * X[:, 2], X[:, 0] + 1], dim=1)),
        regressor=ScriptedRegressor(equations=("2.0*x0 + 1.5*x1*x2 + 0.1",)),
        select="accuracy",
        progress=False,
    )


def test_the_equations_here_are_not_just_numbers(result: st.Distillation, plain: st.Distillation) -> None:
    assert {"sin", "exp", "max"} <= {
        word for text in map(str, result.chosen()) for word in re.findall(r"[a-z]+", text)
    }
    assert "x1*x2" in str(plain.chosen()[0])


def expected(result: st.Distillation) -> np.ndarray:
    return result.surrogate()(X).numpy()


def compiled(source: str, folder: Path, name: str = "equations") -> Any:
    """The C function, from a shared library; warnings are errors."""
    assert compiler is not None
    code, library = folder / "source.c", folder / "source.so"
    code.write_text(source)
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", library, code, "-lm"], check=True)
    return getattr(ctypes.CDLL(str(library)), name)


def called(function: Any, rows: np.ndarray, outputs: int) -> np.ndarray:
    pointer = ctypes.POINTER(ctypes.c_double)
    results = np.empty((len(rows), outputs))
    for row, y in zip(np.ascontiguousarray(rows), results, strict=True):
        function(row.ctypes.data_as(pointer), y.ctypes.data_as(pointer))
    return results


@pytest.mark.parametrize("which", ["result", "plain"])
def test_python_source(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    distillation = request.getfixturevalue(which)
    module = runpy.run_path(str(distillation.export(tmp_path / "law.py")))
    np.testing.assert_allclose(module["equations"](X.numpy()), expected(distillation), rtol=1e-10)
    ruff = shutil.which("ruff")
    if ruff:
        subprocess.run([ruff, "check", "--isolated", "--select", "E9,F", tmp_path / "law.py"], check=True)


@needs_compiler
@pytest.mark.parametrize("which", ["result", "plain"])
def test_c_source(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    distillation = request.getfixturevalue(which)
    path = distillation.export(tmp_path / "law.c")
    function = compiled(path.read_text(), tmp_path)
    values = called(function, X.numpy(), len(distillation.outputs))
    np.testing.assert_allclose(values, expected(distillation), rtol=1e-10)


@pytest.mark.parametrize("which", ["result", "plain"])
def test_onnx(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    distillation = request.getfixturevalue(which)
    path = distillation.export(tmp_path / "law.onnx")
    session = runtime.InferenceSession(path)
    for rows in (1, 300):
        (values,) = session.run(["y"], {"x": X[:rows].float().numpy()})
        np.testing.assert_allclose(values, expected(distillation)[:rows], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["result", "plain"])
def test_exported_program(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    distillation = request.getfixturevalue(which)
    program = torch.export.load(distillation.export(tmp_path / "law.pt2")).module()
    for rows in (2, 300):
        torch.testing.assert_close(
            program(X[:rows].float()),
            torch.from_numpy(expected(distillation)[:rows]).float(),
            rtol=2e-5,
            atol=1e-6,
        )


def test_json(result: st.Distillation, tmp_path: Path) -> None:
    again = st.Distillation.load(result.export(tmp_path / "law.json"))
    np.testing.assert_allclose(expected(again), expected(result), rtol=1e-12)


def test_sympy(plain: st.Distillation) -> None:
    (first, _) = plain.equations().values()
    function = sp.lambdify(sp.symbols("x0 x1 x2"), first)
    np.testing.assert_allclose(function(*X.numpy().T), expected(plain)[:, 0], rtol=1e-12)


def test_latex_table(result: st.Distillation, tmp_path: Path) -> None:
    text = result.export(tmp_path / "law.tex").read_text()
    assert text.count(r"\\") == 1 + 3 + sum(map(len, result.fronts))
    assert text.startswith(r"\begin{tabular}{rrrl}")
    assert r"\sin" in text
    hostile = to_latex_table({r"y_1 & 50% \input{x}": result.front()})
    assert r"y\_1 \& 50\% \textbackslash{}input\{x\}" in hostile


def test_a_model_exports_the_constants_it_runs_with(tmp_path: Path) -> None:
    block = st.SymbolicModel(torch.nn.Linear(3, 1))
    block.distill(
        X.float(), regressor=ScriptedRegressor(equations=("2.0*x0 + x1",)), select="accuracy", progress=False
    )
    block.switch_to_symbolic()
    with torch.no_grad():
        block.surrogate.constants.mul_(3)
    module = runpy.run_path(str(block.export(tmp_path / "law.py")))
    np.testing.assert_allclose(module["equations"](X.numpy()), block.surrogate(X).numpy(), rtol=1e-10)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_in_numpy_and_c(name: str, tmp_path: Path) -> None:
    assert set(NUMPY) == set(C) == set(OPERATORS)
    operator = OPERATORS[name]
    columns = [points(*interval) for interval in operator.domain]
    variables = ("a", "b", "c")[: operator.arity]
    expression = Call(name, *map(Variable, variables))
    deployed = Deployed(variables, (), variables, (expression,), ("y",))
    wanted = evaluate(
        expression, {v: torch.from_numpy(c) for v, c in zip(variables, columns, strict=True)}
    ).numpy()
    rows = np.stack(columns, axis=1)
    path = tmp_path / "law.py"
    path.write_text(to_python(deployed))
    np.testing.assert_allclose(
        runpy.run_path(str(path))["equations"](rows)[:, 0], wanted, rtol=1e-12, atol=1e-14
    )
    if compiler is not None:
        values = called(compiled(to_c(deployed), tmp_path), rows, 1)
        np.testing.assert_allclose(values[:, 0], wanted, rtol=1e-12, atol=1e-14)


def points(low: float, high: float) -> np.ndarray:
    """Forty numbers inside an interval, halves and whole numbers among them."""
    low, high = max(low, -3.0), min(high, 3.0)
    inner = np.linspace(low, high, 42)[1:-1]
    special = [value for value in (0.5, 1.5, 2.5, 2.0) if low < value < high]
    return np.concatenate([special, inner])[:40]


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    function = st.distill(
        (X, X[:, :1]),
        regressor=ScriptedRegressor(equations=("x0",)),
        transforms={"x0": lambda x: x[..., 0]},
        progress=False,
    )
    with pytest.raises(st.FileFormatError, match="Python function"):
        function.export(tmp_path / "law.py")
    with pytest.raises(st.FileFormatError, match="no format '.exe'; there are .py, .c"):
        function.export(tmp_path / "law.exe")
    deployed = Deployed(("x",), (), ("x",), (Variable("x"),), ("y",))
    with pytest.raises(st.FileFormatError, match="cannot name a function"):
        to_c(deployed, "main(); system")
    assert set(FORMATS) == {".py", ".c", ".tex", ".json", ".onnx", ".pt2"}


def test_names_cannot_leave_a_comment(tmp_path: Path) -> None:
    deployed = Deployed(("x",), (), ("x",), (Variable("x"),), ('*/ int evil; /*\n"""\nimport os',))
    path = tmp_path / "law.py"
    path.write_text(to_python(deployed))
    assert "os" not in runpy.run_path(str(path))
    if compiler is not None:
        source = to_c(deployed)
        assert "*/ int evil" not in source
        compiled(source, tmp_path)
