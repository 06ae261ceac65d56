"""What a distillation found, as plain data, and its files."""
