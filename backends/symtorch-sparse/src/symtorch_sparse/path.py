"""The path: from no term to many, the best next one at each step (orthogonal matching pursuit, in its Gram form)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import final

import numpy as np
from sklearn.linear_model import orthogonal_mp_gram

from symtorch_core import Moments

_NEGLIGIBLE = 1e-14


@final
@dataclass(frozen=True)
class Step:
    """One sum of terms: offset + sum of coefficients[i] * term[indices[i]].

    Attributes:
        indices: which terms.
        coefficients: their factors.
        offset: the constant.
        loss: mean squared error.
    """

    indices: tuple[int, ...]
    coefficients: tuple[float, ...]
    offset: float
    loss: float


def path(moments: Moments, output: int, steps: int) -> list[Step]:
    """Sums of one term, of two, and so on, with least-squares coefficients.

    Rows are not needed: covariances of the terms and with the output are enough (Pati, Rezaiifar and Krishnaprasad
    1993; scikit-learn's ``orthogonal_mp_gram``).

    Args:
        moments: of the terms' columns and the outputs; no column is constant.
        output: which output.
        steps: most terms.
    """
    xx, xy = moments.xx.cpu().numpy(), moments.xy[:, output].cpu().numpy()
    variance = float(moments.yy[output, output])
    spread = np.sqrt(np.diag(xx))
    scaled, target = xx / np.outer(spread, spread), xy / spread
    with warnings.catch_warnings():
        # It says so when terms are linearly dependent, and ends with those it has: that is what we want.
        warnings.simplefilter("ignore", RuntimeWarning)
        coefficients = orthogonal_mp_gram(
            scaled, target, n_nonzero_coefs=min(steps, len(spread)), return_path=True
        ).reshape(len(spread), -1)
    found = []
    for column in coefficients.T:
        chosen = np.flatnonzero(column)
        if len(chosen) == 0:
            continue
        factors = column[chosen] / spread[chosen]
        explained = float(column[chosen] @ target[chosen])
        offset = float(moments.y[output]) - float(factors @ moments.x.cpu().numpy()[chosen])
        loss = max(0.0, variance - explained)
        found.append(Step(tuple(chosen.tolist()), tuple(factors.tolist()), offset, loss))
        if loss <= _NEGLIGIBLE * variance:
            break
    return found
