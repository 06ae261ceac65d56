"""The study's report: the paper's Table 9 with our figures, the checks, and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from symtorch_core.studies import (
    Chapter,
    Claim,
    Drawing,
    Equation,
    Part,
    StudyReport,
    Table,
    Text,
    build_front_part,
)
from symtorch_pinn.experiment import NetworkResult, Run
from symtorch_pinn.problem import SIDE

PAPER = {"network": 7.8e-3, "PINN": 7.4e-6, "variance": 4.8e-2}
"""Mean squared errors of the heat problem in the paper (Table 9)."""
_WORSE = 100.0
_WITHIN = {"heat": 0.005}
_WITHIN_OTHERS = 0.01


def build_report(runs: Sequence[Run], *, scale: str, regressor: str) -> StudyReport:
    """Build the report of all runs; pictures and fronts are of the first seed of each problem."""
    first = {run.problem.name: run for run in reversed(runs)}
    seeds = sorted({run.seed for run in runs})
    return StudyReport.of_chapters(
        "pinn",
        "Solutions of differential equations out of networks",
        [_build_chapter(run) for run in runs if first[run.problem.name] is run],
        overview="All runs",
        subtitle=f"{scale} scale, {regressor}, seeds {', '.join(map(str, seeds))}",
        claims=[claim for run in runs for claim in list_claims(run)],
        tables={
            "errors": tabulate_errors(runs),
            "equations": tabulate_equations(runs),
            "constants": tabulate_constants(runs),
        },
        figures={"runs": [_to_json(run) for run in runs]},
        versions=runs[0].pinn.result.provenance.versions,
    )


def _build_chapter(run: Run) -> Chapter:
    drawings = dict(draw_run(run))
    return Chapter(
        run.problem.name, run.problem.title, drawings, tuple(_details(run, list(drawings.values())))
    )


def list_claims(run: Run) -> Iterator[Claim]:
    """List what the study was asked to show in one run."""
    name, truth = f"{run.problem.name}, seed {run.seed}", run.problem.values
    pinn, control = run.pinn, run.control
    within = _WITHIN.get(run.problem.name, _WITHIN_OTHERS)
    if run.problem.name == "heat":
        yield Claim(
            f"{name}: MSE of the PINN",
            f"<= {PAPER['PINN']:.1e}",
            f"{pinn.mse:.1e}",
            pinn.mse <= PAPER["PINN"],
        )
    worse = control.mse / pinn.mse
    yield Claim(
        f"{name}: network without the equation, MSE over the PINN's",
        f">= {_WORSE:g}",
        f"{worse:.0f}",
        worse >= _WORSE,
    )
    error = pinn.check.largest_error(truth)
    yield Claim(
        f"{name}: form of the chosen equation; largest error of its constants",
        f"{run.problem.form}; {within:.1%}",
        "another form" if pinn.check.form is None else f"right; {error:.3%}",
        error <= within,
    )
    yield Claim(
        f"{name}: MSE of the equation",
        f"< {pinn.mse:.1e}, the PINN's",
        f"{pinn.check.mse:.1e}",
        pinn.check.mse < pinn.mse,
    )
    fails = control.check.largest_error(truth)
    yield Claim(
        f"{name}: the same from the network without the equation",
        "fails",
        "another form" if control.check.form is None else f"constants off by {fails:.0%}",
        fails > within,
    )


def tabulate_errors(runs: Sequence[Run]) -> Table:
    """Return Table 9 of the paper, with the equations' own errors."""
    published = (
        "paper: heat",
        "",
        f"{PAPER['network']:.1e}",
        f"{PAPER['PINN']:.1e}",
        f"{PAPER['variance']:.1e}",
        "",
    )
    rows = (
        (
            run.problem.name,
            str(run.seed),
            f"{run.control.mse:.1e}",
            f"{run.pinn.mse:.1e}",
            f"{float(run.problem.compute_solution(run.problem.build_grid()).var(correction=0)):.1e}",
            f"{run.pinn.check.mse:.1e}",
            f"{run.pinn.mse_beyond:.1e}",
            f"{run.pinn.check.mse_beyond:.1e}",
        )
        for run in runs
    )
    return Table(
        ("problem", "seed", "network", "PINN", "variance", "equation", "PINN beyond", "equation beyond"),
        ((*published, "", ""), *rows),
        f"Mean squared error, {SIDE} points a side; beyond: on as much again (paper, Table 9)",
    )


