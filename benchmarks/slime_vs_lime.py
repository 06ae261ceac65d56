"""Comparison of SLIME and LIME (the package ``lime``): local explanations of three black boxes on eight data sets.

    pip install -r benchmarks/requirements.txt
    python benchmarks/slime_vs_lime.py [--linear] [--points 10] [--regressor sparse] [--jobs 2]

For each data set, a random forest, gradient boosting and a multilayer perceptron are trained, and the same points are
explained, ``--points`` for each model. Classifiers are explained by the logit of one class, the same for all methods.

Every explanation calls the black box on 5,000 rows. In SLIME's own neighbourhood, near the point:

- ``LIME``: LimeTabularExplainer with its defaults, but with continuous features, samples around the point, and a linear
  model of all features: the setting in which it is locally most faithful. Its neighbourhood is wider.
- ``LIME, near``: LIME's own linear model (LimeBase, ridge) on the same rows and weights as SLIME.
- ``SLIME``: an equation of at most ``--maxsize``.

In LIME's neighbourhood, which is as wide as the data: LIME as above, and SLIME with this neighbourhood.

All are measured on new samples of the neighbourhood with its weights. R2 is clipped at -1, so that one point cannot
outweigh all others. Agreement is the share of samples that are put on the same side (classifiers: of probability 1/2;
regression: of the value at the point). Complexity counts nodes of the equation as the core does; a linear model of d
inputs has 4 d + 1. Points at which the black box is constant are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import torch
from lime.lime_base import LimeBase
from lime.lime_tabular import LimeTabularExplainer
from sklearn import datasets
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from symtorch_core.reduction import measure_overall_r2
from symtorch_slime import Explanation, SlimeCapture, explain

LEAST = 1e-3
WORST = -1.0
FRESH = 1000
SAMPLES = 5000
MLP = {"hidden_layer_sizes": (64, 64), "max_iter": 2000}
UNARY = ("sin", "exp", "tanh", "abs", "square")


def load_sets(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, bool]]:
    """Return, by name, inputs, targets, and whether the targets are classes."""
    breast, wine = datasets.load_breast_cancer(return_X_y=True), datasets.load_wine(return_X_y=True)
    return {
        "diabetes": (*datasets.load_diabetes(return_X_y=True), False),
        "friedman1": (*datasets.make_friedman1(1000, noise=0.5, random_state=seed), False),
        "friedman2": (*datasets.make_friedman2(1000, noise=10.0, random_state=seed), False),
        "friedman3": (*datasets.make_friedman3(1000, noise=0.05, random_state=seed), False),
        "breast cancer": (*breast, True),
        "wine": (*wine, True),
        "moons": (*datasets.make_moons(1000, noise=0.15, random_state=seed), True),
        "circles": (*datasets.make_circles(1000, noise=0.08, factor=0.5, random_state=seed), True),
    }


def make_boxes(classes: bool, seed: int) -> dict[str, Any]:
    """Return untrained black boxes by name."""
    if classes:
        return {
            "forest": RandomForestClassifier(200, random_state=seed, n_jobs=1),
            "boosting": GradientBoostingClassifier(random_state=seed),
            "mlp": make_pipeline(StandardScaler(), MLPClassifier(random_state=seed, **MLP)),
        }
    return {
        "forest": RandomForestRegressor(200, random_state=seed, n_jobs=1),
        "boosting": GradientBoostingRegressor(random_state=seed),
        "mlp": make_pipeline(StandardScaler(), MLPRegressor(random_state=seed, **MLP)),
    }


def make_output(box: Any, classes: bool, x_star: np.ndarray) -> Callable[[Any], np.ndarray]:
    """Return the function to explain: the prediction, or the logit of the most likely class at the point."""
    if not classes:
        return lambda rows: box.predict(np.asarray(rows))
    column = int(box.predict_proba(x_star[None])[0].argmax())

    def logit(rows: Any) -> np.ndarray:
        p = np.clip(box.predict_proba(np.asarray(rows))[:, column], LEAST, 1 - LEAST)
        return np.log(p / (1 - p))

    return logit


@dataclass(frozen=True)
class Linear:
    """A linear model of scaled inputs."""

    mean: np.ndarray
    scale: np.ndarray
    slopes: np.ndarray
    intercept: float

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.mean) / self.scale @ self.slopes + self.intercept


def fit_lime(train: np.ndarray, f: Callable[[Any], np.ndarray], x_star: np.ndarray, seed: int) -> Linear:
    """Return LIME's linear model on its own samples."""
    explainer = LimeTabularExplainer(
        train, mode="regression", discretize_continuous=False, sample_around_instance=True, random_state=seed
    )
    found = explainer.explain_instance(x_star, f, num_features=train.shape[1])
    slopes = np.zeros(train.shape[1])
    for feature, slope in found.local_exp[1]:
        slopes[feature] = slope
    return Linear(explainer.scaler.mean_, explainer.scaler.scale_, slopes, float(found.intercept[1]))


