"""The result of a distillation, as plain data, and its files."""
