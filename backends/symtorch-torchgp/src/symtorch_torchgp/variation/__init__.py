"""New programs from old ones: random draws, mutation, matching, and the limits of a search."""