def tabulate_equations(runs: Sequence[Run]) -> Table:
    """Return the chosen equations with the results of their checks."""

    def row(run: Run, name: str, solver: NetworkResult) -> tuple[str, ...]:
        check = solver.check
        return (
            run.problem.name,
            str(run.seed),
            name,
            solver.result.chosen()[0].text(4),
            "yes" if check.form is not None else "no",
            f"{check.residual:.1e}",
            f"{max(check.conditions):.1e}",
        )

    return Table(
        (
            "problem",
            "seed",
            "out of",
            "chosen equation",
            "true form",
            "residual of the DE",
            "worst condition",
        ),
        tuple(row(run, *each) for run in runs for each in (("PINN", run.pinn), ("network", run.control))),
        "Chosen equations; residual relative to its terms, exact derivatives; conditions as root mean square",
        numbers=False,
    )


def tabulate_constants(runs: Sequence[Run]) -> Table:
    """Return the constants of the form and of the differential equation, with their errors."""

    def rows(run: Run) -> Iterator[tuple[str, ...]]:
        check = run.pinn.check
        for name, true in run.problem.values.items():
            if check.form is not None:
                yield _constant_row(run, f"{name} of the solution", true, None, check.form[name])
        for name, true in run.problem.constants.items():
            learned = run.pinn.trained.constants[name]
            yield _constant_row(
                run, f"{name} of the differential equation", true, learned, check.identified[name]
            )

    return Table(
        ("problem", "seed", "constant", "true", "learned by the PINN", "error", "by the equation", "error"),
        tuple(row for run in runs for row in rows(run)),
        "Constants",
    )


def draw_run(run: Run) -> Iterator[tuple[str, Drawing]]:
    """Draw the pictures of one run, by kind."""
    problem = run.problem
    draw = _draw_maps if len(problem.variables) == 2 else _draw_curves
    yield (
        "solutions",
        Drawing(lambda ax: draw(ax, run), f"{problem.name}: the solution, and three predictions", 10.4, 3.2),
    )
    result = run.pinn.result
    yield (
        "front",
        Drawing(lambda ax: result.front(0).plot(ax), f"{problem.name}: Pareto front of the PINN's equations"),
    )


def _details(run: Run, pictures: Sequence[Drawing]) -> Iterator[Part]:
    problem, pinn = run.problem, run.pinn
    yield Text(
        f"Zero inside: {problem.equation}. On boundaries: "
        + "; ".join(f"{c.equation} at {_at(c.at)}" for c in problem.conditions)
        + f". {problem.data_points} values of the solution are known. True solution: u = {problem.form} with "
        + ", ".join(f"{name} = {value:.6g}" for name, value in problem.values.items())
        + "."
    )
    yield Equation.of("u", pinn.result.chosen()[0].expression, 6)
    yield pictures[0].part()
    yield build_front_part(pinn.result.front(0), pinn.result.chosen()[0], f"front-{problem.name}", "u")
    yield Text(
        f"Seconds: training {pinn.trained.seconds:.0f} (PINN) and {run.control.trained.seconds:.0f} (network), search "
        f"{pinn.result.provenance.seconds['regress']:.0f} and {run.control.result.provenance.seconds['regress']:.0f}, "
        "or almost none, where an earlier run had finished them."
    )


