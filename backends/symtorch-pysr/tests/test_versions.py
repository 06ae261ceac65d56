"""Against the real PySR, read and never imported: what we send exists, in every version that we claim."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sympy as sp
import torch

from symtorch_core import SearchSpace
from symtorch_core.expressions import OPERATORS, evaluate, parse
from symtorch_pysr.arguments.job import _INSTEAD, build_arguments, check_options
from symtorch_pysr.arguments.operators import translate_operators
from symtorch_pysr.arguments.parameters import Installation, read_installed, read_parameters

OLDER = ("1.5.0", "1.5.10", "2.0.0")


def find_package() -> Path:
    """Return the folder of the installed PySR."""
    found = importlib.util.find_spec("pysr")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


@pytest.fixture(scope="module", params=[*OLDER, "installed"])
def pysr(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, Path]]:
    """Yield parameters and folder of one version."""
    if request.param == "installed":
        yield read_installed(), find_package()
        return
    folder = tmp_path_factory.mktemp("pysr")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*pip, f"pysr=={request.param}"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot get PySR {request.param}: {done.stderr.strip()[-200:]}")
    source = (folder / "pysr" / "sr.py").read_text(encoding="utf-8")
    yield read_parameters(source, request.param), folder / "pysr"


EVERYTHING = SearchSpace(
    binary_operators=("+", "*", "greater", "less"),
    unary_operators=("inv", "sin", "half(x) = x/2"),
    parsimony=0.01,
    complexity_of_variables={"a": 2},
    constraints={"sin": 5, "half": 3},
    nested_constraints={"sin": {"sin": 0, "half": 1}},
    loss="huber",
    timeout_in_seconds=10.0,
)


@pytest.mark.parametrize("search", [SearchSpace(), EVERYTHING], ids=["defaults", "everything"])
def test_every_parameter_that_we_send_is_there(pysr: tuple[Installation, Path], search: SearchSpace) -> None:
    version, _ = pysr
    sent = build_arguments(
        search,
        version,
        variable_names=["a", "b"],
        rows=20_000,
        weighted=True,
        outputs=2,
        seed=3,
        guesses=[["x0"], ["x1"]] if version.takes_guesses else None,
        options={"populations": 3, "X_units": ["m", "s"]},
    )
    # The worker adds these.
    assert set(sent.init) | {"output_directory", "run_id", "extra_sympy_mappings"} <= set(version.init)
    assert set(sent.fit) | {"weights"} <= version.fit
    assert {"X_units", "y_units"} <= version.fit


def test_what_we_refuse_to_pass_on_is_a_parameter_of_some_version(pysr: tuple[Installation, Path]) -> None:
    version, _ = pysr
    if version.major == 2:
        assert set(_INSTEAD) <= set(version.init) | set(version.fit)


def test_the_defaults_we_rely_on(pysr: tuple[Installation, Path]) -> None:
    version, _ = pysr
    assert version.init["precision"] == "32"
    assert version.init["temp_equation_file"] == "False"
    assert version.init["denoise"] == "False"
    assert version.init["batching"] == ("False" if version.major == 1 else "'auto'")
    assert version.takes_guesses == (version.major == 2)


def test_a_version_says_what_it_lacks(pysr: tuple[Installation, Path]) -> None:
    version, _ = pysr
    check_options({"populations": 3, "adaptive_parsimony_scaling": 100.0}, version)
    with pytest.raises(
        Exception, match=f"PySR {version.version} has no option 'populaton_size'.*'population_size'"
    ):
        check_options({"populaton_size": 3}, version)


def read_mappings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Callable[..., Any]]:
    """Return PySR's table from operators to sympy, without its __init__, which would start Julia."""
    shell = ModuleType("pysr_without_julia")
    shell.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, shell.__name__, shell)
    for name in ("utils", "export_sympy"):
        monkeypatch.delitem(sys.modules, f"{shell.__name__}.{name}", raising=False)
    return importlib.import_module(f"{shell.__name__}.export_sympy").sympy_mappings


# On (0.2, 0.8) every operator but acosh is defined, and PySR's atanh, wrapped into (-1, 1), is the plain one.
POINTS = {
    "x0": torch.linspace(0.2, 0.8, 13, dtype=torch.float64),
    "x1": torch.linspace(0.75, 0.3, 13, dtype=torch.float64),
    "x2": torch.linspace(0.5, 0.6, 13, dtype=torch.float64),
}


def test_every_operator_that_pysr_can_emit_computes_the_same_in_torch(
    pysr: tuple[Installation, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = pysr
    names = read_mappings(folder, monkeypatch)
    assert len(names) > 45
    for name, function in names.items():
        arity = 3 if name in {"fma", "muladd", "clamp"} else 2 if name in TWO else 1
        variables = list(POINTS)[:arity]
        points = {key: column + (1.0 if name == "acosh" else 0.0) for key, column in POINTS.items()}
        ours = evaluate(parse(f"{name}({', '.join(variables)})", variables), points).expand(13)
        symbols = sp.symbols(variables, real=True)
        for row in range(13):
            values = {symbol: float(points[str(symbol)][row]) for symbol in symbols}
            wanted = complex(sp.sympify(function(*symbols)).subs(values).evalf())
            assert wanted.imag == 0
            assert float(ours[row]) == pytest.approx(wanted.real, rel=1e-9, abs=1e-12), (name, values)


TWO = {
    "div", "mult", "plus", "sub", "pow", "pow_abs", "mod", "max", "min", "greater", "less", "greater_equal",
    "less_equal", "cond", "logical_or", "logical_and",
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "max(x0, 0.5)", "min(x0, 0.5)", "max(0.25, min(x0, 0.75))", "log2(x0)", "log10(x0)", "log2_abs(-x0)",
        "log10_abs(-x0)", "erfc(x0)", "gamma(x0 + 1.5)", "cond(x0 - 0.5, x1)", "greater(x0, x1)", "(x0 > x1) + 1",
        "sign(x0 - 0.5)", "round(x0 * 3.0)", "clamp(x0, 0.3, 0.6)", "relu(x0 - 0.5)", "fma(x0, x1, 1.0f0)",
        "x0 ^ 2.0 - 1.5f-3", "neg(x0)", "atanh_clip(x0)",
    ],
)  # fmt: skip
def test_what_the_reference_breaks_on(text: str) -> None:
    from symtorch_pysr.search.tables import Row, translate_rows

    (expression,), unrunnable = translate_rows([Row(3, 0.0, text)], ["a", "b"], [])
    assert unrunnable == []
    values = evaluate(expression, {"a": POINTS["x0"], "b": POINTS["x1"]})
    assert torch.isfinite(values).all()


@pytest.mark.parametrize("major", [1, 2])
def test_every_operator_of_the_table_has_a_name_in_julia(major: int) -> None:
    for name, operator in OPERATORS.items():
        if operator.arity > 2:
            continue
        kind = "unary_operators" if operator.arity == 1 else "binary_operators"
        search = SearchSpace(**{"binary_operators": (), "unary_operators": (), kind: (name,)})
        said = translate_operators(search, major)
        (spelled,) = said.unary + said.binary
        back = parse(
            f"{said.names[name]}({', '.join(list(POINTS)[: operator.arity])})"
            if said.names[name].isidentifier()
            else f"x0 {said.names[name]} x1",
            POINTS,
            said.definitions,
        )
        assert back.operator == name
        assert ("(" in spelled) == (said.names[name] in said.defined)
