"""What is fuzzed: each target makes an input from a seed, and says what must hold of it.

A target may raise :class:`symtorch_core.SymTorchError`, whose message must be short; anything else is a fault, as is
what takes too long or too much memory.
"""

from __future__ import annotations

import json
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from mutators import Random, change_bytes, change_json, change_tensors, change_text, make_text
from torch import Tensor, nn

import symtorch_core as st
from symtorch_core.expressions import (
    OPERATORS,
    Call,
    Expression,
    Program,
    constants,
    evaluate,
    parse,
    simplify,
    to_sympy,
    to_text,
    with_constants,
)
from symtorch_core.storage.documents import write_document
from symtorch_core.testing.scripted import ScriptedRegressor

EQUATIONS = ("2.0*x0", "2.0*x0 + 3.0*sin(x1)", "2.0*x0 + 3.0*sin(x1) + 0.5*x0^2")
LEAVES = (
    "x0",
    "x1",
    "2.0",
    "0.5",
    "-1.0",
    "0",
    "3",
    "9",
    "100.0",
    "1e300",
    "1e-300",
    "1e15",
    "0.1",
    "1.0000001",
)
MOST = 1500
"""Longest message, in characters."""


def make_rows() -> tuple[Tensor, Tensor]:
    X = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    y = 2 * X[:, :1] + 3 * X[:, 1:].sin() + 0.3 * X[:, :1] ** 2
    return X, torch.cat([y, y + X[:, :1]], 1)


def make_result(**options: Any) -> st.Distillation:
    return st.distill(
        make_rows(), regressor=ScriptedRegressor(equations=EQUATIONS), progress=False, **options
    )