def fit_lime_on(
    rows: np.ndarray, y: np.ndarray, weights: np.ndarray, x_star: np.ndarray, seed: int
) -> Linear:
    """Return LIME's linear model on given rows; as in LIME, the point comes first and inputs are scaled."""
    scale = rows.std(0)
    scale[scale == 0] = 1.0
    scaled = (rows - x_star) / scale
    # LimeBase takes distances, so the weights are given as distances.
    base = LimeBase(kernel_fn=lambda weight: weight, random_state=seed)
    intercept, slopes, _, _ = base.explain_instance_with_data(
        scaled, y[:, None], weights, 0, rows.shape[1], "auto"
    )
    ordered = np.zeros(rows.shape[1])
    for feature, slope in slopes:
        ordered[feature] = slope
    return Linear(x_star, scale, ordered, float(intercept))


def make_neighbourhoods(train: np.ndarray, x_star: np.ndarray) -> dict[str, SlimeCapture]:
    """Return SLIME's own neighbourhood, and LIME's: as wide as the data, with kernel exp(-d^2 / (2 0.75^2 width))."""
    lime_like = {
        "variance": train.var(0),
        "sigma": (2 * 0.75**2 * len(x_star)) ** 0.5,
        "neighbour_weight": 0.0,
    }
    return {
        "near": SlimeCapture(x_star=x_star, samples=SAMPLES),
        "wide": SlimeCapture(x_star=x_star, samples=SAMPLES, **lime_like),
    }


def measure(
    predicted: np.ndarray, true: np.ndarray, weights: np.ndarray, level: float
) -> tuple[float, float]:
    """Return the weighted R2, clipped, and the weighted agreement."""
    columns = [
        torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None] for values in (predicted, true)
    ]
    r2 = measure_overall_r2(columns[0], columns[1], torch.from_numpy(weights))
    same = ((predicted > level) == (true > level)).astype(float)
    return max(r2, WORST), float((same * weights).sum() / weights.sum())


def fit_slime(
    f: Callable[[Any], np.ndarray], train: np.ndarray, capture: SlimeCapture, seed: int, arguments: Any
) -> Explanation:
    """Return SLIME's explanation in a neighbourhood."""
    return explain(
        f,
        train,
        capture.x_star,
        **{name: getattr(capture, name) for name in ("samples", "variance", "sigma", "neighbour_weight")},
        regressor=arguments.regressor,
        reducer_options={"linear": arguments.linear},
        maxsize=arguments.maxsize,
        unary_operators=UNARY,
        select="validation",
        seed=seed,
        progress=False,
        timeout_in_seconds=arguments.seconds,
    )


