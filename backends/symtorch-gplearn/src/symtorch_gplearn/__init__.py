"""gplearn as a regressor for symtorch-core."""
