"""Principal component analysis as a reducer for symtorch-core."""
