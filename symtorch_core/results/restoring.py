"""Checks of a distillation that was read from a file: its parts must fit each other, and its maps must run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from symtorch_core.components.registry import load
from symtorch_core.errors import FileFormatError, SymTorchError
from symtorch_core.reduction.reducer import Reducer, Reduction
from symtorch_core.results.distillation import Distillation
from symtorch_core.storage.documents import summarize
from symtorch_core.storage.tensors import list_problems


def restore_reduction(
    reducer: str, shape: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str = ""
) -> Reduction:
    """Return the reduction of a saved shape with the numbers of these tensors.

    The shape is compared with the tensors before any memory is taken for it.

    Args:
        reducer: name of the reducer.
        shape: the saved shape.
        tensors: the reduction's tensors by name, perhaps among others.
        prefix: beginning of their names.

    Raises:
        FileFormatError: the shape is invalid, or the tensors are not of this shape or not finite.
        UnknownComponentError, MissingDependencyError: the reducer is not installed.
    """
    own = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    kind: type[Reducer] = load("reducers", reducer)
    try:
        with torch.device("meta"):
            outline = kind.restore(shape)
        expected = outline.state_dict(prefix=prefix)
        problems = [f"{prefix}{name} is unknown" for name in own if prefix + name not in expected]
        problems += list_problems(tensors, expected)
        if problems:
            raise FileFormatError(f"its reducer's maps are not whole: {summarize('; '.join(problems))}")
        with torch.device("cpu"):
            reduction = kind.restore(shape)
        reduction.load_state_dict(own)
    except SymTorchError:
        raise
    except Exception as error:  # whatever another distribution's reducer makes of a damaged shape
        raise FileFormatError(f"its {reducer} reduction is damaged: {summarize(error)}") from error
    return reduction


def check_parts(result: Distillation) -> None:
    """Refuse a distillation whose parts do not fit each other, before something fails on them later.

    Raises:
        FileFormatError: two parts do not fit; the message names them.
    """
    fronts, outputs = len(result.fronts), len(result.outputs)
    _check_count("equation_names", len(result.equation_names), fronts, "fronts")
    _check_count("choices", len(result.choices), fronts, "fronts")
    _check_count("output_names", len(result.output_names), outputs, "outputs")
    _check_count("fidelity", len(result.fidelity), outputs, "outputs")
    if result.constant_losses:
        _check_count("constant_losses", len(result.constant_losses), fronts, "fronts")
    columns, inputs = len(result.provenance.source.columns), len(result.transforms.input_names)
    if columns not in (0, inputs):
        raise FileFormatError(f"its source has {columns} columns, but there are {inputs} inputs")
    if not outputs or len(set(result.outputs)) < outputs or max(result.outputs) >= result.block_outputs:
        raise FileFormatError(
            f"its outputs are not different numbers from 0 to {result.block_outputs - 1}, as those of its block"
        )
    for names in (result.equation_names, result.output_names):
        if len(set(names)) < len(names):
            raise FileFormatError(f"two of its equations or outputs have one name: {summarize(names)}")
    _check_maps(result, fronts, outputs)
    for front, choice in zip(result.fronts, result.choices, strict=True):
        if choice.complexity not in (front.complexities or (None,)):
            raise FileFormatError(
                f"it chooses an equation of complexity {choice.complexity}, which is not on its front"
            )
    earlier = [column for origin in result.earlier for column in origin.outputs]
    if len(set(earlier)) < len(earlier) or not set(earlier) < set(result.outputs):
        raise FileFormatError(
            "its earlier searches are not of different outputs, or leave none for the last one"
        )


def _check_count(name: str, found: int, expected: int, what: str) -> None:
    if found != expected:
        raise FileFormatError(f"its {name} has {found} entries, but there are {expected} {what}")


def _check_maps(result: Distillation, fronts: int, outputs: int) -> None:
    """Run the maps on one row: whether they fit is known by their modules alone."""
    reduction, variables = result.reduction, result.reduction.variable_names
    row = torch.zeros(1, len(result.transforms.variable_names))
    floating = [value.dtype for value in reduction.state_dict().values() if value.is_floating_point()]
    row = row.to(floating[0]) if floating else row
    try:
        Z = reduction.reduce_inputs(row)
        Y = reduction.restore_outputs(row.new_zeros(1, fronts), Z)
    except Exception as error:  # whatever a module makes of a row of another width
        raise FileFormatError(f"its reduction does not fit its variables: {summarize(error)}") from error
    _check_width("variables", Z, variables)
    _check_width("outputs", Y, result.outputs)


def _check_width(name: str, found: Tensor, expected: Sequence[object]) -> None:
    if found.shape != (1, len(expected)):
        raise FileFormatError(f"its reduction gives {found.shape[-1]} {name}, but it has {len(expected)}")
