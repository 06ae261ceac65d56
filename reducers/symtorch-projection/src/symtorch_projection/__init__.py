"""A reducer for symtorch-core: projections chosen for what a block does with its inputs."""
