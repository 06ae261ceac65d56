"""Error analysis: a random forest finds the variables that decide whether an answer is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

_FOLDS: Final = 5
_LEAST: Final = 10  # right answers, and wrong ones, below which there is no analysis
_INFORMATIVE: Final = 0.6  # area under the ROC curve on held-out answers; 0.5 is chance
_SHARE: Final = 0.2  # share of the largest importance from which a variable counts as important


@final
@dataclass(frozen=True)
class ErrorAnalysis:
    """How well variables predict which answers are wrong.

    Attributes:
        auc: area under the ROC curve of a random forest on answers that it has not seen; NaN where there are too few
            right or too few wrong answers. 0.5 is chance, 1 a rule without exception.
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


def analyze_errors(values: Tensor, names: tuple[str, ...], wrong: Tensor, seed: int = 0) -> ErrorAnalysis:
    """Find the variables that decide whether an answer is wrong.

    Args:
        values: of the variables, shape (n, d).
        names: of the variables, d of them.
        wrong: shape (n,), boolean.
        seed: of the forest, of the folds and of the shuffling.

    >>> import torch
    >>> digits = torch.randint(10, (400, 3), generator=torch.Generator().manual_seed(0))
    >>> found = analyze_errors(digits, ("ones", "tens", "hundreds"), digits[:, 0] >= 7)
    >>> found.important, round(found.auc, 2)
    (('ones',), 1.0)
    """
    X, y = values.numpy(), wrong.numpy()
    if min(int(y.sum()), int((~y).sum())) < _LEAST:
        return ErrorAnalysis(float("nan"))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    areas, falls = [], []
    for train, test in folds.split(X, y):
        forest = RandomForestClassifier(100, min_samples_leaf=3, random_state=seed, n_jobs=1).fit(
            X[train], y[train]
        )
        areas.append(roc_auc_score(y[test], forest.predict_proba(X[test])[:, 1]))
        fall = permutation_importance(
            forest, X[test], y[test], scoring="roc_auc", n_repeats=5, random_state=seed, n_jobs=1
        )
        falls.append(fall.importances_mean)
    importances = np.mean(falls, axis=0)
    return ErrorAnalysis(float(np.mean(areas)), dict(zip(names, map(float, importances), strict=True)))
