"""Pareto fronts: the best equation at each complexity, and the rules that choose one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, final, get_args

import msgspec

from symtorch_core.activations.frames import import_pandas
from symtorch_core.components.checks import check_choice, check_whole
from symtorch_core.components.habits import OF_FRONT, Guide
from symtorch_core.errors import ExpressionError, FileFormatError, SelectionError
from symtorch_core.expressions import Constant, Expression, constants, parse, to_sympy, to_text
from symtorch_core.expressions.printing import to_latex
from symtorch_core.search.fidelity import EquationFidelity, EquationFidelityRecord
from symtorch_core.search.selection import SelectionRule, choose, compute_scores, find_left_out
from symtorch_core.storage.documents import Count, Number, decode, encode_number, summarize

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it


@final
@dataclass(frozen=True)
class Candidate:
    """One equation of a front.

    Attributes:
        expression: the equation's tree.
        complexity: as the core counts it under the search's rules.
        loss: loss of the search on all rows of the fit, computed by the core.
        validation_loss: loss of the search on held-out rows; None if there are none.
        score: fall of log(loss) per unit of complexity from the next simpler equation (SymTorch paper, eq. 2);
            0 for the simplest.
        fidelity: R2, largest error and more beside the equation's own target, on the rows of the fit, held out and out
            of range; None before :func:`symtorch_core.distill` measures it. It is no part of what makes two equal.
        errors: standard error of each constant, in the order of the text, without whole exponents; None for one that
            the rows do not determine. None in place of them all if they are unknown: for a loss other than mse, or
            constants that no fit has left at their best values.
    """

    expression: Expression
    complexity: int
    loss: float
    validation_loss: float | None = None
    score: float = 0.0
    fidelity: EquationFidelity | None = field(default=None, compare=False, repr=False)
    errors: tuple[float | None, ...] | None = None

    @property
    def equation(self) -> sp.Expr:
        """The equation as a sympy expression in plain symbols: ``equation.diff("x0")`` is its derivative.

        In an equation that is too large for sympy, functions are only names.
        """
        return to_sympy(self.expression, real=False)

    def text(self, digits: int | None = 4, *, errors: bool = False) -> str:
        """Return the equation as text with this many significant digits; None for all digits.

        With ``errors``, constants whose standard errors are known are written as in ``(9.791 ± 0.012)*x``, and the
        error has two digits.
        """
        return to_text(self.expression, digits, self.errors if errors else None)

    def latex(self, digits: int = 4, *, errors: bool = False) -> str:
        """Return the equation as LaTeX, on request with standard errors; a very large one, as text in LaTeX."""
        return to_latex(self.expression, digits, self.errors if errors else None)

    def __str__(self) -> str:
        return self.text()

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


@final
@dataclass(frozen=True)
class Unrunnable:
    """Equation that a backend found and the core cannot compute: it is shown, and never chosen.

    Attributes:
        equation: as the backend writes it, in the names of the variables.
        complexity, loss: as the backend counts them.
        reason: why the core cannot compute it.
    """

    equation: str
    complexity: int
    loss: float
    reason: str


@final
class EquationRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An equation of a front in a file."""

    equation: str
    complexity: Count
    loss: float
    validation_loss: Number | None
    fidelity: EquationFidelityRecord | None
    errors: list[float | None] | None


@final
class UnrunnableRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An equation in a file that the core cannot compute."""

    equation: str
    complexity: Count
    loss: Number
    reason: str


@final
class FrontRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A front in a file."""

    equations: list[EquationRecord]
    unrunnable: list[UnrunnableRecord]


