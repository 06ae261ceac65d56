"""Genetic programming on tensors as a regressor for symtorch-core."""
