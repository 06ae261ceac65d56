"""Words of others: what users of other libraries write, and what it is called here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from symtorch_core.errors import find_close


class Word(NamedTuple):
    """What somebody else's argument is called here.

    Attributes:
        ours: arguments of the same meaning; the first that a function has is meant.
        note: how the value changes, or what to do if there is no such argument.
    """

    ours: tuple[str, ...] = ()
    note: str = ""


_LOSS: Final = (
    'It takes a name ("mse", "mae", "huber"), a formula in the residual r like "abs(r)^1.5", or a function.'
)
_SEED: Final = "It takes a whole number."
_ONE_BY_ONE: Final = "Give its entries as arguments of their own, like distill(data, niterations=100)."
_RUNTIME: Final = "It takes seconds, for each output."
_OPERATORS: Final = (
    'It takes a list of names, and unary_operators another one: ["+", "*"] and ["sin", "exp"].'
)
_ITERATIONS: Final = "Each backend says what one iteration is."
_FILES: Final = (
    'Nothing is written unless you ask for it: result.save(path), or resume="folder" for long searches.'
)
_PYSR: Final = 'It is an option of PySR: regressor="pysr" takes it in regressor_options=.'
_NO_MAPPINGS: Final = (
    'Operators need no mapping: define your own as text, like unary_operators=["gauss(x) = exp(-x^2)"].'
)
_DATA: Final = "It is the input of the model (or of the block); the block itself gives the outputs."
_TARGETS: Final = "The block itself gives the outputs; measured data are distilled as st.distill((X, Y))."
_TRAINED: Final = (
    "Nothing is trained by epochs here: niterations= and timeout_in_seconds= set the effort of a search."
)

WORDS: Final[Mapping[str, Word]] = MappingProxyType(
    {
        # Data, block and model, in the words of torch, scikit-learn and SymTorch.
        "parent_model": Word(("parent",)),
        "net": Word(("model", "parent", "block")),
        "network": Word(("model", "parent", "block")),
        "nn": Word(("model", "parent", "block")),
        "full_model": Word(("parent",)),
        "model": Word(("parent", "block", "blocks"), "parent= is the model that calls the block."),
        "module": Word(("block", "path", "blocks", "model")),
        "layer": Word(("path", "block", "blocks")),
        "layers": Word(("blocks", "path", "block")),
        "layer_name": Word(("path", "blocks")),
        "mlp": Word(("block", "path")),
        "block_name": Word(("name",), "Reports take it from st.wrap(model, path, name=...)."),
        "block_path": Word(("path",)),
        "x": Word(("data", "points"), _DATA),
        "inputs": Word(("data",), _DATA),
        "input": Word(("data",), _DATA),
        "loader": Word(("data",)),
        "dataloader": Word(("data",)),
        "train_loader": Word(("data",)),
        "dataset": Word(("data",), "It takes a DataLoader, or any iterable of batches."),
        "y": Word((), _TARGETS),
        "target": Word((), _TARGETS),
        "targets": Word((), _TARGETS),
        "labels": Word((), _TARGETS),
        "features": Word(("variable_names",)),
        "feature_names": Word(("variable_names",)),
        "features_names": Word(("variable_names",)),
        "columns": Word(("variable_names",)),
        "input_names": Word(("variable_names",)),
        "variables": Word(("variable_names",)),
        "var_names": Word(("variable_names",)),
        "xresampled": Word((), "Choose rows of the data before you give them."),
        "target_names": Word(("output_names",)),
        "y_names": Word(("output_names",)),
        "output_dim": Word(("outputs",), "It takes a list of columns, like [0]."),
        "output_dims": Word(("outputs",), "It takes a list of columns, like [0]."),
        "output": Word(("outputs",), "It takes a list of columns, like [0]."),
        "variable_transforms": Word(
            ("transforms",), 'It takes a dictionary of formulas by name, like {"r": "sqrt(x0^2 + x1^2)"}.'
        ),
        "transform": Word(("transforms",)),
        "sample_weight": Word(("weights",), "It takes a number for each row."),
        "sample_weights": Word(("weights",), "It takes a number for each row."),
        "test_size": Word(("test_fraction",), "It takes a share from 0 to 1."),
        "validation_fraction": Word(("test_fraction",)),
        "val_fraction": Word(("test_fraction",)),
        "max_samples": Word(("max_rows",), "It takes a number of rows."),
        "n_samples": Word(("max_rows",)),
        "num_samples": Word(("max_rows",)),
        "subsample": Word(("max_rows",)),
        "n_rows": Word(("max_rows",)),
        "slime_params": Word((), 'Use capture="slime", with capture_options={"x_star": point}.'),
        "slime": Word((), 'Use capture="slime", with capture_options={"x_star": point}.'),
        # How to search, in PySR's words.
        "sr_params": Word((), _ONE_BY_ONE),
        "pysr_params": Word((), _ONE_BY_ONE),
        "pysr_kwargs": Word((), _ONE_BY_ONE),
        "fit_params": Word((), "Names of variables go into variable_names=, weights of rows into weights=."),
        "pysr_regressor": Word(
            ("regressor",), 'It takes a name: regressor="pysr", with its options beside it.'
        ),
        "symbolic_regressor": Word(("regressor",), 'It takes a name, like "torchgp".'),
        "backend": Word(("regressor",)),
        "engine": Word(("regressor",)),
        "method": Word(("regressor",), 'It takes a name, like "torchgp".'),
        "algorithm": Word(("regressor",)),
        "model_selection": Word(
            ("select",), 'It takes "score", "best", "accuracy", "validation" or "simplest".'
        ),
        "model_selection_criterion": Word(("select",)),
        "elementwise_loss": Word(("loss",), _LOSS),
        "loss_function": Word(("loss",), _LOSS),
        "loss_function_expression": Word(("loss",), _LOSS),
        "loss_fn": Word(("loss",), _LOSS),
        "criterion": Word(("loss",), _LOSS),
        "objective": Word(("loss",), _LOSS),
        "objectives": Word(("loss",), _LOSS),
        "metric": Word(
            ("loss",), f"{_LOSS} A task metric of the whole model is metric= of a wrapped block's distill."
        ),
        "niter": Word(("niterations", "epochs"), _ITERATIONS),
        "n_iter": Word(("niterations", "epochs"), _ITERATIONS),
        "iterations": Word(("niterations", "epochs"), _ITERATIONS),
        "n_iterations": Word(("niterations", "epochs"), _ITERATIONS),
        "num_iterations": Word(("niterations", "epochs"), _ITERATIONS),
        "max_iter": Word(("niterations", "epochs"), _ITERATIONS),
        "steps": Word(("total_steps", "niterations", "epochs")),
        "n_steps": Word(("total_steps", "niterations", "epochs")),
        "generations": Word(("niterations",), _ITERATIONS),
        "max_evals": Word(("niterations", "timeout_in_seconds"), _ITERATIONS),
        "max_evaluations": Word(("niterations", "timeout_in_seconds"), _ITERATIONS),
        "ncycles_per_iteration": Word(("niterations",), _PYSR),
        "ncyclesperiteration": Word(("niterations",), _PYSR),
        "timeout": Word(("timeout_in_seconds",), _RUNTIME),
        "time_limit": Word(("timeout_in_seconds",), _RUNTIME),
        "max_time": Word(("timeout_in_seconds",), _RUNTIME),
        "max_size": Word(("maxsize",), "It is the largest complexity of an equation."),
        "max_complexity": Word(("maxsize",)),
        "max_length": Word(("maxsize",), "It is the largest complexity of an equation."),
        "maxdepth": Word(("maxsize",), "Equations are limited by their complexity, not their depth."),
        "max_depth": Word(("maxsize",), "Equations are limited by their complexity, not their depth."),
        "init_depth": Word(("maxsize",), "Equations are limited by their complexity, not their depth."),
        "parsimony_coefficient": Word(
            ("parsimony",),
            "It is added for each unit of complexity, to the loss as a share of the best constant's loss.",
        ),
        "complexity_penalty": Word(("parsimony",)),
        "complexity_mapping": Word(("complexity_of_operators",)),
        "function_set": Word(("binary_operators", "unary_operators"), _OPERATORS),
        "functions": Word(("binary_operators", "unary_operators"), _OPERATORS),
        "allowed_symbols": Word(("binary_operators", "unary_operators"), _OPERATORS),
        "operators": Word(("binary_operators", "unary_operators"), _OPERATORS),
        "ops": Word(("binary_operators", "unary_operators"), _OPERATORS),
        "extra_sympy_mappings": Word(("unary_operators",), _NO_MAPPINGS),
        "extra_torch_mappings": Word(("unary_operators",), _NO_MAPPINGS),
        "extra_jax_mappings": Word(("unary_operators",), _NO_MAPPINGS),
        "populations": Word(("islands",)),
        "n_populations": Word(("islands", "populations")),
        "npopulations": Word(("islands", "populations")),
        "npop": Word(("population_size",)),
        "pop_size": Word(("population_size",)),
        "pool_size": Word(("population_size",)),
        "tournament_selection_n": Word(("tournament_size",)),
        "optimizer_iterations": Word(
            ("local_iterations",), "Constants are refitted in any case (refine=True)."
        ),
        "const_range": Word(("constant_range",), "Constants are refitted in any case (refine=True)."),
        "p_crossover": Word(("crossover",)),
        "p_subtree_mutation": Word(("subtree_mutation",)),
        "p_hoist_mutation": Word(("hoist_mutation",)),
        "p_point_mutation": Word(("point_mutation",)),
        "procs": Word(("n_jobs", "threads"), "PySR takes it in regressor_options=."),
        "numprocs": Word(("n_jobs", "threads")),
        "num_workers": Word(("n_jobs", "threads")),
        "workers": Word(("n_jobs", "threads")),
        "jobs": Word(("n_jobs", "threads")),
        "n_threads": Word(("threads", "n_jobs")),
        "multithreading": Word(("n_jobs", "threads"), "PySR takes parallelism= in regressor_options=."),
        "parallelism": Word(("n_jobs", "threads"), _PYSR),
        "n_jobs": Word(
            ("threads",), "Backends that search outputs in processes take it in regressor_options=."
        ),
        "cuda": Word(("device",), 'Give "cuda" as its value.'),
        "gpu": Word(("device",), 'Give "cuda" as its value.'),
        "guesses": Word(("start",), "It takes a front or a list of equations; pysr and torchgp have it."),
        "warm_start": Word(
            (), 'Give resume="folder" to go on after a stop, or start=front to pysr and torchgp.'
        ),
        "checkpoint": Word(("resume",), "It takes a folder."),
        "resume_from": Word(("resume",), "It takes a folder."),
        "equation_file": Word(("resume",), _FILES),
        "temp_equation_file": Word((), _FILES),
        "tempdir": Word((), _FILES),
        "delete_tempfiles": Word((), _FILES),
        "output_directory": Word((), f"{_FILES} PySR takes it in regressor_options=."),
        "run_id": Word((), f"{_FILES} PySR takes it in regressor_options=."),
        "save_path": Word((), _FILES),
        "tol": Word(("stop_below", "patience")),
        "early_stop_condition": Word(
            ("stop_below", "timeout_in_seconds"), "PySR takes it in regressor_options=."
        ),
        "stopping_criteria": Word(("stop_below", "timeout_in_seconds")),
        "early_stopping": Word(("patience", "stop_below", "timeout_in_seconds")),
        "denoise": Word((), f"{_PYSR} A network is smooth already; weights= leaves out single rows."),
        "select_k_features": Word(("reducer",), 'A reducer narrows wide blocks: reducer="projection".'),
        "batching": Word(("search_rows",), "PySR takes it in regressor_options=."),
        "batchsize": Word(("batch_size",)),
        "bs": Word(("batch_size",)),
        "x_units": Word((), f"Only PySR knows units. {_PYSR}"),
        "y_units": Word((), f"Only PySR knows units. {_PYSR}"),
        "units": Word((), 'Only PySR knows units: regressor="pysr", regressor_options={"X_units": [...]}.'),
        "precision": Word((), "The precision of the data decides: give float64 tensors for float64."),
        "turbo": Word((), _PYSR),
        "bumper": Word((), _PYSR),
        "cluster_manager": Word((), _PYSR),
        "random_state": Word(("seed",), _SEED),
        "random_seed": Word(("seed",), _SEED),
        "rng": Word(("seed",), _SEED),
        "generator": Word(("seed",), _SEED),
        "verbose": Word(("progress",), "It takes True or False."),
        "verbosity": Word(("progress",), "It takes True or False."),
        "quiet": Word(("progress",), "Give False."),
        "show_progress": Word(("progress",)),
        "tqdm": Word(("progress",)),
        "callback": Word(("callbacks",), "It takes a list of functions."),
        "logger": Word(
            ("callbacks",), "It takes a list of functions of an event; symtorch_core.events has loggers."
        ),
        "logger_spec": Word(("callbacks",), "symtorch_core.events has loggers."),
        "show_symbolic_expression": Word(
            (), "print(result) shows the fronts; result.equations() returns sympy."
        ),
        # Training, pruning and switching.
        "epochs": Word(("niterations", "total_steps"), _TRAINED),
        "n_epochs": Word(("epochs", "niterations"), ""),
        "num_epochs": Word(("epochs", "niterations"), ""),
        "lr": Word(("learning_rate",), "It is a relative step of each constant."),
        "optimizer": Word(("learning_rate",), "The optimizer is Adam on relative steps."),
        "setup_pruning": Word((), "Pruning is st.OutputPruner(block, target_dim=2, total_steps=3000)."),
        "pruning": Word((), "Pruning is st.OutputPruner(block, target_dim=2, total_steps=3000)."),
        "initial_dim": Word((), "The block's own width is known; give target_dim=."),
        "final_dim": Word(("target_dim",)),
        "n_outputs": Word(("target_dim", "outputs")),
        "decay_rate": Word(("schedule",)),
        "end_epoch_frac": Word(("end_fraction",)),
        "n_components": Word(("k_in",), "k_out= is the number of outputs that are kept."),
        "k": Word(("k_in",), "k_out= is the number of outputs that are kept."),
        "rule": Word(("select",)),
        "criterion_name": Word(("by",)),
        "importance": Word(("by",)),
        "index": Word(("complexity",), "Equations are chosen by complexity, not by row."),
        "equation_index": Word(("complexity",), "Equations are chosen by complexity, not by row."),
        "release": Word(("release_block",)),
        "freeze": Word(("trainable",), "Give False."),
        "requires_grad": Word(("trainable",)),
        "input_index": Word(("select_input",)),
        "output_index": Word(("select_output",)),
        "mask": Word(("row_mask",), "It takes the key of a batch, or a function of the batch."),
        "dropna": Word(("on_nonfinite",), 'Give "drop".'),
        "equation_str": Word(("equation",)),
        "expr": Word(("equation",)),
        "pde": Word(("differential_equation",)),
        "ode": Word(("differential_equation",)),
        "params": Word(("constants", "start")),
        "parameters": Word(("constants", "start")),
        "symbols": Word(("variable_names",)),
    }
)
"""The table of meanings: an argument of PySR, gplearn, pyoperon, SymTorch, scikit-learn or torch, in small letters."""

_HOMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "distill": """
            parent regressor regressor_options reducer reducer_options capture_options variable_names output_names
            transforms outputs weights select test_fraction out_of_range max_rows seed resume callbacks progress
            binary_operators unary_operators niterations maxsize parsimony complexity_of_operators
            complexity_of_constants complexity_of_variables constraints nested_constraints loss timeout_in_seconds""",
        "switch_to_symbolic": "complexity trainable release_block",
        "refine": "maps learning_rate epochs patience",
        "OutputPruner": "target_dim total_steps schedule end_fraction importance",
        "a reducer, in reducer_options=": "k_in k_out",
    }
)
"""The arguments of functions, of which others have a few."""


def get_meanings(name: str) -> tuple[str, ...]:
    """Return the arguments of ours that somebody else's may mean; none for an unknown word."""
    return WORDS.get(name.lower(), Word()).ours


