"""Estimators of scikit-learn in a block's place: what of them is a function of rows."""

from __future__ import annotations

import sys
from typing import Any

from symtorch_core.errors import CaptureError


def as_function(block: Any) -> Any:
    """Return the ``predict`` of a fitted regressor of scikit-learn, and whatever is no estimator as it is.

    scikit-learn is slow to import. Whoever has an estimator has imported it, so it is only looked up.

    Raises:
        CaptureError: the estimator is not fitted, or is no regressor; the message says which method to give.
    """
    base = sys.modules.get("sklearn.base")
    if base is None or callable(block) or not isinstance(block, base.BaseEstimator):
        return block
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    name = type(block).__name__
    if base.is_classifier(block):
        raise CaptureError(
            f"this {name} is a classifier, whose labels are no numbers to fit: give its probabilities, "
            "distill(model.predict_proba, data), or scores, distill(model.decision_function, data)"
        )
    if not base.is_regressor(block):
        raise CaptureError(
            f"this {name} is no regressor: give the method to distill, like distill(model.transform, data)"
        )
    try:
        check_is_fitted(block)
    except NotFittedError:
        raise CaptureError(f"this {name} is not fitted yet: call its fit(X, y) first") from None
    return block.predict
