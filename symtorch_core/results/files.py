"""Distillations as JSON. Nothing that is read is executed: equations go through the grammar."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from symtorch_core.activations.frames import Column
from symtorch_core.activations.rows import Activations, Source
from symtorch_core.components.checks import check_function, check_path
from symtorch_core.errors import CaptureError, FileFormatError, SearchError
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.results.choosing import Choice
from symtorch_core.results.distillation import Distillation, MetricChange
from symtorch_core.results.origin import Origin, Provenance
from symtorch_core.results.records import (
    SCHEMA,
    DistillationRecord,
    OutputFidelityRecord,
    ProvenanceRecord,
    SavedDistillation,
    SearchRecord,
)
from symtorch_core.results.restoring import check_parts, restore_reduction
from symtorch_core.search.fidelity import Fidelity
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.rounding import RoundedConstant
from symtorch_core.search.space import SearchSpace
from symtorch_core.storage.documents import encode_number, read_document, summarize, write_document
from symtorch_core.storage.files import write_text
from symtorch_core.storage.functions import LostFunction, decode_function, encode_function, name_function
from symtorch_core.storage.tensors import decode_tensors, encode_tensors
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.verification.fidelity import OutputFidelity

_SAMPLE_ROWS = 300
_SAMPLE_NUMBERS = 200_000


def save_distillation(result: Distillation, path: Path | str) -> None:
    """Write a distillation to a file, reducer included, with a sample of its held-out rows.

    A Python function among transforms and loss is left out; a warning names it.
    """
    path = check_path("path", path, FileFormatError)
    tensors = {key: value.contiguous() for key, value in result.reduction.state_dict().items()}
    held = {} if result.held_out is None else _sample_rows(result.held_out)
    content = {
        "schema": SCHEMA,
        "distillation": encode_distillation(result),
        "reduction_tensors": encode_tensors(tensors),
        "held_out_sample": encode_tensors(held),
    }
    write_text(path, write_document(content, indent=1))


def load_distillation(
    path: Path | str,
    transforms: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    loss: Callable[[Tensor], Tensor] | None = None,
) -> Distillation:
    """Read a distillation from a file of :func:`save_distillation`.

    Args:
        path: path of the file.
        transforms, loss: Python functions that the file lacks; see :meth:`Distillation.load`.

    Raises:
        FileFormatError: the file is not a saved distillation, or a function is given that it does not lack.
    """
    path = check_path("path", path, FileFormatError)
    _check_functions(transforms, loss)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}") from None
    try:
        saved = read_document(text, SavedDistillation, SCHEMA, "the saved distillation")
        tensors, held = decode_tensors(saved.reduction_tensors), decode_tensors(saved.held_out_sample)
        reduction = restore_reduction(
            saved.distillation.provenance.reducer, saved.distillation.reduction, tensors
        )
        result = decode_distillation(saved.distillation, reduction)
        check_parts(result)
        result = replace(result, held_out=_restore_rows(held, result)) if held else result
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {summarize(error)}") from None
    return _give_functions(result, transforms or {}, loss)


def _check_functions(transforms: Any, loss: Any) -> None:
    if transforms is not None:
        if not isinstance(transforms, Mapping):
            raise FileFormatError("transforms takes a dictionary: name of the variable -> function")
        for name, function in transforms.items():
            check_function(f"transforms: {name!r}", function, "a function of the inputs", FileFormatError)
    check_function("loss", loss, "a function of the residual", FileFormatError, optional=True)


def encode_distillation(result: Distillation) -> dict[str, Any]:
    """Return everything except the activations and the reducer's tensors, as JSON data.

    JSON holds no Python functions: of a transform or a loss that is one, it has the name, and a warning says so.
    """
    functions = [f"transform {name!r}" for name in result.transforms.functions()]
    functions += ["the loss"] if any(callable(origin.search.loss) for origin in result.origins) else []
    if functions:
        warnings.warn(
            f"not saved, because no file can hold a Python function: {', '.join(functions)}. Everything else is. "
            "Equations in such a transform run again in a model that has the function, or once it is given to "
            "Distillation.load; an expression is saved as it is",
            RuntimeWarning,
            stacklevel=2,
        )
    metric = result.task_metric
    return {
        "fronts": [front.to_json() for front in result.fronts],
        "equation_names": list(result.equation_names),
        "outputs": list(result.outputs),
        "output_names": list(result.output_names),
        "block_outputs": result.block_outputs,
        "transforms": result.transforms.to_json(),
        "reduction": result.reduction.shape,
        "search": _encode_search(result.search),
        "choices": [vars(choice) for choice in result.choices],
        "fidelity": [
            {key: value and value.to_json() for key, value in vars(entry).items()}
            for entry in result.fidelity
        ],
        "model_fidelity": result.model_fidelity and result.model_fidelity.to_json(),
        "task_metric": metric and {key: encode_number(value) for key, value in vars(metric).items()},
        "interrupted": result.interrupted,
        "provenance": asdict(result.provenance),
        "earlier": [
            {
                "outputs": list(origin.outputs),
                "search": _encode_search(origin.search),
                "provenance": asdict(origin.provenance),
            }
            for origin in result.earlier
        ],
        "constant_losses": [encode_number(loss) for loss in result.constant_losses],
        "rounded": [asdict(entry) for entry in result.rounded],
    }


def decode_distillation(record: DistillationRecord, reduction: Reduction) -> Distillation:
    """Build a distillation from its record and its reduction; :func:`check_parts` says whether its parts fit.

    Raises:
        FileFormatError: a part of the record is invalid.
    """
    metric = record.task_metric
    return Distillation(
        fronts=tuple(ParetoFront.from_record(front, reduction.variable_names) for front in record.fronts),
        equation_names=tuple(record.equation_names),
        outputs=tuple(record.outputs),
        output_names=tuple(record.output_names),
        block_outputs=record.block_outputs,
        transforms=Transforms.from_record(record.transforms),
        reduction=reduction,
        search=_decode_search(record.search),
        choices=tuple(Choice(choice.complexity, choice.by) for choice in record.choices),
        provenance=_decode_provenance(record.provenance),
        fidelity=tuple(_decode_output_fidelity(entry) for entry in record.fidelity),
        model_fidelity=record.model_fidelity and Fidelity.from_record(record.model_fidelity),
        task_metric=None if metric is None else MetricChange(float(metric.block), float(metric.equations)),
        interrupted=record.interrupted,
        earlier=tuple(
            Origin(
                tuple(origin.outputs), _decode_search(origin.search), _decode_provenance(origin.provenance)
            )
            for origin in record.earlier
        ),
        constant_losses=tuple(map(float, record.constant_losses)),
        rounded=tuple(RoundedConstant(**msgspec.structs.asdict(entry)) for entry in record.rounded),
    )


def _encode_search(search: SearchSpace) -> dict[str, Any]:
    if not callable(search.loss):
        return asdict(search)
    return {**asdict(replace(search, loss="mse")), "loss": encode_function(search.loss)}


def _decode_search(record: SearchRecord) -> SearchSpace:
    fields = msgspec.structs.asdict(record)
    try:
        return SearchSpace(**{**fields, "loss": decode_function(record.loss, "the loss")})
    except SearchError as error:
        raise FileFormatError(f"its search is invalid: {summarize(error)}") from error


def reuse_functions(result: Distillation, own: Distillation | None) -> Distillation:
    """Return a distillation that was read, with Python functions of another one in place of those it lost.

    A function is taken for a lost one if both have the same name, and transforms the same variable too.
    """
    if own is None:
        return result
    lost = {name: result.transforms.definitions[name] for name in result.transforms.lost()}
    found = {
        name: function
        for name, function in own.transforms.functions().items()
        if name in lost and lost[name] == LostFunction(f"transform {name!r}", name_function(function))
    }
    lost_losses = [origin.search.loss for origin in result.origins]
    losses = [
        loss
        for loss in (origin.search.loss for origin in own.origins)
        if callable(loss) and LostFunction("the loss", name_function(loss)) in lost_losses
    ]
    return _give_functions(result, found, losses[-1] if losses else None)


def _give_functions(
    result: Distillation,
    transforms: Mapping[str, Callable[[Tensor], Tensor]],
    loss: Callable[[Tensor], Tensor] | None,
) -> Distillation:
    """Return a distillation with Python functions in place of those that its file lacks."""
    lost = result.transforms.lost()
    for name in transforms:
        if name not in lost:
            raise FileFormatError(
                f"the file lacks no function of a transform {name!r}; it lacks: {', '.join(lost) or 'none'}"
            )
    if loss is not None and not any(isinstance(o.search.loss, LostFunction) for o in result.origins):
        raise FileFormatError(f"the file has its loss, {result.search.loss!r}: leave out loss=")

    def give(search: SearchSpace) -> SearchSpace:
        if loss is None or not isinstance(search.loss, LostFunction):
            return search
        return replace(search, loss=loss)

    return replace(
        result,
        transforms=result.transforms.with_functions(transforms),
        search=give(result.search),
        earlier=tuple(replace(origin, search=give(origin.search)) for origin in result.earlier),
    )


def _decode_provenance(record: ProvenanceRecord) -> Provenance:
    fields, source = msgspec.structs.asdict(record), msgspec.structs.asdict(record.source)
    columns = tuple(Column(entry.label, entry.dtype) for entry in record.source.columns)
    return Provenance(**{**fields, "source": Source(**{**source, "columns": columns})})


def _decode_output_fidelity(record: OutputFidelityRecord) -> OutputFidelity:
    parts = (record.train, record.held_out, record.out_of_range, record.linear, record.truth)
    return OutputFidelity(*(None if part is None else Fidelity.from_record(part) for part in parts))


def _sample_rows(rows: Activations) -> dict[str, Tensor]:
    """Return some rows as tensors for a file: all columns, and no more than a few megabytes."""
    width = rows.inputs.shape[1] + rows.outputs.shape[1]
    few = rows.rows(torch.arange(min(len(rows), _SAMPLE_ROWS, max(1, _SAMPLE_NUMBERS // width))))
    tensors = {"inputs": few.inputs, "outputs": few.outputs}
    return tensors if few.weights is None else {**tensors, "weights": few.weights}


def _restore_rows(tensors: Mapping[str, Tensor], result: Distillation) -> Activations:
    try:
        if tensors["outputs"].shape[-1:] != (result.block_outputs,):
            raise FileFormatError(f"its held-out rows do not have {result.block_outputs} outputs")
        return Activations(
            tensors["inputs"],
            tensors["outputs"],
            tensors.get("weights"),
            result.transforms.input_names,
            source=result.provenance.source,
        )
    except (KeyError, CaptureError) as error:
        raise FileFormatError(f"its sample of held-out rows is damaged: {summarize(error)}") from None
