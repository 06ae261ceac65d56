"""Training of small networks: the one loop, seeds and learning rates."""
