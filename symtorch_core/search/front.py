"""Pareto fronts: the best equation at each complexity, and the rules that choose one."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, final, get_args

import msgspec

from symtorch_core.components.checks import check_choice, check_whole
from symtorch_core.errors import ExpressionError, FileFormatError, SelectionError
from symtorch_core.expressions import Expression, parse, to_sympy, to_text
from symtorch_core.expressions.printing import to_latex
from symtorch_core.storage.documents import Count, Number, decode, encode_number, summarize

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it

SelectionRule = Literal["score", "best", "accuracy", "validation", "simplest"]
HELD_OUT_RULES: Final = ("validation", "simplest")
"""Rules that need held-out rows."""
BEST_WITHIN = 1.5
"""The rule "best" considers equations with a loss of at most this many times the lowest (PySR's figure)."""
SIMPLEST_WITHIN = 1.05
"""The rule "simplest" considers equations with a held-out loss of at most this many times the lowest."""
_EXACT = 1e-32
"""Losses below this share of the loss of the front's first equation are rounding, and count as this large in scores."""
_ROUNDING = 1e-9  # of the loss of the front's first equation


@final
@dataclass(frozen=True)
class Candidate:
    """One equation of a front.

    Attributes:
        expression: the equation's tree.
        complexity: as the core counts it under the search's rules.
        loss: loss of the search on all rows of the fit, computed by the core.
        validation_loss: loss of the search on held-out rows; None if there are none.
        score: drop of log(loss) per unit of complexity from the next simpler equation (SymTorch paper, eq. 2);
            0 for the simplest.
    """

    expression: Expression
    complexity: int
    loss: float
    validation_loss: float | None = None
    score: float = 0.0

    @property
    def equation(self) -> sp.Expr:
        """The equation as a sympy expression in plain symbols: ``equation.diff("x0")`` is its derivative.

        In an equation that is too large for sympy, functions are only names.
        """
        return to_sympy(self.expression, real=False)

    def text(self, digits: int | None = 4) -> str:
        """Return the equation as text with this many significant digits; None for all digits."""
        return to_text(self.expression, digits)

    def latex(self, digits: int = 4) -> str:
        """Return the equation as LaTeX; one that is too large to be typeset, as text in LaTeX."""
        return to_latex(self.expression, digits)

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
class ParetoFront(Sequence[Candidate]):
    """Equations for one output, from simple to complex, each with a lower loss than all simpler ones.

    A sequence of :class:`Candidate`, built from any candidates: dominated and non-finite ones are left out, and
    scores are computed here. Equations that the core cannot run are kept in ``unrunnable``.

    >>> from symtorch_core.expressions import parse
    >>> front = ParetoFront([Candidate(parse("x"), 1, 0.5), Candidate(parse("x + 1"), 3, 0.01)])
    >>> print(front.select("score"))
    x + 1
    """

    def __init__(self, candidates: Iterable[Candidate], unrunnable: Iterable[Unrunnable] = ()) -> None:
        self.unrunnable: Final = tuple(sorted(unrunnable, key=lambda entry: entry.complexity))
        kept: list[Candidate] = []
        for candidate in sorted(candidates, key=lambda c: (c.complexity, c.loss)):
            if math.isfinite(candidate.loss) and (not kept or candidate.loss < kept[-1].loss):
                if kept and kept[-1].complexity == candidate.complexity:
                    continue
                score = _compute_score(kept[-1], candidate, _EXACT * kept[0].loss) if kept else 0.0
                kept.append(replace(candidate, score=score))
        self._candidates = tuple(kept)

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

    def select(self, rule: SelectionRule = "score", *, complexity: int | None = None) -> Candidate:
        """Choose one equation.

        Args:
            rule: ``"score"``, the largest score; ``"best"``, PySR's rule, the largest score among equations
                with a loss within 1.5 times the lowest; ``"accuracy"``, the lowest loss; ``"validation"``,
                the lowest held-out loss; ``"simplest"``, the simplest equation with a held-out loss within 1.05 times
                the lowest. Ties go to the simpler equation.
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
        if rule == "score":
            return max(self, key=lambda c: c.score)
        if rule == "best":
            threshold = BEST_WITHIN * self._candidates[-1].loss
            return max((c for c in self if c.loss <= threshold), key=lambda c: c.score)
        if rule == "accuracy":
            return self._candidates[-1]
        losses = [math.inf if c.validation_loss is None else c.validation_loss for c in self]
        least = min(losses)
        if not math.isfinite(least):
            raise SelectionError("the front has no held-out losses: distill with test_fraction > 0")
        within = least
        if rule == "simplest":
            within = SIMPLEST_WITHIN * least + _ROUNDING * self._candidates[0].loss
        return next(c for c, loss in zip(self, losses, strict=True) if loss <= within)

    def to_json(self) -> dict[str, Any]:
        """Return the front as JSON data: its equations, and those that cannot run."""
        equations = [
            {
                "equation": str(c.expression),
                "complexity": c.complexity,
                "loss": c.loss,
                "validation_loss": None if c.validation_loss is None else encode_number(c.validation_loss),
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
            FileFormatError: an equation is invalid, or is not better than all simpler ones.
        """
        try:
            front = cls(
                (
                    Candidate(
                        parse(entry.equation, variables),
                        entry.complexity,
                        entry.loss,
                        None if entry.validation_loss is None else float(entry.validation_loss),
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
        """Return the front as a pandas DataFrame (needs pandas), one row for each equation."""
        import pandas  # optional, only here

        return pandas.DataFrame(
            {
                "complexity": [c.complexity for c in self],
                "loss": [c.loss for c in self],
                "score": [c.score for c in self],
                "validation_loss": [c.validation_loss for c in self],
                "equation": [c.text() for c in self],
            }
        )


def _compute_score(simpler: Candidate, candidate: Candidate, least: float) -> float:
    least = max(least, sys.float_info.min)
    drop = math.log(max(simpler.loss, least)) - math.log(max(candidate.loss, least))
    return drop / (candidate.complexity - simpler.complexity)
