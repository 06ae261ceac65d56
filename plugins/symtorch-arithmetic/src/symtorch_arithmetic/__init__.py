"""What arithmetic a language model has learned, as equations (SymTorch paper, arXiv 2602.21307, 4.3.2 and G).

``symtorch run arithmetic --task add --model NAME_OR_PATH`` runs the study; its parts work alone:
:mod:`symtorch_arithmetic.tasks` has the questions, :mod:`symtorch_arithmetic.answers` asks a model and reads numbers
out of its answers, :mod:`symtorch_arithmetic.models` has models and trains a small decoder,
:mod:`symtorch_arithmetic.analysis` compares equations with the true law, and :mod:`symtorch_arithmetic.experiment` does
all of it for one task and one model.
"""
