"""Results of several searches for outputs of one block, as one result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from symtorch_core.errors import SelectionError
from symtorch_core.reduction.linear import IdentityReducer
from symtorch_core.reduction.reducer import Reduction, are_equal
from symtorch_core.results.origin import Provenance
from symtorch_core.surrogates.transforms import Transform, Transforms

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation

_ANEW = "distill all of these outputs at once"


def check_mergeable(
    result: Distillation,
    keeps_outputs: bool,
    reducer: str,
    input_names: Sequence[str],
    transforms: Mapping[str, Transform],
) -> None:
    """Refuse a result whose equations cannot run beside those of another search, which may be still to come.

    Args:
        result: the earlier result.
        keeps_outputs: whether each equation of the other one is an output.
        reducer: name of its reducer.
        input_names: names of its inputs.
        transforms: its derived variables; empty if the inputs are the variables.

    Raises:
        SelectionError: one reducer mixes outputs, or names of inputs or definitions of a variable differ.
    """
    for name, keeps in (
        (result.provenance.reducer, result.reduction.keeps_outputs),
        (reducer, keeps_outputs),
    ):
        if not keeps:
            raise SelectionError(
                f"the reducer {name!r} mixes outputs, so its equations need each other: {_ANEW}"
            )
    if result.transforms.input_names != tuple(input_names):
        raise SelectionError(
            f"the inputs have other names: {', '.join(result.transforms.input_names)}, and {', '.join(input_names)}"
        )
    _unite(result.transforms, Transforms(input_names, transforms))


def check_pair(old: Distillation, new: Distillation) -> None:
    """Refuse two results whose equations cannot run side by side; see :func:`check_mergeable`."""
    check_mergeable(
        old,
        new.reduction.keeps_outputs,
        new.provenance.reducer,
        new.transforms.input_names,
        new.transforms.definitions,
    )


def merge_two(old: Distillation, new: Distillation) -> Distillation:
    """Return one result with the equations of both; of an output in both, the later's.

    Raises:
        SelectionError: the equations cannot run side by side; the message says why.
    """
    if old.block_outputs != new.block_outputs:
        raise SelectionError(
            f"the results are of other blocks: with {old.block_outputs} outputs, and with {new.block_outputs}"
        )
    kept = [column for column in old.outputs if column not in new.outputs]
    if not kept:
        return new
    transforms, reduction = _combine_maps(old, new)
    _check_source(old, new)
    old = take_outputs(old, kept)
    columns = tuple(sorted((*old.outputs, *new.outputs)))
    parts = {
        column: (result, position) for result in (old, new) for position, column in enumerate(result.outputs)
    }

    def collect(field: str) -> tuple[Any, ...]:
        return tuple(getattr(parts[c][0], field)[parts[c][1]] for c in columns)

    names = collect("output_names")
    if len(set(names)) < len(names):
        raise SelectionError(f"two outputs would have one name: {', '.join(names)}: give other output_names")
    rows = old if new.train is None and new.held_out is None else new
    return replace(
        new,
        fronts=collect("fronts"),
        equation_names=names,
        outputs=columns,
        output_names=names,
        transforms=transforms,
        reduction=reduction,
        choices=collect("choices"),
        provenance=_name_reducer(new, reduction),
        fidelity=collect("fidelity"),
        constant_losses=collect("constant_losses") if old.constant_losses and new.constant_losses else (),
        rounded=(*old.rounded, *new.rounded),
        model_fidelity=None,
        task_metric=None,
        interrupted=old.interrupted or new.interrupted,
        earlier=(*old.origins, *new.earlier),
        train=rows.train,
        held_out=rows.held_out,
        truth=rows.truth,
    )


def take_outputs(result: Distillation, columns: Sequence[int]) -> Distillation:
    """Return a result with the equations of some outputs only; each of its equations is an output.

    Args:
        result: the result.
        columns: columns of the block, of those that it has equations for.
    """
    positions = [result.outputs.index(column) for column in columns]

    def take(entries: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(entries[position] for position in positions)

    origins = [replace(o, outputs=tuple(c for c in o.outputs if c in columns)) for o in result.origins]
    *earlier, last = (origin for origin in origins if origin.outputs)
    return replace(
        result,
        fronts=take(result.fronts),
        equation_names=take(result.equation_names),
        outputs=take(result.outputs),
        output_names=take(result.output_names),
        search=last.search,
        choices=take(result.choices),
        provenance=last.provenance,
        fidelity=take(result.fidelity),
        constant_losses=take(result.constant_losses) if result.constant_losses else (),
        rounded=tuple(entry for entry in result.rounded if entry.equation in take(result.equation_names)),
        model_fidelity=None,
        task_metric=None,
        earlier=tuple(earlier),
    )


def _combine_maps(old: Distillation, new: Distillation) -> tuple[Transforms, Reduction]:
    """Return derived variables and maps in which the equations of both results run."""
    check_pair(old, new)
    transforms = _unite(old.transforms, new.transforms)
    if _is_identity(old.reduction) and _is_identity(new.reduction):
        names = list(transforms.variable_names)
        return transforms, IdentityReducer.restore({"variable_names": names})  # whatever made them
    if transforms.variable_names != new.transforms.variable_names or not are_equal(
        old.reduction, new.reduction
    ):
        raise SelectionError(
            f"the inputs were made fewer in two ways (by {old.provenance.reducer!r} and {new.provenance.reducer!r}): "
            f"{_ANEW}"
        )
    return transforms, new.reduction


def _unite(old: Transforms, new: Transforms) -> Transforms:
    """Return the derived variables of both.

    Raises:
        SelectionError: a variable has two definitions.
    """
    if not old.definitions and not new.definitions:
        return new
    united: dict[str, Any] = {}
    for transforms in (old, new):
        # Without definitions, the inputs are the variables.
        definitions = transforms.definitions or {name: name for name in transforms.input_names}
        for name, definition in definitions.items():
            if name in united and not _agree(name, united[name], definition, transforms.input_names):
                texts = (str(united[name]), str(definition))
                raise SelectionError(
                    f"the variable {name!r} has two definitions, {texts[0]} and {texts[1]}: rename one of them"
                )
            united[name] = definition
    return Transforms(new.input_names, united)


def _agree(name: str, one: Any, other: Any, inputs: Sequence[str]) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        first, second = (Transforms(inputs, {name: text}).expressions() for text in (one, other))
        return first == second
    return one is other or bool(one == other)


def _name_reducer(new: Distillation, reduction: Reduction) -> Provenance:
    """Return the provenance of the later result, with the reducer that restores these maps from a file."""
    name = IdentityReducer.name if _is_identity(reduction) else new.provenance.reducer
    return replace(new.provenance, reducer=name)


def _is_identity(reduction: Reduction) -> bool:
    return reduction.keeps_outputs and isinstance(reduction.down, nn.Identity)


def _check_source(old: Distillation, new: Distillation) -> None:
    """Refuse results for other tensors of one block."""
    before, after = old.provenance.source, new.provenance.source
    for what, one, other in (
        ("inputs", before.select_input or ("0",), after.select_input or ("0",)),
        ("outputs", before.select_output or "", after.select_output or ""),
    ):
        if one != other:
            raise SelectionError(f"the results are for other {what} of the block: {one} and {other}")
