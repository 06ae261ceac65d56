"""Fronts as LaTeX tables."""

from __future__ import annotations

from collections.abc import Mapping

from symtorch_core.components.escaping import escape_latex_text
from symtorch_core.search.front import ParetoFront


def to_latex_table(fronts: Mapping[str, ParetoFront], digits: int = 4) -> str:
    r"""Return fronts as one LaTeX table (needs the package booktabs).

    Args:
        fronts: fronts by the name of the output.
        digits: significant digits of the constants.

    >>> from symtorch_core.expressions import parse
    >>> from symtorch_core.search.front import Candidate
    >>> print(to_latex_table({"y": ParetoFront([Candidate(parse("2*x"), 3, 0.25)])}))
    \begin{tabular}{rrrl}
    \toprule
    complexity & loss & score & equation \\
    \midrule
    \multicolumn{4}{l}{\texttt{y}} \\
    3 & $2.5 \cdot 10^{-1}$ & 0.000 & $2 x$ \\
    \bottomrule
    \end{tabular}
    """
    lines = [r"\begin{tabular}{rrrl}", r"\toprule", r"complexity & loss & score & equation \\"]
    for name, front in fronts.items():
        lines += [r"\midrule", rf"\multicolumn{{4}}{{l}}{{\texttt{{{escape_latex_text(name)}}}}} \\"]
        for candidate in front:
            loss = _format_power_of_ten(candidate.loss)
            lines.append(
                rf"{candidate.complexity} & ${loss}$ & {candidate.score:.3f} & ${candidate.latex(digits)}$ \\"
            )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _format_power_of_ten(value: float) -> str:
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    if not exponent:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
    number = f"{float(mantissa):.3g}"
    return number if int(exponent) == 0 else rf"{number} \cdot 10^{{{int(exponent)}}}"
