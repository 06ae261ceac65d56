"""Operon as a regressor for symtorch-core."""
