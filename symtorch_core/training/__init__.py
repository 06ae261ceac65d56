"""Training of small networks: the training loop, seeds and learning rates."""
