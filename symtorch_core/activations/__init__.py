"""Capture of a block's rows: hooks, batches, a sample of fixed size, and a guard of the model's state."""
