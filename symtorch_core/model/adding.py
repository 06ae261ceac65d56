"""Equations for more outputs of a block, found one search after another: what stays of those it has."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from symtorch_core.components.checks import check_options, find_columns, read_columns
from symtorch_core.errors import FileFormatError, SelectionError, SwitchError
from symtorch_core.model.setting import Setting
from symtorch_core.reduction.linear import IdentityReducer
from symtorch_core.reduction.reducer import Reducer
from symtorch_core.results.distillation import Distillation
from symtorch_core.results.merging import check_mergeable, check_pair, merge_two, take_outputs
from symtorch_core.results.present import adopt_constants

_ANEW = "replace=True drops them and starts anew"


def name_outputs(options: dict[str, Any], old: Distillation | None) -> dict[str, Any]:
    """Return options of a distillation with numbers in place of names of outputs, and names as they were before.

    A search for some outputs beside equations that there are takes their names of inputs and outputs, unless others
    are given.

    Args:
        options: options of :func:`symtorch_core.distill`.
        old: the equations that there are, or None.

    Raises:
        SearchError: there are no such outputs.
    """
    outputs = options.get("outputs")
    if outputs is None:
        return options
    columns = read_columns("outputs", outputs)
    options = {**options, "outputs": columns}
    if old is not None and options.get("variable_names") is None:
        options["variable_names"] = old.transforms.input_names
    if old is not None and options.get("output_names") is None:
        options["output_names"] = _list_names(old)
    names = options.get("output_names")
    if names is not None and any(isinstance(column, str) for column in columns):
        options["output_names"] = tuple(names)  # which may be read only once
        known = options["output_names"]
        options["outputs"] = find_columns("outputs", columns, range(len(known)), known)
    return options


def _list_names(old: Distillation) -> tuple[str, ...] | None:
    """Return names of all outputs of the block, as far as they are known; None if that gives two one name."""
    rows = old.train or old.held_out
    names = [f"y{i}" for i in range(old.block_outputs)] if rows is None else list(rows.output_names)
    for column, name in zip(old.outputs, old.output_names, strict=True):
        names[column] = name
    return tuple(names) if len(set(names)) == len(names) else None


def check_addition(
    name: str, old: Distillation | None, options: Mapping[str, Any], pruned: Collection[int]
) -> None:
    """Refuse, before a search, one whose equations could not run beside those that are to stay.

    Args:
        name: of the block, for messages.
        old: the equations that there are, or None.
        options: options of the search, as of :func:`name_outputs`.
        pruned: pruned outputs, whose equations do not stay.

    Raises:
        SwitchError: the two cannot be one result; the message says why, and how to start anew.
    """
    outputs = options.get("outputs")
    if old is None or outputs is None or not set(old.outputs) - set(outputs) - set(pruned):
        return
    reducer = options.get("reducer", IdentityReducer.name)
    if isinstance(reducer, IdentityReducer):
        is_plain = not reducer.linear
    else:
        given = check_options("reducer_options", options.get("reducer_options"), "linear")
        is_plain = reducer == IdentityReducer.name and not given.get("linear")
    if not is_plain:
        shown = reducer.name if isinstance(reducer, Reducer) else reducer
        raise SwitchError(_explain(name, old, f"the reducer {shown!r} mixes outputs or inputs"))
    names = options.get("variable_names") or old.transforms.input_names
    try:
        check_mergeable(old, True, IdentityReducer.name, names, options.get("transforms") or {})
    except SelectionError as error:
        raise SwitchError(_explain(name, old, error)) from None


def add(
    name: str,
    now: Setting,
    new: Distillation,
    options: Mapping[str, Any],
    pruned: Collection[int],
) -> Distillation:
    """Return a new result with the equations for other outputs that are in use, and log what stays.

    Args:
        name: of the block, for messages.
        now: what the wrapper runs, or would in symbolic mode: its equations stay with their present constants.
        new: the result of the search.
        options: options of the search.
        pruned: pruned outputs, whose equations do not stay.

    Raises:
        SwitchError: the two cannot be one result, and the search was not for all outputs.
    """
    old = now.distillation
    if old is None or now.surrogate is None:
        return new
    kept = [column for column in old.outputs if column not in new.outputs and column not in pruned]
    if not kept:
        return new
    try:
        check_pair(old, new)  # before its parts are taken, which a reducer may not have
        merged = merge_two(take_outputs(adopt_constants(old, now.surrogate), kept), new)
    except (SelectionError, FileFormatError) as error:
        if options.get("outputs") is None:  # stopped before its end
            return new
        raise SwitchError(_explain(name, old, error)) from None
    logging.getLogger(__name__).info(
        "%s keeps the equations it had for %s, beside the new ones for %s",
        name,
        ", ".join(old.output_names[old.outputs.index(column)] for column in kept),
        ", ".join(new.output_names),
    )
    return merged


def _explain(name: str, old: Distillation, problem: object) -> str:
    outputs = ", ".join(old.output_names)
    return f"{name} has equations for {outputs}, beside which new ones cannot run: {problem}. Or {_ANEW}"
