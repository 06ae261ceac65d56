"""Force laws out of graph networks (SymTorch paper, arXiv 2602.21307, section 4.2 and appendix E).

Nothing is imported here, so that listing plugins does not load torch-geometric. The rooms are ``forces``,
``simulation``, ``network``, ``training`` and ``messages``.
"""