def check_that(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def make_equation(random: Random, depth: int) -> str:
    """Return the text of a random equation that the grammar accepts, with numbers that are hard to compute with."""
    if depth <= 0 or random.random() < 0.1:
        return str(random.choice(LEAVES))
    name = sorted(OPERATORS)[int(random.integers(len(OPERATORS)))]
    parts = [make_equation(random, depth - 1)]
    parts += [make_equation(random, min(depth - 1, 2)) for _ in range(OPERATORS[name].arity - 1)]
    return f"({parts[0]}) {name} ({parts[1]})" if not name.isidentifier() else f"{name}({', '.join(parts)})"


def find_defined(equation: Expression, columns: Mapping[str, Tensor], rows: int) -> Tensor:
    """Return the rows where every part of an equation is finite: a comparison may hide a part that is not."""
    defined = torch.isfinite(evaluate(equation, columns)).expand(rows)
    for part in equation.args if isinstance(equation, Call) else ():
        defined = defined & find_defined(part, columns, rows)
    return defined


class Target(ABC):
    """One kind of input."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def make(self, random: Random) -> Any:
        """Return an input."""

    @abstractmethod
    def run(self, given: Any) -> None:
        """Use the input as a user would."""


@final
class Texts(Target):
    """Texts as equations: parsed, printed, simplified, computed, and shown by sympy."""

    name = "texts"

    def make(self, random: Random) -> str:
        kind = random.random()
        if kind < 0.6:
            return make_equation(random, int(random.integers(1, 12)))
        return make_text(random) if kind < 0.8 else change_text(random, str(random.choice(EQUATIONS)))

    def run(self, given: str) -> None:
        equation = parse(given, ["x0", "x1"])
        check_that(parse(to_text(equation, None), ["x0", "x1"]) == equation, "the text does not come back")
        X = make_rows()[0].double()
        columns = {"x0": X[:, 0], "x1": X[:, 1]}
        before = evaluate(equation, columns).expand(len(X))
        after = evaluate(simplify(equation), columns).expand(len(X))
        both = find_defined(equation, columns, len(X)) & torch.isfinite(after)
        close = torch.isclose(before[both], after[both], rtol=1e-6, atol=1e-9)
        # Where rounding alone changes the numbers, as of the cosine of 1e45, nothing can be compared.
        shaken = with_constants(equation, [value * (1 + 1e-13) for value in constants(equation)])
        near = evaluate(shaken, {name: column * (1 + 1e-13) for name, column in columns.items()}).expand(
            len(X)
        )
        steady = torch.isclose(before[both], near[both], rtol=1e-8, atol=1e-11)
        check_that(bool((close | ~steady).all()), "the simplified equation gives other numbers")
        Program([equation], ["x0", "x1"])(X, torch.tensor(constants(equation), dtype=torch.float64))
        str(to_sympy(equation))
        st.Candidate(equation, 1, 0.5).latex()


class _Saved(Target):
    """A saved result that is damaged."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        maps = {"k_in": 2, "k_out": 1, "linear": True}
        plain = make_result(transforms={"x0": "x0", "x1": "x1"})
        reduced = st.distill(
            make_rows(),
            regressor=ScriptedRegressor(equations=("2.0*z0", "2.0*z0 + z1^2")),
            reducer="pca",
            reducer_options=maps,
            progress=False,
        )
        self.wholes = []
        for result in (plain, reduced):
            result.save(folder / "whole.json")
            self.wholes.append((folder / "whole.json").read_bytes())
        self.path = folder / "result.json"

    def choose(self, random: Random) -> bytes:
        return self.wholes[int(random.integers(len(self.wholes)))]

    def load(self) -> st.Distillation:
        return st.Distillation.load(self.path)


@final
class Results(_Saved):
    """Saved results whose bytes changed: refused, or read with the same numbers."""

    name = "results"

    def make(self, random: Random) -> bytes:
        if random.random() < 0.5:
            return change_bytes(random, self.choose(random))
        return change_text(random, self.choose(random).decode()).encode(errors="replace")

    def run(self, given: bytes) -> None:
        self.path.write_bytes(given)
        self.load().save(self.folder / "again.json")
        again = json.loads((self.folder / "again.json").read_bytes())
        wholes = [json.loads(whole) for whole in self.wholes]
        for content in (again, *wholes):
            del content["sha256"]  # a reducer may write its shape in another order
        check_that(again in wholes, "a changed file is read with other content")


@final
class SealedResults(_Saved):
    """Saved results of which parts changed, with a checksum that fits: refused, or fit for every use."""

    name = "sealed"

    def make(self, random: Random) -> Any:
        content = json.loads(self.choose(random))
        return change_json(random, {key: part for key, part in content.items() if key != "sha256"})

    def run(self, given: Any) -> None:
        if not isinstance(given, dict):
            return
        self.path.write_text(write_document(given), encoding="utf-8")
        result = self.load()
        result.equations()
        result.latex()
        str(result)
        result._repr_html_()
        X = make_rows()[0]
        surrogate = result.surrogate()
        y = surrogate(X)
        check_that(y.shape == (len(X), len(result.outputs)), "the equations give another shape")
        for ending in ("py", "c", "tex", "json"):
            result.export(self.folder / f"export.{ending}")
        st.Distillation.load(self.folder / "export.json")


@final
class States(Target):
    """State dicts of a wrapped model: refused with nothing changed, or fit to run."""

    name = "states"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        model = self.make_model()
        block = model[0]
        options = {"regressor": ScriptedRegressor(equations=EQUATIONS), "progress": False}
        block.distill(make_rows()[0], parent=model, **options)
        block.switch_to_symbolic()
        self.state = {key: value.clone() for key, value in model.state_dict().items()}

    @staticmethod
    def make_model() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        for number, parameter in enumerate(model.parameters()):
            nn.init.constant_(parameter, 0.1 * number)
        st.wrap(model, "0")
        return model

    def make(self, random: Random) -> tuple[dict[str, Tensor], bool]:
        strict = bool(random.random() < 0.5)
        if random.random() < 0.5:
            return change_tensors(random, self.state), strict
        content = json.loads(bytes(self.state["0._extra_state"].tolist()))
        del content["sha256"]
        changed = change_json(random, content)
        text = write_document(changed) if isinstance(changed, dict) else json.dumps(changed)
        return {**self.state, "0._extra_state": torch.tensor(list(text.encode()), dtype=torch.uint8)}, strict

    def run(self, given: tuple[dict[str, Tensor], bool]) -> None:
        state, strict = given
        model = self.make_model()
        X = make_rows()[0]
        before, y = {key: value.clone() for key, value in model.state_dict().items()}, model(X)
        try:
            model.load_state_dict(state, strict=strict)
        except (
            st.SymTorchError,
            RuntimeError,
        ) as error:  # torch raises a RuntimeError for parts that do not fit
            check_that(len(str(error)) < 10 * MOST, "the message is long")
            after = model[0].state_dict()
            check_that(
                all(torch.equal(before[f"0.{key}"], value) for key, value in after.items()),
                "the block changed",
            )
            check_that(
                len(after) == len([key for key in before if key.startswith("0.")]),
                "the block has other parts",
            )
            check_that(model[0].mode == "block", "the block runs on equations")
            model[0](X)
            return
        found = model(X)
        if model[0].mode == "symbolic":
            kept = self.make_model()
            kept.load_state_dict(self.state)
            same = all(
                torch.equal(self.state[key], value)
                for key, value in model.state_dict().items()
                if key.startswith("0.") and not key.startswith("0.block.")
            )
            check_that(not same or torch.equal(kept[0](X), model[0](X)), "equal states give other numbers")
        check_that(found.shape == y.shape, "the model gives another shape")


@final
class Folders(Target):
    """Run folders with a damaged file: refused by its name, or the same fronts."""

    name = "folders"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.kept = folder / "kept"
        self.fronts = make_result(resume=self.kept).fronts
        self.files = sorted(path for path in self.kept.iterdir() if path.is_file() and path.stat().st_size)

    def make(self, random: Random) -> tuple[str, bytes]:
        path = self.files[int(random.integers(len(self.files)))]
        data = path.read_bytes()
        if random.random() < 0.5:
            return path.name, change_bytes(random, data)
        return path.name, change_text(random, data.decode(errors="replace")).encode(errors="replace")

    def run(self, given: tuple[str, bytes]) -> None:
        name, data = given
        folder = self.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.kept, folder)
        (folder / name).write_bytes(data)
        try:
            found = make_result(resume=folder).fronts
        except st.FileFormatError as error:
            check_that(name in str(error), "the message does not name the file")
            raise
        check_that(found == self.fronts, "a damaged folder gives other fronts")


@final
class Names(Target):
    """Names of outputs and of the block, in every view and export."""

    name = "names"

    def make(self, random: Random) -> list[str]:
        return [make_text(random, 4) for _ in range(2)]

    def run(self, given: list[str]) -> None:
        result = make_result(output_names=given)
        result.latex()
        str(result)
        result._repr_html_()
        result.to_frame()
        for ending in ("py", "c", "tex", "json"):
            result.export(self.folder / f"export.{ending}")
        source = (self.folder / "export.py").read_text(encoding="utf-8")
        compile(source, "export.py", "exec")
        again = st.Distillation.load(self.folder / "export.json")
        check_that(again.output_names == result.output_names, "the names do not come back")


TARGETS: dict[str, type[Target]] = {
    kind.name: kind for kind in (Texts, Results, SealedResults, States, Folders, Names)
}


def make_target(name: str, folder: Path) -> Target:
    """Return a target that may write into a folder."""
    warnings.simplefilter("ignore")
    return TARGETS[name](folder)
