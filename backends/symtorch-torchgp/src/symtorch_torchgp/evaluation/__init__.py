"""Evaluation of many programs at once, and their derivatives."""
