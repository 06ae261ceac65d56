"""What arithmetic a language model has learned, as equations (SymTorch paper, arXiv 2602.21307, 4.3.2 and G).

``symtorch run arithmetic --task add --model NAME_OR_PATH`` runs the study; its parts work alone:
:mod:`symtorch_arithmetic.tasks` has the questions, :mod:`symtorch_arithmetic.asking` puts them to a model and keeps
its answers, :mod:`symtorch_arithmetic.reading` reads a number out of an answer, :mod:`symtorch_arithmetic.training`
trains a small decoder.
"""
