"""Transformers: their MLPs, what they are for, and how surrogates are saved beside their checkpoints."""
