"""A sample plugin for symtorch-core."""
