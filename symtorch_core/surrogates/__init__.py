"""Equations as torch modules that take a block's place."""
