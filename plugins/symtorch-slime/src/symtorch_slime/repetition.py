"""``stability``: does an explanation recur with other seeds and other widths of the neighbourhood?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from rich.console import Console
from rich.progress import track

from symtorch_core import SearchError
from symtorch_core.expressions import Expression, constants, simplify, to_text, with_constants
from symtorch_slime.explanation import Explanation, explain

_SAME = 1.5


@final
@dataclass(frozen=True, eq=False)
class Run:
    """One explanation among several.

    Attributes:
        seed, bandwidth: of this explanation.
        explanation: the explanation.
        structures: of each equation, its text with all constants alike (signs and whole exponents count).
        variables: for each output, the most important inputs, in alphabetical order.
    """

    seed: int
    bandwidth: float
    explanation: Explanation
    structures: tuple[str, ...]
    variables: tuple[tuple[str, ...], ...]


@final
@dataclass(frozen=True, eq=False)
class Stability:
    """How often explanations agree.

    Attributes:
        runs: every finished run.
        structures: for each output, the commonest structure.
        structure_share: for each output, the share of runs that have it, 0..1.
        variables: for each output, the commonest set of top inputs.
        variables_share: for each output, the share of runs that have it, 0..1.
    """

    runs: tuple[Run, ...]
    structures: tuple[str, ...]
    structure_share: tuple[float, ...]
    variables: tuple[tuple[str, ...], ...]
    variables_share: tuple[float, ...]

    def __str__(self) -> str:
        names = self.runs[0].explanation.result.output_names
        return "\n".join(
            f"{name}: structure {self.structures[i]} in {self.structure_share[i]:.0%} of {len(self.runs)} runs, "
            f"top inputs {', '.join(self.variables[i]) or 'none'} in {self.variables_share[i]:.0%}"
            for i, name in enumerate(names)
        )


def stability(
    f: Callable[..., Any],
    X: Any,
    x_star: Any,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    bandwidths: Sequence[float] = (0.5, 1.0, 2.0),
    top: int = 3,
    progress: bool = True,
    **options: Any,
) -> Stability:
    """Explain the same point with several seeds and widths.

    Args:
        f, X, x_star: see :func:`symtorch_slime.explain`.
        seeds: of samples and search.
        bandwidths: factors on the width of the neighbourhood; each is tried with each seed.
        top: number of inputs that count as the top ones.
        progress: draw a bar in a terminal or a notebook.
        **options: of :func:`symtorch_slime.explain`.

    After Ctrl-C, the finished runs are returned, if there are any.

    Raises:
        SearchError: no seeds, no bandwidths, or ``top`` below 1.
        KeyboardInterrupt: stopped before the first run was finished.
    """
    if not seeds or not bandwidths or top < 1:
        raise SearchError("give at least one seed and one bandwidth, and top of at least 1")
    wanted = [(seed, bandwidth) for bandwidth in bandwidths for seed in seeds]
    console = Console(stderr=True)
    runs: list[Run] = []
    try:
        for seed, bandwidth in track(
            wanted, "explaining", console=console, disable=not (progress and console.is_terminal)
        ):
            found = explain(f, X, x_star, seed=seed, bandwidth=bandwidth, progress=False, **options)
            if found.result.interrupted and runs:
                break
            runs.append(_summarize(seed, bandwidth, found, top))
            if found.result.interrupted:
                break
    except KeyboardInterrupt:
        if not runs:
            raise
    structures = [
        _find_commonest([run.structures[i] for run in runs]) for i in range(len(runs[0].structures))
    ]
    variables = [_find_commonest([run.variables[i] for run in runs]) for i in range(len(runs[0].structures))]
    return Stability(
        runs=tuple(runs),
        structures=tuple(value for value, _ in structures),
        structure_share=tuple(share for _, share in structures),
        variables=tuple(value for value, _ in variables),
        variables_share=tuple(share for _, share in variables),
    )


def describe_structure(expression: Expression) -> str:
    """Return an equation's text with all constants alike; signs and whole exponents stay.

    >>> from symtorch_core.expressions import parse
    >>> describe_structure(parse("2.5*x0^2 - 0.3")) == describe_structure(parse("1.7*x0^2 - 4"))
    True
    """
    alike = [_SAME if value > 0 else -_SAME for value in constants(expression)]
    return to_text(simplify(with_constants(expression, alike)))


def _summarize(seed: int, bandwidth: float, found: Explanation, top: int) -> Run:
    chosen = found.result.chosen()
    return Run(
        seed=seed,
        bandwidth=bandwidth,
        explanation=found,
        structures=tuple(describe_structure(candidate.expression) for candidate in chosen),
        variables=tuple(tuple(sorted(found.top(top, output))) for output in found.result.outputs),
    )


def _find_commonest(values: Sequence[Any]) -> tuple[Any, float]:
    """Return the commonest value, the first of equals, and its share."""
    value, count = Counter(values).most_common(1)[0]
    return value, count / len(values)