@final
class ParetoFront(Guide, Sequence[Candidate]):
    """Equations for one output, from simple to complex, each with a lower loss than all simpler ones.

    A sequence of :class:`Candidate`, built from any candidates: dominated and non-finite ones are left out, and so are
    those that do worse than a constant. Scores are computed here. Equations that the core cannot run are kept in
    ``unrunnable``.

    >>> from symtorch_core.expressions import parse
    >>> front = ParetoFront([Candidate(parse("x"), 1, 0.5), Candidate(parse("x + 1"), 3, 0.01)])
    >>> print(front.select("score"))
    x + 1
    """

    def __init__(self, candidates: Iterable[Candidate], unrunnable: Iterable[Unrunnable] = ()) -> None:
        self.unrunnable: Final = tuple(sorted(unrunnable, key=lambda entry: entry.complexity))
        finite = [candidate for candidate in candidates if math.isfinite(candidate.loss)]
        constant = min((c.loss for c in finite if isinstance(c.expression, Constant)), default=math.inf)
        kept: list[Candidate] = []
        for candidate in sorted(finite, key=lambda c: (c.complexity, c.loss)):
            if candidate.loss > constant or (kept and candidate.loss >= kept[-1].loss):
                continue
            if not kept or kept[-1].complexity < candidate.complexity:
                kept.append(candidate)
        scores = compute_scores([c.complexity for c in kept], [c.loss for c in kept])
        self._candidates = tuple(replace(c, score=score) for c, score in zip(kept, scores, strict=True))

    @classmethod
    def _list_habits(cls) -> Mapping[str, str]:
        return OF_FRONT

    def __len__(self) -> int:
        return len(self._candidates)

    def __getitem__(self, index: Any) -> Any:
        return self._candidates[index]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ParetoFront)
            and self._candidates == other._candidates
            and self.unrunnable == other.unrunnable
        )

    def __hash__(self) -> int:
        return hash(self._candidates)

    def __repr__(self) -> str:
        noun = "equation" if len(self) == 1 else "equations"
        return f"ParetoFront({len(self)} {noun}, complexity {', '.join(map(str, self.complexities))})"

    @property
    def complexities(self) -> tuple[int, ...]:
        """Complexities of the equations, ascending."""
        return tuple(candidate.complexity for candidate in self)

    def select(self, rule: SelectionRule = "knee", *, complexity: int | None = None) -> Candidate:
        """Choose one equation.

        Args:
            rule: ``"knee"``, where the loss stops falling steeply (see :mod:`symtorch_core.search.selection`);
                ``"score"``, the largest score; ``"best"``, PySR's rule, the largest score among equations with a loss
                within 1.5 times the lowest; ``"accuracy"``, the lowest loss; ``"validation"``, the lowest held-out
                loss; ``"simplest"``, the simplest equation with a held-out loss within 1.05 times the lowest. Ties
                go to the simpler equation.
            complexity: choose the equation of exactly this complexity instead.

        Raises:
            SelectionError: the rule is unknown, no equation has that complexity (the message lists the ones that
                exist), there are no held-out losses, or the front is empty.
        """
        check_choice("rule", rule, get_args(SelectionRule), SelectionError)
        if not self:
            raise SelectionError("the front is empty: no equation with a finite loss was found")
        if complexity is not None:
            check_whole("complexity", complexity, error=SelectionError)
            for candidate in self:
                if candidate.complexity == complexity:
                    return candidate
            raise SelectionError(
                f"no equation of complexity {complexity} is on the front; there are: "
                + ", ".join(map(str, self.complexities))
            )
        losses, held_out = [c.loss for c in self], [c.validation_loss for c in self]
        return self._candidates[choose(rule, self.complexities, losses, held_out)]

    def find_left_out(self, chosen: Candidate) -> Candidate | None:
        """Return the more complex equation that a steep fall of the loss leads to, or None if there is none.

        Steep is a fall to less than 78 % of the loss for each unit of complexity, on average.
        """
        losses = [candidate.loss for candidate in self]
        position = find_left_out(self.complexities, losses, self._candidates.index(chosen))
        return None if position is None else self._candidates[position]

    def to_json(self) -> dict[str, Any]:
        """Return the front as JSON data: its equations, and those that cannot run."""
        equations = [
            {
                "equation": str(c.expression),
                "complexity": c.complexity,
                "loss": c.loss,
                "validation_loss": None if c.validation_loss is None else encode_number(c.validation_loss),
                "fidelity": c.fidelity and c.fidelity.to_json(),
                "errors": None if c.errors is None else list(c.errors),
            }
            for c in self
        ]
        unrunnable = [{**asdict(entry), "loss": encode_number(entry.loss)} for entry in self.unrunnable]
        return {"equations": equations, "unrunnable": unrunnable}

    @classmethod
    def from_json(cls, data: object, variables: Sequence[str]) -> ParetoFront:
        """Build a front from what :meth:`to_json` returned; the equations go through the parser.

        Raises:
            FileFormatError: the data do not have this form; the message says where.
        """
        return cls.from_record(decode(data, FrontRecord, "a saved front"), variables)

    @classmethod
    def from_record(cls, record: FrontRecord, variables: Sequence[str]) -> ParetoFront:
        """Build a front from its record; the equations go through the parser.

        Raises:
            FileFormatError: an equation is invalid, or is not better than all simpler ones, or the standard errors are
                not those of its constants.
        """
        try:
            front = cls(
                (
                    Candidate(
                        parse(entry.equation, variables),
                        entry.complexity,
                        entry.loss,
                        None if entry.validation_loss is None else float(entry.validation_loss),
                        fidelity=entry.fidelity and EquationFidelity.from_record(entry.fidelity),
                        errors=_read_errors(entry),
                    )
                    for entry in record.equations
                ),
                (
                    Unrunnable(entry.equation, entry.complexity, float(entry.loss), entry.reason)
                    for entry in record.unrunnable
                ),
            )
        except ExpressionError as error:
            raise FileFormatError(f"a saved front is damaged: {summarize(error)}") from error
        for candidate in front:
            known = candidate.errors
            if known is None:
                continue
            if len(known) != len(constants(candidate.expression)) or any(
                e is not None and e < 0 for e in known
            ):
                raise FileFormatError(
                    f"a saved front is damaged: {summarize(candidate)} has other constants than standard errors"
                )
        if len(front) < len(record.equations):
            raise FileFormatError(
                "a saved front is damaged: an equation is no better than simpler ones, so it is not on the front"
            )
        return front

    def plot(self, ax: Any = None) -> Any:
        """Plot loss over complexity on the given axes or new ones (needs matplotlib), and return the axes."""
        from symtorch_core.views.plots import plot_front  # needs this class first

        return plot_front(self, None, ax)

    def _repr_html_(self) -> str:
        from symtorch_core.views.notebook import render_front  # needs this class first

        return render_front(self)

    def _repr_latex_(self) -> str:
        lines = r" \\ ".join(rf"{c.complexity} & {c.latex()}" for c in self)
        return rf"$\displaystyle \begin{{array}}{{rl}} {lines} \end{{array}}$"

    def to_frame(self) -> Any:
        """Return the front as a pandas DataFrame (needs pandas), one row for each equation.

        Figures of its fidelity (``r2_train``, ``r2_held_out``, ``r2_out_of_range``, ``max_error_held_out``) are missing
        values where they were not measured.
        """
        judged = [c.fidelity or EquationFidelity() for c in self]
        return import_pandas().DataFrame(
            {
                "complexity": [c.complexity for c in self],
                "loss": [c.loss for c in self],
                "score": [c.score for c in self],
                "validation_loss": [c.validation_loss for c in self],
                "r2_train": [f.train and f.train.r2 for f in judged],
                "r2_held_out": [f.held_out and f.held_out.r2 for f in judged],
                "r2_out_of_range": [f.out_of_range and f.out_of_range.r2 for f in judged],
                "max_error_held_out": [f.held_out and f.held_out.max_error for f in judged],
                "equation": [c.text() for c in self],
            }
        )


def _read_errors(entry: EquationRecord) -> tuple[float | None, ...] | None:
    return None if entry.errors is None else tuple(entry.errors)
