"""Solutions of differential equations out of physics-informed networks (SymTorch paper, 4.3.1 and F).

``symtorch run pinn --problem heat`` runs the study; its parts work alone: :mod:`symtorch_pinn.problem` describes a
problem as text, :mod:`symtorch_pinn.training` trains a network on it, :mod:`symtorch_pinn.checks` checks an equation,
:mod:`symtorch_pinn.experiment` does all of it for one problem and one seed.
"""
