"""Judging: which layers to replace, and what the replacements cost."""