def explain_point(
    train: np.ndarray, x_star: np.ndarray, box: Any, classes: bool, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Explain one point by all methods, and return their measures."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    f = make_output(box, classes, x_star)
    level = 0.0 if classes else float(f(x_star[None])[0])
    result: dict[str, Any] = {}
    linear = fit_lime(train, f, x_star, seed)
    for place, capture in make_neighbourhoods(train, x_star).items():
        fresh = replace(capture, neighbour_weight=0.0, samples=FRESH).rows(train, seed + 10_000)
        true = f(fresh.rows)
        begun = time.perf_counter()
        found = fit_slime(f, train, capture, seed, arguments)
        result["seconds", place] = time.perf_counter() - begun
        result["complexity", place] = found.result.chosen()[0].complexity
        models = {"LIME": linear, "SLIME": make_predictor(found)}
        if place == "near":
            fitted = capture.rows(train, seed)
            models["LIME, near"] = fit_lime_on(fitted.rows, f(fitted.rows), fitted.weights, x_star, seed)
        for name, model in models.items():
            predicted = np.nan_to_num(model(fresh.rows), nan=1e9)
            result[name, place] = measure(predicted, true, fresh.weights, level)
    return result


def is_flat(f: Callable[[Any], np.ndarray], train: np.ndarray, x_star: np.ndarray) -> bool:
    """Return whether the black box is constant near the point, so that there is nothing to explain."""
    return bool(f(SlimeCapture(x_star=x_star, samples=200).rows(train, 0).rows).std() < 1e-3)


def make_predictor(found: Explanation) -> Callable[[np.ndarray], np.ndarray]:
    """Return the equation of an explanation as a function of rows."""
    surrogate = found.result.surrogate()
    return lambda rows: surrogate(torch.from_numpy(rows))[:, 0].detach().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=10, help="for each black box")
    parser.add_argument("--regressor", default="sparse")
    parser.add_argument("--maxsize", type=int, default=60)
    parser.add_argument("--linear", action="store_true", help="fit a linear map first, equations to the rest")
    parser.add_argument("--seconds", type=float, default=20.0, help="limit of one search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sets", nargs="*", help="only these")
    arguments = parser.parse_args()
    print(
        f"regressor {arguments.regressor}, maxsize {arguments.maxsize}, linear map first: {arguments.linear}, "
        f"seed {arguments.seed}, {arguments.points} points for each of three black boxes"
    )
    print(
        "R2 / agreement: medians over points; won: points where SLIME's R2 is not below LIME's by more than 0.01\n"
    )
    head = ["near: LIME", "near: LIME, near", "near: SLIME", "won", "wide: LIME", "wide: SLIME", "won"]
    print("| set | box | points |", " | ".join(head), "| complexity near, wide (linear) | s |")
    print("|" + " --- |" * (len(head) + 5))
    for name, (X, y, classes) in load_sets(arguments.seed).items():
        if arguments.sets and name not in arguments.sets:
            continue
        train, test, target, _ = train_test_split(X, y, test_size=0.3, random_state=arguments.seed)
        every: list[dict[str, Any]] = []
        for kind, box in make_boxes(classes, arguments.seed).items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scaled = target if classes else (target - target.mean()) / target.std()
                box.fit(train, scaled)
            order = np.random.default_rng(arguments.seed).permutation(len(test))
            points = [i for i in order if not is_flat(make_output(box, classes, test[i]), train, test[i])]
            found = joblib.Parallel(n_jobs=arguments.jobs)(
                joblib.delayed(explain_point)(train, test[i], box, classes, int(i), arguments)
                for i in points[: arguments.points]
            )
            every += found
            report(name, kind, found, X.shape[1])
        report(name, "all", every, X.shape[1])


def report(name: str, kind: str, found: list[dict[str, Any]], width: int) -> None:
    """Print one line of the table."""

    def format_cell(model: str, place: str) -> str:
        return "{:.3f} / {:.3f}".format(*np.median([entry[model, place] for entry in found], axis=0))

    def count_won(place: str, rivals: tuple[str, ...]) -> str:
        best = [max(entry[rival, place][0] for rival in rivals) for entry in found]
        return f"{np.mean([e['SLIME', place][0] >= b - 0.01 for e, b in zip(found, best, strict=True)]):.0%}"

    near, wide = (np.median([entry["complexity", place] for entry in found]) for place in ("near", "wide"))
    seconds = np.median([entry["seconds", place] for entry in found for place in ("near", "wide")])
    cells = [
        *(format_cell("LIME", "near"), format_cell("LIME, near", "near"), format_cell("SLIME", "near")),
        count_won("near", ("LIME", "LIME, near")),
        *(format_cell("LIME", "wide"), format_cell("SLIME", "wide")),
        count_won("wide", ("LIME",)),
        f"{near:.0f}, {wide:.0f} ({4 * width + 1})",
        f"{seconds:.1f}",
    ]
    print(f"| {name} | {kind} | {len(found)} | {' | '.join(cells)} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