def _predict(run: Run, points: Tensor) -> dict[str, Tensor]:
    equation = run.pinn.result.surrogate()
    with torch.no_grad():
        return {
            "true": run.problem.compute_solution(points)[:, 0],
            "network": run.control.trained.network(points)[:, 0],
            "PINN": run.pinn.trained.network(points)[:, 0],
            "equation": equation(points)[:, 0],
        }


def _draw_maps(ax: Any, run: Run) -> None:
    """Draw four heat maps side by side in one pair of axes, on one colour scale, with the training range marked."""
    problem = run.problem
    along = problem.extends
    points = torch.cat([problem.build_grid(), problem.build_grid_beyond()])
    (other,) = (name for name in problem.variables if name != along)
    order = points[:, problem.variables.index(along)].argsort(stable=True)
    values = {name: u[order].reshape(-1, SIDE).T for name, u in _predict(run, points).items()}
    low, high = float(values["true"].min()), float(values["true"].max())
    ax.set_axis_off()
    first, last = problem.ranges[along]
    for position, (name, grid) in enumerate(values.items()):
        inset = ax.inset_axes((0.25 * position + 0.02, 0.12, 0.21, 0.74))
        mesh = inset.imshow(
            grid.numpy(),
            origin="lower",
            aspect="auto",
            vmin=low,
            vmax=high,
            extent=(first, 2 * last - first, *problem.ranges[other]),
        )
        inset.axvline(last, color="white", linewidth=1, linestyle="--")
        inset.grid(visible=False)
        inset.set(xlabel=along, title=name)
        if position == 0:
            inset.set_ylabel(other)
    ax.figure.colorbar(mesh, ax=ax, shrink=0.8)


def _draw_curves(ax: Any, run: Run) -> None:
    """Draw four curves, with the data and the end of the training range."""
    problem = run.problem
    points = torch.cat([problem.build_grid(), problem.build_grid_beyond()])
    along = points[:, 0].numpy()
    styles = {
        "true": ("-", "0.6", 4.0),
        "network": ("-", "C1", 1.5),
        "PINN": ("-", "C0", 1.5),
        "equation": ("--", "C2", 1.5),
    }
    for name, u in _predict(run, points).items():
        line, colour, width = styles[name]
        ax.plot(along, u.numpy(), line, color=colour, linewidth=width, label=name)
    known, values = problem.sample_data(run.seed)
    ax.plot(known[:, 0].numpy(), values[:, 0].numpy(), "o", color="C1", label="data")
    ax.axvline(problem.ranges[problem.extends][1], color="0.5", linewidth=1, linestyle="--")
    low, high = float(problem.compute_solution(points).min()), float(problem.compute_solution(points).max())
    margin = 0.4 * (high - low)
    ax.set(xlabel=problem.extends, ylabel="u", ylim=(low - margin, high + margin))
    ax.legend(loc="upper right", ncols=5, fontsize="small")


def _constant_row(run: Run, name: str, true: float, learned: float | None, found: float) -> tuple[str, ...]:
    return (
        run.problem.name,
        str(run.seed),
        name,
        f"{true:.6g}",
        "" if learned is None else f"{learned:.6g}",
        "" if learned is None else f"{abs(learned - true) / abs(true):.3%}",
        f"{found:.6g}",
        f"{abs(found - true) / abs(true):.4%}",
    )


def _at(where: Any) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in where.items())


def _to_json(run: Run) -> dict[str, Any]:
    return {
        "problem": run.problem.name,
        "seed": run.seed,
        **{
            name: {
                "equation": str(solver.result.chosen()[0].expression),
                "mse": solver.mse,
                "mse_beyond": solver.mse_beyond,
                "learned": dict(solver.trained.constants),
                **vars(solver.check),
                "seconds_training": solver.trained.seconds,
                "seconds_search": solver.result.provenance.seconds["regress"],
            }
            for name, solver in (("pinn", run.pinn), ("control", run.control))
        },
    }
