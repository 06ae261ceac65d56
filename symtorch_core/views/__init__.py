"""What people look at: in a terminal, in a notebook, as plots and as pages."""
