"""Error analysis: a random forest finds the variables that decide whether an answer is wrong, or its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

_FOLDS: Final = 5
_TREES: Final = 100
_REPEATS: Final = 5  # shuffles of a column
_LEAST: Final = 10  # answers of a kind, below which it is left out
_INFORMATIVE: Final = 0.6  # area under the ROC curve on held-out answers; 0.5 is chance
_SHARE: Final = 0.2  # share of the largest importance from which a variable counts as important


@final
@dataclass(frozen=True)
class ErrorAnalysis:
    """How well variables predict which answers are wrong, or of which kind they are.

    Attributes:
        auc: area under the ROC curve of a random forest on answers that it has not seen; for more than two kinds the
            mean over kinds, each against the others. NaN where there are no two kinds of enough answers. 0.5 is chance,
            1 a rule without exception.
        importances: by variable, how much ``auc`` falls when its column is shuffled.
    """

    auc: float
    importances: Mapping[str, float] = field(default_factory=dict)

    @property
    def important(self) -> tuple[str, ...]:
        """The variables that matter, the most important first; none where errors look random."""
        if not self.auc >= _INFORMATIVE:
            return ()
        most = max(self.importances.values())
        return tuple(
            name
            for name in sorted(self.importances, key=lambda key: -self.importances[key])
            if self.importances[name] > _SHARE * most
        )


def analyze_errors(values: Tensor, names: tuple[str, ...], kinds: Tensor, seed: int = 0) -> ErrorAnalysis:
    """Find the variables that decide whether an answer is wrong, or of which kind it is.

    Args:
        values: of the variables, shape (n, d).
        names: of the variables, d of them.
        kinds: which answers are wrong, shape (n,), boolean; or the kind of each, whole numbers. Kinds of fewer than ten
            answers are left out.
        seed: of the forest, of the folds and of the shuffling.

    >>> import torch
    >>> digits = torch.randint(10, (400, 3), generator=torch.Generator().manual_seed(0))
    >>> found = analyze_errors(digits, ("ones", "tens", "hundreds"), digits[:, 0] >= 7)
    >>> found.important, round(found.auc, 2)
    (('ones',), 1.0)
    """
    kinds = kinds.long()
    found, sizes = kinds.unique(return_counts=True)
    used = torch.isin(kinds, found[sizes >= _LEAST])
    if int((sizes >= _LEAST).sum()) < 2:
        return ErrorAnalysis(float("nan"))
    X, y = values[used].numpy(), kinds[used].numpy()
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    generator = np.random.default_rng(seed)
    areas, falls = [], []
    for train, test in folds.split(X, y):
        forest = RandomForestClassifier(_TREES, min_samples_leaf=3, random_state=seed, n_jobs=1).fit(
            X[train], y[train]
        )
        area, without = _measure_areas(forest, X[test], y[test], generator)
        areas.append(area)
        falls.append(area - without)
    importances = np.mean(falls, axis=0)
    return ErrorAnalysis(float(np.mean(areas)), dict(zip(names, map(float, importances), strict=True)))


def _measure_areas(
    forest: RandomForestClassifier, X: np.ndarray, y: np.ndarray, generator: np.random.Generator
) -> tuple[float, np.ndarray]:
    """Return the ROC area, and that with each column shuffled, shape (d,).

    All shuffled copies are predicted at once: scikit-learn's permutation_importance takes most of a study's time.
    """
    copies = [X]
    for column in range(X.shape[1]):
        for _ in range(_REPEATS):
            shuffled = X.copy()
            shuffled[:, column] = generator.permutation(X[:, column])
            copies.append(shuffled)
    predicted = forest.predict_proba(np.concatenate(copies)).reshape(len(copies), len(X), -1)
    if predicted.shape[-1] == 2:
        predicted = predicted[..., 1]
    areas = np.array([roc_auc_score(y, one, multi_class="ovr") for one in predicted])
    return float(areas[0]), areas[1:].reshape(-1, _REPEATS).mean(axis=1)
