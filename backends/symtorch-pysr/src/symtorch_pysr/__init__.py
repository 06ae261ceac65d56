"""A regressor for symtorch-core: PySR, whose Julia runs in a separate process."""
