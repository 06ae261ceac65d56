"""Measures of equations: fidelity on held-out rows and out of range, and residuals of differential equations."""
