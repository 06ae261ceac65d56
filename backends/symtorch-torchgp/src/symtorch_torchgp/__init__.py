"""A regressor for symtorch-core: genetic programming on tensors."""
