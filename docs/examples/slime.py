"""Explain one prediction of a classifier with an equation (SLIME).

    python docs/examples/slime.py [PLOT.png]

A network learns to separate two noisy rings. Near a point between them, its logit is an equation of both inputs.
"""

from __future__ import annotations

import sys

from sklearn.datasets import make_circles
from sklearn.neural_network import MLPClassifier

from symtorch_slime import Explanation, Stability, explain, stability

X_STAR = (0.5, -0.5)


def main(plot: str | None = None) -> tuple[Explanation, Stability]:
    """Train the network, explain one prediction, and measure how stable the explanation is."""
    X, y = make_circles(1000, noise=0.08, factor=0.5, random_state=0)
    model = MLPClassifier(hidden_layer_sizes=(64, 64), max_iter=2000, random_state=0).fit(X, y)
    settings = {"regressor": "sparse", "variable_names": ["u", "v"], "unary_operators": ["square"]}
    near = explain(model.predict_proba, X, X_STAR, progress=False, **settings)
    often = stability(model.predict_proba, X, X_STAR, seeds=(0, 1, 2), top=2, outputs=[1], **settings)
    sys.stdout.write(f"{near}\n\n{often}\n")
    if plot is not None:
        near.plot().figure.savefig(plot, dpi=90)
    return near, often


if __name__ == "__main__":
    main(*sys.argv[1:2])
