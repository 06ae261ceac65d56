"""The wrapper around a block inside a model: switching, saving, pruning and refining."""
