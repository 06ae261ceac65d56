"""The task of a search, and its rows."""
