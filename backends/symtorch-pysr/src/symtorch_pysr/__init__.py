"""PySR as a regressor for symtorch-core; Julia runs in a process of its own."""
