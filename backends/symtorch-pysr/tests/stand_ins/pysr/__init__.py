"""Stands in for PySR where there is no Julia: the same calls and files, and a least-squares fit for a search.

The real worker runs on top of it, in its own process, with this folder on PYTHONPATH.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

__version__ = "2.7.2"
jl = SimpleNamespace(VERSION="1.11.0")
assert "torch" not in sys.modules, "torch must not be loaded where Julia is"

FUNCTIONS = {
    "sin": np.sin,
    "cos": np.cos,
    "exp": np.exp,
    "square": np.square,
    "wave": lambda x: np.sin(5 * x),
}


class PySRRegressor:
    """Greedy selection of terms from products of two variables and functions of one."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = parameters

    def fit(self, X, y, *, weights=None, **fit: Any) -> None:
        own = self.parameters
        folder = Path(own["output_directory"]) / own["run_id"]
        folder.joinpath("seen.txt").write_text(repr((own, fit, X.shape, y.shape, np.shape(weights))))
        misbehave(os.environ.get("STAND_IN", ""), before_anything=True)
        outputs = 1 if y.ndim == 1 else y.shape[1]
        columns = y.reshape(len(y), -1)
        row_weights = np.ones(len(y)) if weights is None else weights.reshape(len(y), -1)[:, 0]
        robust = own["elementwise_loss"].startswith("L1")
        given = [text.split("(")[0] for text in own.get("unary_operators", [])]  # of a definition, its name
        names = [name for name in given if name in FUNCTIONS]
        started = time.monotonic()
        for iteration in range(own["niterations"]):
            for output in range(outputs):
                if iteration == 0:
                    name = "hall_of_fame.csv" if outputs == 1 else f"hall_of_fame_output{output + 1}.csv"
                    table = write_table(X, columns[:, output], row_weights, robust, names, own["maxsize"])
                    write(folder / name, table + os.environ.get("STAND_IN_ROWS", "").replace(";", "\n"))
            print(f"Progress: {iteration + 1} / {own['niterations']} total iterations (50.000%)")
            sys.stdout.flush()
            misbehave(os.environ.get("STAND_IN", ""), before_anything=False)
            if time.monotonic() - started > own.get("timeout_in_seconds", np.inf):
                break
            time.sleep(0.01)
        self.equations_ = self.get_hof()  # ours would fail here, as PySR's does for some operators

    def get_hof(self, *_: Any, **__: Any) -> None:
        raise TypeError("no such operator in sympy")


def misbehave(how: str, *, before_anything: bool) -> None:
    """Crash, hang, or talk nonsense, as the environment says."""
    if how == "crash" and not before_anything:
        print("signal (11): Segmentation fault", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "crash at once":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang" and not before_anything:
        time.sleep(600)
    if how == "refuse":
        raise ValueError("Julia says no")
    if how == "garbage":
        print("{not json", flush=True)


def write_table(X, y, weights, robust, functions, maxsize) -> str:
    """Return the text of a table, from the best constant to a few terms."""
    library = {"1": np.ones(len(y))}
    for i in range(X.shape[1]):
        library[f"x{i}"] = X[:, i]
        library |= {f"{name}(x{i})": FUNCTIONS[name](X[:, i]) for name in functions}
    for i, j in itertools.combinations_with_replacement(range(X.shape[1]), 2):
        library[f"(x{i} * x{j})"] = X[:, i] * X[:, j]
    chosen: list[str] = []
    rows = ["Complexity,Loss,Equation"]
    for _ in range(4):
        trials = [
            (*fit_terms([library[term] for term in (*chosen, name)], y, weights, robust), name)
            for name in library
            if name not in chosen
        ]
        if not trials:
            break
        loss, coefficients, name = min(trials, key=lambda trial: trial[0])
        chosen.append(name)
        parts = [
            f"{value:.9e}" if term == "1" else f"({term} * {value:.9e})"
            for term, value in zip(chosen, coefficients, strict=True)
        ]
        complexity = 4 * len(chosen) - 1
        rows.append(f'{complexity},{loss:.6e},"{" + ".join(parts)}"'.replace("e-", "f-"))
    return "\n".join(rows) + "\n"


def fit_terms(terms, y, weights, robust):
    """Return loss and coefficients, by reweighted least squares for absolute errors."""
    A, influence = np.stack(terms, axis=1), weights
    for _ in range(20 if robust else 1):
        scale = np.sqrt(influence)[:, None]
        coefficients = np.linalg.lstsq(A * scale, y * scale[:, 0], rcond=None)[0]
        residual = np.abs(A @ coefficients - y)
        influence = weights / np.maximum(residual, 1e-9)
    errors = residual if robust else residual**2
    return float((errors * weights).sum() / weights.sum()), coefficients


def write(path: Path, text: str) -> None:
    for copy in (path, path.with_name(path.name + ".bak")):
        copy.write_text(text)
