"""Force laws out of graph networks (SymTorch paper, arXiv 2602.21307, section 4.2 and appendix E).

Nothing is imported here, so that listing plugins does not load torch-geometric. The modules are ``forces``,
``simulation``, ``network``, ``training``, ``messages`` (which of them carry the force), ``laws`` (is an equation the
law?) and ``experiment`` (all of it for one force and one network).
"""
