"""The result of a distillation: fronts, chosen equations, fidelity and provenance."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from torch import Tensor

from symtorch_core.activations.frames import import_pandas
from symtorch_core.activations.rows import Activations
from symtorch_core.components.checks import check_flag, check_path, check_whole, find_position
from symtorch_core.components.habits import OF_RESULT, Guide
from symtorch_core.components.registry import load
from symtorch_core.errors import CaptureError, FileFormatError, SelectionError
from symtorch_core.expressions import Expression, to_sympy, variables
from symtorch_core.expressions.printing import name_to_latex, to_latex
from symtorch_core.reduction.loadings import Loadings, Side, read_loadings
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.results.choosing import Choice, Picks, choose, resolve_choices
from symtorch_core.results.merging import merge_two
from symtorch_core.results.origin import Origin, Provenance
from symtorch_core.results.prediction import predict
from symtorch_core.results.rounding import round_chosen
from symtorch_core.search.fidelity import Fidelity, measure_fidelity
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.rounding import RoundedConstant
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.expansion import expand_equations
from symtorch_core.surrogates.running import Replacement
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.training.descend import allow_gradients
from symtorch_core.verification.fidelity import OutputFidelity

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it

    from symtorch_core.views.notebook import Explorer

_ROUNDING = 1e-9
_ROWS = ("train", "held_out", "truth")


@final
@dataclass(frozen=True)
class MetricChange:
    """A task metric of the whole model, on the block and on the chosen equations."""

    block: float
    equations: float


@final
@dataclass(frozen=True, eq=False)
class Distillation(Guide):
    """Result of :func:`symtorch_core.distill`.

    There is one front for each equation: for each distilled output of the block or, with a reducer that mixes them, for
    each dimension of the reduced outputs. Equations and outputs are named by name or number: that of the block's column
    or, of equations f0, f1, ... of reduced outputs, their own.

    Attributes:
        fronts: a Pareto front for each equation.
        equation_names: a name for each equation.
        outputs: the block's output columns that the equations compute.
        output_names: a name for each of those columns.
        block_outputs: number of output columns of the block.
        transforms: map from the block's inputs to derived variables.
        reduction: maps from derived variables to the equations' variables, and from equations to outputs.
        search: the search space; of a merged result, that of the last search.
        choices: complexity of the equation chosen from each front, and what chose it.
        provenance: components, data, time, versions and seed; of a merged result, those of the last search.
        fidelity: fidelity of the chosen equations, for each column in ``outputs``; what was not measured is None.
        model_fidelity: agreement of the parent's own output, with the chosen equations in place of the block, with its
            output without, on one batch of the data; None without a parent.
        task_metric: the metric before and after switching; None if no metric was given.
        interrupted: whether a search was stopped, by the user or by a failure of its backend. The result then
            holds what was found before, and may be unfinished.
        earlier: searches before the last one, from which equations are kept: see :func:`symtorch_core.merge`.
        train, held_out: the activations, in memory, for plots; see :meth:`without_rows`. A file of :meth:`save` keeps a
            sample of the held-out ones, a pickled or saved model none.
        truth: inputs of the block and measurements of its outputs, ``y_true`` of :func:`symtorch_core.distill`, in
            memory; None if there are none.
        constant_losses: held-out loss of the best constant in place of each equation; empty if no rows were held out.
        rounded: what :meth:`round_constants` set to exact numbers.
    """

    fronts: tuple[ParetoFront, ...]
    equation_names: tuple[str, ...]
    outputs: tuple[int, ...]
    output_names: tuple[str, ...]
    block_outputs: int
    transforms: Transforms
    reduction: Reduction
    search: SearchSpace
    choices: tuple[Choice, ...]
    provenance: Provenance
    fidelity: tuple[OutputFidelity, ...]
    model_fidelity: Fidelity | None = None
    task_metric: MetricChange | None = None
    interrupted: bool = False
    earlier: tuple[Origin, ...] = ()
    train: Activations | None = field(default=None, repr=False)
    held_out: Activations | None = field(default=None, repr=False)
    truth: Activations | None = field(default=None, repr=False)
    constant_losses: tuple[float, ...] = ()
    rounded: tuple[RoundedConstant, ...] = ()

    @classmethod
    def _list_habits(cls) -> Mapping[str, str]:
        return OF_RESULT

    def without_rows(self) -> Distillation:
        """Return the result without its activations, which may take far more memory than the rest.

        It runs and saves as before; plots of rows need new ones.
        """
        return replace(self, train=None, held_out=None, truth=None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Distillation:
        """Return a copy with modules of its own, but the same rows, which nothing changes."""
        rest = {name: value for name, value in vars(self).items() if name not in _ROWS}
        return replace(self, **copy.deepcopy(rest, memo))

    @property
    def select(self) -> str:
        """What chose the equations: a rule, "complexity" or "own choice"; several of them joined by "and"."""
        return " and ".join(dict.fromkeys(choice.by for choice in self.choices))

    @property
    def equation_numbers(self) -> tuple[int, ...]:
        """The number of each equation: its column of the block or, where equations are no columns, its position."""
        return self.outputs if self.reduction.keeps_outputs else tuple(range(len(self.fronts)))

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The searches that the equations come from, the last one last."""
        before = {column for origin in self.earlier for column in origin.outputs}
        rest = tuple(column for column in self.outputs if column not in before)
        return (*self.earlier, Origin(rest, self.search, self.provenance))

    @property
    def searches(self) -> tuple[SearchSpace, ...]:
        """The search space of each equation."""
        found = {column: origin.search for origin in self.origins for column in origin.outputs}
        if not self.reduction.keeps_outputs:  # one search found them all
            return (self.search,) * len(self.fronts)
        return tuple(found[column] for column in self.outputs)

    def find_equation(self, equation: int | str | None) -> int:
        """Return the position of an equation by its number or name; of the first one for None.

        Raises:
            SelectionError: there is no such equation; the message lists those that there are.
        """
        if equation is None:
            return 0
        return find_position("equation", equation, self.equation_numbers, self.equation_names, SelectionError)

    def find_output(self, output: int | str | None) -> int:
        """Return the position of a distilled output by its column of the block or its name; of the first for None.

        Raises:
            SelectionError: there is no such output; the message lists those that there are.
        """
        if output is None:
            return 0
        return find_position("output", output, self.outputs, self.output_names, SelectionError)

    def origin(self, equation: int | str | None = None) -> Origin:
        """Return the search that an equation comes from; those of one search all have one.

        Raises:
            SelectionError: there is no such equation.
        """
        position = self.find_equation(equation)
        last = self.origins[-1]
        if not self.reduction.keeps_outputs:  # one search found them all
            return last
        return next(o for o in self.origins if self.outputs[position] in o.outputs)

    def front(self, equation: int | str | None = None) -> ParetoFront:
        """Return the Pareto front of one equation, by name or number; the first one by default.

        Raises:
            SelectionError: there is no such equation.
        """
        return self.fronts[self.find_equation(equation)]

    def chosen(self, select: Picks | None = None, complexity: Picks | None = None) -> tuple[Candidate, ...]:
        """Return the equation chosen from each front, or what :meth:`choose` would choose.

        Raises:
            SelectionError: nothing is chosen; the message names the equation and the possible choices.
        """
        candidates = []
        choices = resolve_choices(self, select, complexity)
        for position, (front, choice) in enumerate(zip(self.fronts, choices, strict=True)):
            try:
                candidates.append(front.select(complexity=choice.complexity))
            except SelectionError as error:
                number, name = self.equation_numbers[position], self.equation_names[position]
                raise SelectionError(f"equation {number} ({name}): {error}") from None
        return tuple(candidates)

    def choose(
        self, rule: Picks | None = None, *, complexity: Picks | None = None, data: Any = None
    ) -> Distillation:
        """Return a result with other equations chosen from the same fronts; there is no new search.

        Its views, exports, files and surrogates are of the new equations. Their fidelity was measured with the fronts;
        with a reducer that mixes outputs, it is measured on the rows in memory (or those of the file), and out of range
        it is None. What was measured on the whole model is None, unless the choice is the same.

        >>> result.choose("best")  # doctest: +SKIP
        >>> result.choose(complexity=12)  # doctest: +SKIP
        >>> result.choose({"alpha": 12, "beta": "best"})  # doctest: +SKIP
        >>> result.choose(lambda front: front[2])  # doctest: +SKIP

        Args:
            rule: a rule of :meth:`ParetoFront.select`, or a function that is given a front and returns one of its
                equations or a complexity; a list with one of these for each equation; or a dictionary by name or number
                of an equation, in which equations that it does not name stay as they are.
            complexity: a complexity instead, or a list or dictionary of them. A dictionary may come beside a rule, for
                which the others are chosen.
            data: measurements (X, Y) that the rule goes by, instead of what the block computes: losses are those on
                these rows, and equations that are no better than simpler ones there are out of question. Y has a column
                for each output of the block, or for each distilled one. Losses and fidelity of the result stay
                those beside the block; :meth:`judge` gives others.

        Raises:
            CaptureError: the data are not rows of this block.
            SelectionError: the choice is empty, names an equation that there is not, or wants of a front what is not
                there; the message lists what there is.
        """
        return choose(self, rule, complexity, data)

    def find_worse_than_constant(self) -> tuple[int, ...]:
        """Return the positions of the chosen equations that do worse on held-out rows than the best constant."""
        if not self.constant_losses:
            return ()

        def is_worse(candidate: Candidate, constant: float) -> bool:
            loss = math.inf if candidate.validation_loss is None else candidate.validation_loss
            return bool(variables(candidate.expression)) and loss > constant * (1 + _ROUNDING)

        pairs = zip(self.chosen(), self.constant_losses, strict=True)
        return tuple(number for number, pair in enumerate(pairs) if is_worse(*pair))

    def round_constants(self) -> Distillation:
        """Return the distillation with constants of its chosen equations set to the simple numbers they may be.

        These are whole numbers, fractions with denominators of up to 6, and multiples of pi and e. A constant is set to
        one within two of its standard errors, if the loss does not rise by more than they explain; the others are then
        fitted again. ``rounded`` of the result says what was changed, and so do its views. Losses and fidelity are
        measured again, but for what needs the block: out of range, and on the whole model.

        Returns:
            The distillation itself if there is nothing to round.

        Raises:
            SelectionError: the rows of the fit are not in memory, or the loss is not mse.
        """
        return round_chosen(self)

    def equations(self, *, expand: bool = False) -> dict[str, sp.Expr]:
        """Return the chosen equations in sympy, by name.

        Args:
            expand: return the block's outputs by name, in its own inputs: with transforms and reducer written out.

        Raises:
            SelectionError: a map of the reducer is not linear, or a transform is a Python function.
        """
        check_flag("expand", expand, SelectionError)
        if expand:
            return {name: to_sympy(part, real=False) for name, part in self.expand().items()}
        return {
            name: candidate.equation
            for name, candidate in zip(self.equation_names, self.chosen(), strict=True)
        }

    def expand(self) -> dict[str, Expression]:
        """Return an expression in the block's inputs for each distilled output, by name; see :meth:`equations`."""
        chosen = [candidate.expression for candidate in self.chosen()]
        return dict(
            zip(self.output_names, expand_equations(chosen, self.transforms, self.reduction), strict=True)
        )

    def loadings(self, side: Side = "inputs") -> Any:
        """Return what the reducer's maps are made of, as a pandas DataFrame (needs pandas).

        Args:
            side: ``"inputs"``: a row for each variable z of the equations, with the weight of each input in it (or of
                each derived variable); ``"outputs"``: a row for each equation, with its weight in each output.

        Raises:
            SelectionError: nothing is reduced there, or the map is not linear.
        """
        return self.read_loadings(side).to_frame()

    def read_loadings(self, side: Side) -> Loadings:
        """Return what :meth:`loadings` shows, as plain data."""
        names = (self.transforms.variable_names, self.output_names, self.equation_names)
        return read_loadings(self.reduction, side, *names)

    @allow_gradients()  # a parameter made under inference_mode could never be trained
    def surrogate(self, select: Picks | None = None, complexity: Picks | None = None) -> Surrogate:
        """Build a module (..., d_in) -> (..., len(outputs)) that computes the chosen equations.

        It has its own copy of maps and transforms: moving or training it does not change the distillation. With
        arguments of :meth:`choose`, it computes the equations that they choose.
        """
        expressions = [candidate.expression for candidate in self.chosen(select, complexity)]
        kind: type[Surrogate] = load("surrogates", self.provenance.surrogate)
        return kind.build(expressions, copy.deepcopy(self.transforms), copy.deepcopy(self.reduction))

    def replacement(self, surrogate: Surrogate) -> Replacement:
        """Return equations of this distillation, as built by :meth:`surrogate`, ready for the block's place."""
        return Replacement(surrogate, self.provenance.source, self.outputs, self.block_outputs)

    def judge(
        self, activations: Activations, select: Picks | None = None, complexity: Picks | None = None
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

    def predict(self, X: Any) -> Any:
        """Return the distilled outputs by the chosen equations, shape (n, len(outputs)), without gradients.

        Args:
            X: rows, shape (n, d_in): an array, a list or a data frame, for which an array is returned, or a tensor, for
                which a tensor on its device and in its precision is returned. A frame's columns are taken by the
                names of the inputs or, if it has none of those, in their order.

        Raises:
            CaptureError: X is a single row or number, or does not have one number for each input.
        """
        return predict(self, X)

    __call__ = predict

    def __or__(self, other: Distillation) -> Distillation:
        """Return one result with the equations of both; see :func:`symtorch_core.merge`."""
        return merge_two(self, other) if isinstance(other, Distillation) else NotImplemented

    def latex(self, digits: int = 4, *, errors: bool = False, expand: bool = False) -> str:
        """Return the chosen equations as LaTeX, one ``name = equation`` per line.

        Args:
            digits: significant digits of the constants.
            errors: write the standard errors of the constants, where they are known.
            expand: write the block's outputs in its own inputs; see :meth:`equations`.

        Raises:
            SelectionError: the equations cannot be written in the inputs, or both are asked for: constants that are
                mixed with the maps' numbers have no errors.
        """
        check_whole("digits", digits, 1, SelectionError)
        for name, value in (("errors", errors), ("expand", expand)):
            check_flag(name, value, SelectionError)
        if errors and expand:
            raise SelectionError(
                "errors are those of the equations before they are expanded: give errors=True or expand=True"
            )
        if expand:
            lines = {name: to_latex(part, digits) for name, part in self.expand().items()}
        else:
            chosen = zip(self.equation_names, self.chosen(), strict=True)
            lines = {name: candidate.latex(digits, errors=errors) for name, candidate in chosen}
        return "\n".join(f"{name_to_latex(name)} = {text}" for name, text in lines.items())

    def to_frame(self) -> Any:
        """Return all fronts as one pandas DataFrame with a column ``output`` (needs pandas).

        The column ``chosen`` is True for the chosen equations; see :meth:`ParetoFront.to_frame` for the others.
        """
        frames = [
            front.to_frame().assign(
                output=name, chosen=[candidate.complexity == choice.complexity for candidate in front]
            )
            for name, front, choice in zip(self.equation_names, self.fronts, self.choices, strict=True)
        ]
        return import_pandas().concat(frames, ignore_index=True)

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

    def plot(self, kind: str = "front", output: int | str | None = None, ax: Any = None) -> Any:
        """Draw one output (needs matplotlib): its ``"front"``, its ``"fit"``, or its ``"residuals"``.

        Args:
            kind: the kind of plot.
            output: name or number of the equation (for ``"front"``) or of the output; the first one by default.
            ax: matplotlib axes to draw on; new ones by default.

        Returns:
            The axes.

        Raises:
            SelectionError: the plot or output does not exist, or there are no rows in memory.
        """
        from symtorch_core.views.plots import plot_result

        return plot_result(self, kind, output, ax)

    def explore(self, equation: int | str | None = None) -> Explorer:
        """Return a front with a slider, which a notebook shows: equation, curve and figures follow it.

        Args:
            equation: name or number of the equation; the first one by default.

        Raises:
            SelectionError: the equation does not exist.
            MissingDependencyError: matplotlib is not installed.
        """
        from symtorch_core.views.notebook import explore_result

        return explore_result(self, equation)

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


def merge(first: Distillation, *others: Distillation) -> Distillation:
    """Return one result with the equations of several results for one block; of an output in two, the later's.

    Each equation keeps its front, choice and fidelity; :meth:`Distillation.origin` tells which search it comes from.
    Search space, provenance and rows of the merged result are those of the last one.

    >>> both = merge(found_alpha, found_beta)  # doctest: +SKIP
    >>> both = found_alpha | found_beta  # doctest: +SKIP

    Raises:
        SelectionError: something is no result, or two results cannot run side by side: a reducer mixes outputs, a
            variable has two definitions, or they are of other blocks or tensors.
    """
    for result in (first, *others):
        if not isinstance(result, Distillation):
            raise SelectionError(f"merge takes results of distill, not a {type(result).__name__}")
    return functools.reduce(merge_two, others, first)
