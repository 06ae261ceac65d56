"""The walk from a block to equations: what is asked is checked first, then each stage runs in its turn."""
