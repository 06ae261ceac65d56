"""Programs as tensors: the code table, and the index arithmetic on postfix sequences."""