def suggest(name: str, known: Mapping[str, str] | Iterable[str]) -> str:
    """Return the end of a message about an unknown argument: what is meant, by meaning first, then by spelling.

    Args:
        name: what was given.
        known: the arguments that there are; as a mapping, each with the end of a phrase that says where it belongs.

    >>> suggest("random_state", ["data", "seed"])
    " Did you mean 'seed'? It takes a whole number."
    >>> suggest("max_row", ["max_rows"])
    " Did you mean 'max_rows'?"
    """
    places = known if isinstance(known, Mapping) else dict.fromkeys(known, "")
    word = WORDS.get(name.lower(), Word())
    ours = next((argument for argument in word.ours if argument in places), None)
    if ours is not None:
        return f" Did you mean {ours!r}{places[ours]}? {word.note}".rstrip()
    near = find_close(name, places, cutoff=0.85)  # so close that it is a slip
    elsewhere = [
        f" {argument!r} is an argument of {home}."
        for argument in (name, *word.ours)
        for home, arguments in _HOMES.items()
        if argument in arguments.split()
    ]
    if not near and elsewhere:
        return elsewhere[0]
    if not near and word.note:
        return f" {word.note}"
    close = near or find_close(name, places)
    return f" Did you mean {close[0]!r}{places[close[0]]}?" if close else ""
