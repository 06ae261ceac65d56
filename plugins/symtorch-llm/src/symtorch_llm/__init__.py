"""Symbolic surrogates of transformer MLPs, for symtorch-core (SymTorch paper, arXiv 2602.21307, 4.1 and D).

:mod:`symtorch_llm.models` finds a model's MLPs by structure, puts other modules in their place and saves these;
:mod:`symtorch_llm.fitting` has equations and baselines, and tunes them towards the original model;
:mod:`symtorch_llm.judging` counts costs and measures layers and speed. :mod:`symtorch_llm.text` makes batches of text,
:mod:`symtorch_llm.experiment` compares all variants.
"""
