"""A search in PySR: its folder, its process, its tables, and the fronts built from them."""
