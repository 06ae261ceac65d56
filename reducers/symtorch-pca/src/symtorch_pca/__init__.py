"""A reducer for symtorch-core: principal component analysis."""
