"""The path of orthogonal matching pursuit, in its Gram form: at each step, the best next term is added."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import final

import numpy as np
from sklearn.linear_model import orthogonal_mp_gram

from symtorch_core.reduction import Moments

_NEGLIGIBLE = 1e-14


@final
@dataclass(frozen=True)
class Step:
    """One step of a path: offset + sum of coefficients[i] * term[indices[i]].

    Attributes:
        indices: places of the terms in the library, shape (k,).
        coefficients: their factors, shape (k,).
        offset: the constant.
        loss: the mean squared error.
    """

    indices: tuple[int, ...]
    coefficients: tuple[float, ...]
    offset: float
    loss: float


def compute_path(moments: Moments, output: int, steps: int) -> list[Step]:
    """Return sums of one term, of two terms, and so on, with least-squares coefficients.

    The covariances of the terms with each other and with the output are enough; no rows are needed (Pati, Rezaiifar and
    Krishnaprasad 1993; scikit-learn's ``orthogonal_mp_gram``).

    Args:
        moments: moments of the terms' values and of the outputs; no term may be constant.
        output: number of the output.
        steps: the largest number of terms.
    """
    xx, xy = moments.xx.cpu().numpy(), moments.xy[:, output].cpu().numpy()
    variance = float(moments.yy[output, output])
    # Correlations: the pursuit stops below a fixed number, so terms and outputs are scaled to a variance of one.
    height, spread = np.sqrt(variance), np.sqrt(np.diag(xx))
    scaled, target = xx / np.outer(spread, spread), xy / (spread * height)
    with warnings.catch_warnings():
        # It warns when terms are linearly dependent, and stops with the terms so far, as it should.
        warnings.simplefilter("ignore", RuntimeWarning)
        coefficients = orthogonal_mp_gram(
            scaled, target, n_nonzero_coefs=min(steps, len(spread)), return_path=True
        ).reshape(len(spread), -1)
    found = []
    for column in coefficients.T:
        chosen = np.flatnonzero(column)
        if len(chosen) == 0:
            continue
        factors = height * column[chosen] / spread[chosen]
        unexplained = max(0.0, 1.0 - float(column[chosen] @ target[chosen]))
        offset = float(moments.y[output]) - float(factors @ moments.x.cpu().numpy()[chosen])
        found.append(Step(tuple(chosen.tolist()), tuple(factors.tolist()), offset, unexplained * variance))
        if unexplained <= _NEGLIGIBLE:
            break
    return found
