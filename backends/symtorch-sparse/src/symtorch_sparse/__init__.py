"""A regressor for symtorch-core: sparse regression over a library of terms."""
