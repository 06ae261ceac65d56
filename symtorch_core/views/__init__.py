"""Views of results: in a terminal, in a notebook, as plots and as pages."""
