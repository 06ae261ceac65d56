"""Fitting: equations and baselines in the place of MLPs, and their tuning."""
