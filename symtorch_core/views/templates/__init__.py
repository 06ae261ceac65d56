"""The template of the page, its style and its script."""
