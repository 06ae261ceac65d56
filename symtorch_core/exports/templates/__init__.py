"""Templates of source files."""
