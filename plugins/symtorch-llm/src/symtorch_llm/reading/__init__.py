"""Reading of equations: what excites their variables, which words they write, and whether changing a term shows it."""
