"""The result of a distillation: fronts, chosen equations, fidelity and provenance."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, get_args

from torch import Tensor

from symtorch_core.activations.rows import Activations, Source
from symtorch_core.components.checks import check_choice, check_path, check_position, check_whole
from symtorch_core.components.registry import load
from symtorch_core.errors import CaptureError, FileFormatError, SelectionError
from symtorch_core.expressions.printing import name_to_latex
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.search.front import Candidate, ParetoFront, SelectionRule
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.running import Replacement
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.training.descend import allow_gradients
from symtorch_core.verification.fidelity import Fidelity, OutputFidelity, measure_fidelity

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it

    from symtorch_core.views.notebook import Explorer

Complexity = int | Mapping[int, int] | None
"""One complexity for all equations, or a complexity by equation number for some, or None to follow the rule."""


@final
@dataclass(frozen=True)
class MetricChange:
    """A task metric of the whole model, on the block and on the chosen equations."""

    block: float
    equations: float


@final
@dataclass(frozen=True)
class Provenance:
    """Origin of a distillation.

    Attributes:
        regressor, reducer, surrogate: names of the components used.
        source: origin of the activations.
        rows: (rows of the fit, rows held out).
        seconds: wall-clock time of each stage.
        versions: versions of the software used.
        seed: seed of every random choice.
    """

    regressor: str
    reducer: str
    surrogate: str
    source: Source = field(default_factory=Source)
    rows: tuple[int, int] = (0, 0)
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@final
@dataclass(frozen=True, eq=False)
class Distillation:
    """Result of :func:`symtorch_core.distill`.

    There is one front for each equation: for each distilled output of the block or, with a reducer, for
    each dimension of the reduced outputs.

    Attributes:
        fronts: a Pareto front for each equation.
        equation_names: a name for each equation.
        outputs: the block's output columns that the equations compute.
        output_names: a name for each of those columns.
        block_outputs: number of output columns of the block.
        transforms: map from the block's inputs to derived variables.
        reduction: maps from derived variables to the equations' variables, and from equations to outputs.
        search: the search space.
        select: the rule that chose the equations.
        provenance: components, data, time, versions and seed.
        fidelity: fidelity of the chosen equations, for each column in ``outputs``.
        model_fidelity: agreement of the parent's own output, with the chosen equations in place of the block, with its
            output without, on one batch of the data; None without a parent.
        task_metric: the metric before and after switching; None if no metric was given.
        interrupted: whether the search was stopped, by the user or by a failure of its backend. The result then
            holds what was found before, and may be unfinished.
        train, held_out: the activations, in memory, for plots; see :meth:`without_rows`. A file of :meth:`save` keeps a
            sample of the held-out ones, a pickled or saved model none.
    """

    fronts: tuple[ParetoFront, ...]
    equation_names: tuple[str, ...]
    outputs: tuple[int, ...]
    output_names: tuple[str, ...]
    block_outputs: int
    transforms: Transforms
    reduction: Reduction
    search: SearchSpace
    select: SelectionRule
    provenance: Provenance
    fidelity: tuple[OutputFidelity, ...] = ()
    model_fidelity: Fidelity | None = None
    task_metric: MetricChange | None = None
    interrupted: bool = False
    train: Activations | None = field(default=None, repr=False)
    held_out: Activations | None = field(default=None, repr=False)

    def without_rows(self) -> Distillation:
        """Return the result without its activations, which may take far more memory than the rest.

        It runs and saves as before; plots of rows need new ones.
        """
        return replace(self, train=None, held_out=None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Distillation:
        """Return a copy with modules of its own, but the same rows, which nothing changes."""
        rest = {name: value for name, value in vars(self).items() if name not in ("train", "held_out")}
        return replace(self, **copy.deepcopy(rest, memo))

    def front(self, equation: int = 0) -> ParetoFront:
        """Return the Pareto front of one equation.

        Raises:
            SelectionError: the equation does not exist.
        """
        check_position("equation", equation, len(self.fronts), SelectionError, "equation")
        return self.fronts[equation]

    def chosen(
        self, select: SelectionRule | None = None, complexity: Complexity = None
    ) -> tuple[Candidate, ...]:
        """Return the equation chosen from each front.

        Args:
            select: a rule of :meth:`ParetoFront.select`; the distillation's own by default.
            complexity: choose by complexity instead, for all equations (an int) or for some (equation number ->
                int).

        Raises:
            SelectionError: the rule or a complexity chooses nothing; the message names the equation and the
                possible choices.
        """
        rule = self.select if select is None else select
        check_choice("rule", rule, get_args(SelectionRule), SelectionError)
        if isinstance(complexity, Mapping):
            for equation in complexity:
                self.front(equation)
        candidates = []
        for number, front in enumerate(self.fronts):
            requested = complexity.get(number) if isinstance(complexity, Mapping) else complexity
            try:
                candidates.append(front.select(rule, complexity=requested))
            except SelectionError as error:
                raise SelectionError(f"equation {number} ({self.equation_names[number]}): {error}") from None
        return tuple(candidates)

    def equations(self) -> dict[str, sp.Expr]:
        """Return the chosen equations in sympy, by name."""
        return {
            name: candidate.equation
            for name, candidate in zip(self.equation_names, self.chosen(), strict=True)
        }

    @allow_gradients()  # a parameter made under inference_mode could never be trained
    def surrogate(self, select: SelectionRule | None = None, complexity: Complexity = None) -> Surrogate:
        """Build a module (..., d_in) -> (..., len(outputs)) that computes the chosen equations.

        It has its own copy of maps and transforms: moving or training it does not change the distillation.
        """
        expressions = [candidate.expression for candidate in self.chosen(select, complexity)]
        kind: type[Surrogate] = load("surrogates", self.provenance.surrogate)
        return kind.build(expressions, copy.deepcopy(self.transforms), copy.deepcopy(self.reduction))

    def replacement(self, surrogate: Surrogate) -> Replacement:
        """Return equations of this distillation, as built by :meth:`surrogate`, ready for the block's place."""
        return Replacement(surrogate, self.provenance.source, self.outputs, self.block_outputs)

    def judge(
        self, activations: Activations, select: SelectionRule | None = None, complexity: Complexity = None
    ) -> list[Fidelity]:
        """Return the fidelity of the chosen equations on other activations, for each column in ``outputs``.

        Raises:
            CaptureError: the activations are not of this block: they have other numbers of inputs or outputs.
        """
        if not isinstance(activations, Activations):
            raise CaptureError(f"activations must be Activations, not a {type(activations).__name__}")
        if activations.outputs.shape[1] != self.block_outputs:
            raise CaptureError(
                f"the activations have {activations.outputs.shape[1]} outputs, the block has {self.block_outputs}"
            )
        prediction = self.surrogate(select, complexity).predict(activations.inputs)
        return measure_fidelity(prediction, activations.outputs[:, list(self.outputs)], activations.weights)

    def latex(self, digits: int = 4) -> str:
        """Return the chosen equations as LaTeX, one ``name = equation`` per line."""
        check_whole("digits", digits, 1, SelectionError)

        lines = zip(self.equation_names, self.chosen(), strict=True)
        return "\n".join(f"{name_to_latex(name)} = {candidate.latex(digits)}" for name, candidate in lines)

    def to_frame(self) -> Any:
        """Return all fronts as one pandas DataFrame with a column ``output`` (needs pandas)."""
        import pandas  # optional, only here

        frames = [
            front.to_frame().assign(output=name)
            for name, front in zip(self.equation_names, self.fronts, strict=True)
        ]
        return pandas.concat(frames, ignore_index=True)

    # Views, exports and files import this class, not the other way round; the methods below delegate to them.

    def __repr__(self) -> str:
        from symtorch_core.views.terminal import summarize_result

        return summarize_result(self)

    def __str__(self) -> str:
        from symtorch_core.views.terminal import render_text

        return render_text(self)

    def _repr_html_(self) -> str:
        from symtorch_core.views.notebook import render_result

        return render_result(self)

    def _repr_latex_(self) -> str:
        lines = self.latex().replace("\n", r" \\ ")
        return rf"$\displaystyle \begin{{gathered}} {lines} \end{{gathered}}$"

    def plot(self, kind: str = "front", output: int = 0, ax: Any = None) -> Any:
        """Draw one output (needs matplotlib): its ``"front"``, its ``"fit"``, or its ``"residuals"``.

        Args:
            kind: the kind of plot.
            output: number of the equation (for ``"front"``), or position among the distilled outputs.
            ax: matplotlib axes to draw on; new ones by default.

        Returns:
            The axes.

        Raises:
            SelectionError: the plot or output does not exist, or there are no rows in memory.
        """
        from symtorch_core.views.plots import plot_result

        return plot_result(self, kind, output, ax)

    def explore(self, output: int = 0) -> Explorer:
        """Return a front with a slider, which a notebook shows: equation, curve and figures follow it.

        Args:
            output: number of the equation.

        Raises:
            SelectionError: the equation does not exist.
            MissingDependencyError: matplotlib is not installed.
        """
        from symtorch_core.views.notebook import explore_result

        return explore_result(self, output)

    def report(self, path: Path | str, title: str = "") -> Path:
        """Write one self-contained HTML page: equations, fronts, fits, residuals, baseline and settings.

        Args:
            path: path of the file, which is overwritten.
            title: the headline; made from the block's name by default.

        Returns:
            The path.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        from symtorch_core.views.page import build_page

        checked = check_path("path", path, FileFormatError)
        return build_page(self, title).write(checked)

    def export(self, path: Path | str, surrogate: Surrogate | None = None) -> Path:
        """Write the chosen equations as ``.py``, ``.c``, ``.tex``, ``.json``, ``.onnx`` or ``.pt2``.

        The ending names the format: a numpy module, C99, a LaTeX table of all fronts, everything for :meth:`load`, a
        graph for onnxruntime, a program for ``torch.export.load``. With ``surrogate``, its equations and present
        constants are written.

        Raises:
            FileFormatError: there is no such format, or the equations cannot be written in it.
            MissingDependencyError: a package for it is not installed.
        """
        from symtorch_core.exports import export

        return export(self, path, surrogate)

    def save(self, path: Path | str) -> None:
        """Write the distillation, reducer included, to a JSON file, with a few hundred held-out rows to draw.

        A transform or a loss that is a Python function is left out, and a warning names it: see :meth:`load`.
        """
        from symtorch_core.results.files import save_distillation

        save_distillation(self, path)

    @staticmethod
    def load(
        path: Path | str,
        transforms: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        loss: Callable[[Tensor], Tensor] | None = None,
    ) -> Distillation:
        """Read a distillation from a file of :meth:`save`. Nothing in the file is executed.

        Args:
            path: path of the file.
            transforms: Python functions that the file lacks: name of the variable -> function. Without them, fronts
                and fidelity can be read, but equations in such a variable cannot run.
            loss: the Python function that was the loss, if the file lacks it.

        Raises:
            FileFormatError: the file is not a saved distillation, or a function is given that it does not lack.
        """
        from symtorch_core.results.files import load_distillation

        return load_distillation(path, transforms, loss)
