"""Projections chosen for what a block does with its inputs, for symtorch-core."""
