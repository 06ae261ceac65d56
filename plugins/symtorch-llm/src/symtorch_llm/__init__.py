"""Symbolic surrogates of transformer MLPs, for symtorch-core (SymTorch paper, arXiv 2602.21307, 4.1 and D).

A model's MLPs are found by structure (:mod:`symtorch_llm.models`), captured in one pass, replaced by equations
(:mod:`symtorch_llm.recipes`) or by what equations have to beat (:mod:`symtorch_llm.baselines`), tuned against the
model as it was (:mod:`symtorch_llm.tuning`), measured (:mod:`symtorch_llm.measure`) and
saved (:mod:`symtorch_llm.saving`).
"""
