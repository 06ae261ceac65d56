"""Rows of a running block: hooks, batches, a sample of fixed size, and a model left as it was."""
