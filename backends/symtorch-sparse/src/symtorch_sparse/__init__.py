"""Sparse regression over a library of terms, for symtorch-core."""
