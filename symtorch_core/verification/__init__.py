"""How good equations are: fidelity, differential equations, held-out rows and beyond."""
