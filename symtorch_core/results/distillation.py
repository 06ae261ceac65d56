"""The result of a distillation: fronts, chosen equations, fidelity, and how they came about."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, final

import sympy as sp
from torch import Tensor

from symtorch_core.activations.rows import Activations, Source
from symtorch_core.components.registry import load
from symtorch_core.errors import (
    CaptureError,
    DuplicateComponentError,
    FileFormatError,
    MissingDependencyError,
    SelectionError,
    UnknownComponentError,
)
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.search.front import Candidate, ParetoFront, SelectionRule
from symtorch_core.search.space import SearchSpace
from symtorch_core.storage.tensors import decode_tensors, encode_tensors, sample_rows
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.verification.fidelity import Fidelity, measure_fidelity
from symtorch_core.views.terminal import render_text

SCHEMA = 1
"""Version of the JSON form; a reader refuses newer ones."""

Complexity = int | Mapping[int, int] | None
"""One complexity for every equation, or one for some of them by equation number, or no wish."""


@final
@dataclass(frozen=True)
class OutputFidelity:
    """Fidelity of the chosen equations for one output of the block.

    Attributes:
        train: on the rows of the fit.
        held_out: on rows the search never saw; None where none were held out.
        out_of_range: on inputs beyond the range of the fit; None where the block cannot be asked there.
        linear: of the best linear map of the equations' variables, on held-out rows (on the rows of the fit where none
            were held out): the baseline that equations have to beat.
    """

    train: Fidelity
    held_out: Fidelity | None = None
    out_of_range: Fidelity | None = None
    linear: Fidelity | None = None


@final
@dataclass(frozen=True)
class MetricChange:
    """A task metric of the whole model, on the block and on the chosen equations."""

    block: float
    equations: float


@final
@dataclass(frozen=True, eq=False)
class Distillation:
    """What :func:`symtorch_core.distill` found.

    There is one front for each equation: for each distilled output of the block, or, behind a reducer, for
    each dimension of the reduced outputs.

    Attributes:
        fronts: a Pareto front for each equation.
        equation_names: a name for each equation.
        outputs: the block's output columns that the equations give.
        output_names: a name for each of those columns.
        block_outputs: how many output columns the block has.
        transforms: from the block's inputs to derived variables.
        reduction: from derived variables to the equations' variables, and from equations to outputs.
        reducer, regressor, surrogate_kind: names of the components used.
        search: what the search was asked.
        select: the rule that chose the equations.
        fidelity: of the chosen equations, for each column in ``outputs``.
        task_metric: before and after switching; None where no metric was given.
        rows: (rows of the fit, rows held out).
        source: where the activations came from.
        seconds: wall-clock time of each stage.
        versions: of the software that took part.
        seed: of every random choice.
        interrupted: whether the search was stopped, by the user or by a failure of its backend; what was found
            by then is here, perhaps not finished.
        train, held_out: the activations, in memory; a file keeps a sample of those held out.
    """

    fronts: tuple[ParetoFront, ...]
    equation_names: tuple[str, ...]
    outputs: tuple[int, ...]
    output_names: tuple[str, ...]
    block_outputs: int
    transforms: Transforms
    reduction: Reduction
    reducer: str
    regressor: str
    surrogate_kind: str
    search: SearchSpace
    select: SelectionRule
    fidelity: tuple[OutputFidelity, ...] = ()
    task_metric: MetricChange | None = None
    rows: tuple[int, int] = (0, 0)
    source: Source = field(default_factory=Source)
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    interrupted: bool = False
    train: Activations | None = field(default=None, repr=False)
    held_out: Activations | None = field(default=None, repr=False)

    def front(self, equation: int = 0) -> ParetoFront:
        """The Pareto front of one equation.

        Raises:
            SelectionError: there is no such equation.
        """
        if not 0 <= equation < len(self.fronts):
            raise SelectionError(
                f"there is no equation {equation}: they are numbered 0 to {len(self.fronts) - 1}"
            )
        return self.fronts[equation]

    def chosen(
        self, select: SelectionRule | None = None, complexity: Complexity = None
    ) -> tuple[Candidate, ...]:
        """The equation picked from each front.

        Args:
            select: a rule of :meth:`ParetoFront.select`; the distillation's own by default.
            complexity: pick by complexity instead, for all equations (an int) or for some (equation number ->
                int).

        Raises:
            SelectionError: the rule or a complexity picks nothing; the message names the equation and what
                there is.
        """
        if isinstance(complexity, Mapping):
            for equation in complexity:
                self.front(equation)
        picked = []
        for number, front in enumerate(self.fronts):
            wish = complexity.get(number) if isinstance(complexity, Mapping) else complexity
            try:
                picked.append(front.select(select or self.select, complexity=wish))
            except SelectionError as error:
                raise SelectionError(f"equation {number} ({self.equation_names[number]}): {error}") from None
        return tuple(picked)

    def equations(self) -> dict[str, sp.Expr]:
        """The chosen equations in sympy, by name."""
        return {
            name: candidate.equation
            for name, candidate in zip(self.equation_names, self.chosen(), strict=True)
        }

    def surrogate(self, select: SelectionRule | None = None, complexity: Complexity = None) -> Surrogate:
        """A module (..., d_in) -> (..., len(outputs)) that computes the picked equations.

        It has maps and transforms of its own: moving or training it leaves the distillation as it is.
        """
        expressions = [candidate.expression for candidate in self.chosen(select, complexity)]
        kind: type[Surrogate] = load("surrogates", self.surrogate_kind)
        return kind.build(expressions, copy.deepcopy(self.transforms), copy.deepcopy(self.reduction))

    def judge(
        self, activations: Activations, select: SelectionRule | None = None, complexity: Complexity = None
    ) -> list[Fidelity]:
        """Fidelity of the picked equations on other activations, for each column in ``outputs``."""
        prediction = self.surrogate(select, complexity).predict(activations.inputs)
        return measure_fidelity(prediction, activations.outputs[:, list(self.outputs)], activations.weights)

    def latex(self, digits: int = 4) -> str:
        """The chosen equations as LaTeX, one ``name = equation`` per line."""
        lines = zip(self.equation_names, self.chosen(), strict=True)
        return "\n".join(
            f"{sp.latex(sp.Symbol(name))} = {candidate.latex(digits)}" for name, candidate in lines
        )

    def to_frame(self) -> Any:
        """All fronts as one pandas DataFrame with a column ``output`` (needs pandas)."""
        import pandas  # optional, only here

        frames = [
            front.to_frame().assign(output=name)
            for name, front in zip(self.equation_names, self.fronts, strict=True)
        ]
        return pandas.concat(frames, ignore_index=True)

    def __str__(self) -> str:
        return render_text(self)

    def to_json(self) -> dict[str, Any]:
        """Everything but the activations and the reducer's tensors, as JSON data.

        Raises:
            FileFormatError: a transform or the loss is a Python function.
        """
        if callable(self.search.loss):
            raise FileFormatError(
                "the loss is a Python function, which no file can hold; to save, search with a loss by name or formula"
            )
        return {
            "schema": SCHEMA,
            "fronts": [front.to_json() for front in self.fronts],
            "equation_names": list(self.equation_names),
            "outputs": list(self.outputs),
            "output_names": list(self.output_names),
            "block_outputs": self.block_outputs,
            "transforms": self.transforms.to_json(),
            "reduction": self.reduction.shape,
            "reducer": self.reducer,
            "regressor": self.regressor,
            "surrogate": self.surrogate_kind,
            "search": asdict(self.search),
            "select": self.select,
            "fidelity": [
                {key: value and value.to_json() for key, value in vars(entry).items()}
                for entry in self.fidelity
            ],
            "task_metric": None if self.task_metric is None else asdict(self.task_metric),
            "rows": list(self.rows),
            "source": asdict(self.source),
            "seconds": dict(self.seconds),
            "versions": dict(self.versions),
            "seed": self.seed,
            "interrupted": self.interrupted,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Distillation:
        """Read what :meth:`to_json` wrote; the reducer's tensors are still to be loaded.

        Raises:
            FileFormatError: the data are of another form or of a newer schema.
            UnknownComponentError, MissingDependencyError: the reducer is not installed.
        """
        if not isinstance(data, Mapping):
            raise FileFormatError("not a distillation: its JSON is not an object")
        if data.get("schema") != SCHEMA:
            raise FileFormatError(
                f"schema {data.get('schema')!r} is not {SCHEMA}: use the version that wrote the file"
            )
        try:
            reduction: Reduction = load("reducers", data["reducer"]).restore(data["reduction"])
            source = {**data["source"]}
            if source["select_input"] is not None:
                source["select_input"] = tuple(source["select_input"])
            metric = data["task_metric"]
            return cls(
                fronts=tuple(
                    ParetoFront.from_json(front, reduction.variable_names) for front in data["fronts"]
                ),
                equation_names=tuple(data["equation_names"]),
                outputs=tuple(int(column) for column in data["outputs"]),
                output_names=tuple(data["output_names"]),
                block_outputs=int(data["block_outputs"]),
                transforms=Transforms.from_json(data["transforms"]),
                reduction=reduction,
                reducer=data["reducer"],
                regressor=data["regressor"],
                surrogate_kind=data["surrogate"],
                search=SearchSpace(**data["search"]),
                select=data["select"],
                fidelity=tuple(_read_output_fidelity(entry) for entry in data["fidelity"]),
                task_metric=None if metric is None else MetricChange(**metric),
                rows=(int(data["rows"][0]), int(data["rows"][1])),
                source=Source(**source),
                seconds=dict(data["seconds"]),
                versions=dict(data["versions"]),
                seed=int(data["seed"]),
                interrupted=bool(data["interrupted"]),
            )
        except (FileFormatError, UnknownComponentError, MissingDependencyError, DuplicateComponentError):
            raise
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise FileFormatError(f"not a distillation: {error!r}") from error

    def save(self, path: Path | str) -> None:
        """Write the distillation, reducer included, to a JSON file, with a few hundred held-out rows to draw."""
        tensors = {key: value.contiguous() for key, value in self.reduction.state_dict().items()}
        held = {} if self.held_out is None else sample_rows(self.held_out)
        texts = {"reduction_tensors": encode_tensors(tensors), "held_out_sample": encode_tensors(held)}
        text = json.dumps({**self.to_json(), **texts}, indent=1)
        Path(path).write_text(text, encoding="utf-8")

    def report(self, path: Path | str, title: str = "") -> Path:
        """Write one self-contained HTML page: equations, fronts, fits, residuals, baseline, settings.

        Args:
            path: of the file; it is overwritten.
            title: a headline; made from the block's name by default.

        Returns:
            The path.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        from symtorch_core.views.page import build_page  # heavy, and it needs this class first

        return build_page(self, title).write(path)

    def plot(self, kind: str = "front", output: int = 0, ax: Any = None) -> Any:
        """Draw one output (needs matplotlib): its ``"front"``, its ``"fit"``, or its ``"residuals"``.

        Args:
            kind: what to draw.
            output: number of the equation (for ``"front"``), or position among the distilled outputs.
            ax: matplotlib axes to draw on; new ones by default.

        Returns:
            The axes.

        Raises:
            SelectionError: there is no such plot or output, or no rows in memory.
        """
        from symtorch_core.views import plots  # needs this class first

        if kind == "front":
            return plots.plot_front(self.front(output), self.chosen()[output], ax)
        if kind == "fit":
            return plots.plot_fit(self, output, ax)
        if kind == "residuals":
            return plots.plot_residuals(self, output, ax)
        raise SelectionError(f"there is no plot {kind!r}: give 'front', 'fit' or 'residuals'")

    def _repr_html_(self) -> str:
        from symtorch_core.views.notebook import render_result  # needs this class first

        return render_result(self)

    def _repr_latex_(self) -> str:
        lines = self.latex().replace("\n", r" \\ ")
        return rf"$\displaystyle \begin{{gathered}} {lines} \end{{gathered}}$"

    def export(self, path: Path | str) -> Path:
        """Write the chosen equations as ``.py``, ``.c``, ``.tex``, ``.json``, ``.onnx`` or ``.pt2``.

        See :func:`symtorch_core.exports.export`.
        """
        from symtorch_core.exports import export  # the formats need this class first

        return export(self, path)

    @classmethod
    def load(cls, path: Path | str) -> Distillation:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            FileFormatError: it is not such a file.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            tensors, held = (
                decode_tensors(data["reduction_tensors"]),
                decode_tensors(data.get("held_out_sample", "")),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is not a saved distillation: {error!r}") from None
        result = cls.from_json(data)
        try:
            result.reduction.load_state_dict(tensors)
        except RuntimeError as error:  # names or shapes that the reducer does not have
            raise FileFormatError(f"{path} holds other tensors than its reducer's: {error}") from None
        return replace(result, held_out=_restore_rows(held, result)) if held else result


def _restore_rows(tensors: Mapping[str, Tensor], result: Distillation) -> Activations:
    try:
        return Activations(
            tensors["inputs"],
            tensors["outputs"],
            tensors.get("weights"),
            result.transforms.input_names,
            source=result.source,
        )
    except (KeyError, CaptureError) as error:
        raise FileFormatError(f"the saved sample of held-out rows is damaged: {error}") from None


def _read_output_fidelity(entry: Mapping[str, Any]) -> OutputFidelity:
    return OutputFidelity(**{key: value and Fidelity.from_json(value) for key, value in entry.items()})
