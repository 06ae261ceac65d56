"""Arguments of PySR: a search space and the options of a user, translate_rows to Julia."""
