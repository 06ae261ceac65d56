"""Distillations as JSON. Nothing that is read is executed: equations go through the grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from symtorch_core.activations.rows import Activations, Source
from symtorch_core.components.registry import load
from symtorch_core.errors import (
    CaptureError,
    DuplicateComponentError,
    FileFormatError,
    MissingDependencyError,
    UnknownComponentError,
)
from symtorch_core.reduction.reducer import Reduction
from symtorch_core.results.distillation import Distillation, MetricChange, Provenance
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.space import SearchSpace
from symtorch_core.storage.files import write_whole
from symtorch_core.storage.tensors import decode_tensors, encode_tensors
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.verification.fidelity import Fidelity, OutputFidelity

SCHEMA: Final = 3
"""Version of the JSON form; other versions are refused."""
_SAMPLE_ROWS = 300
_SAMPLE_NUMBERS = 200_000


def save_distillation(result: Distillation, path: Path | str) -> None:
    """Write a distillation to a file, reducer included, with a sample of its held-out rows."""
    tensors = {key: value.contiguous() for key, value in result.reduction.state_dict().items()}
    held = {} if result.held_out is None else _sample_rows(result.held_out)
    texts = {"reduction_tensors": encode_tensors(tensors), "held_out_sample": encode_tensors(held)}
    text = json.dumps({**encode_distillation(result), **texts}, indent=1)
    with write_whole(Path(path)) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def load_distillation(path: Path | str) -> Distillation:
    """Read a distillation from a file of :func:`save_distillation`.

    Raises:
        FileFormatError: the file is not a saved distillation.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        tensors, held = (
            decode_tensors(data["reduction_tensors"]),
            decode_tensors(data.get("held_out_sample", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is not a saved distillation: {error!r}") from None
    result = decode_distillation(data)
    try:
        result.reduction.load_state_dict(tensors)
    except RuntimeError as error:  # names or shapes that the reducer does not have
        raise FileFormatError(f"{path} holds tensors that do not fit its reducer: {error}") from None
    return replace(result, held_out=_restore_rows(held, result)) if held else result


def encode_distillation(result: Distillation) -> dict[str, Any]:
    """Return everything except the activations and the reducer's tensors, as JSON data.

    Raises:
        FileFormatError: a transform or the loss is a Python function.
    """
    if callable(result.search.loss):
        raise FileFormatError(
            "the loss is a Python function, which cannot be saved: search with a loss by name or formula"
        )
    return {
        "schema": SCHEMA,
        "fronts": [front.to_json() for front in result.fronts],
        "equation_names": list(result.equation_names),
        "outputs": list(result.outputs),
        "output_names": list(result.output_names),
        "block_outputs": result.block_outputs,
        "transforms": result.transforms.to_json(),
        "reduction": result.reduction.shape,
        "search": asdict(result.search),
        "select": result.select,
        "fidelity": [
            {key: value and value.to_json() for key, value in vars(entry).items()}
            for entry in result.fidelity
        ],
        "model_fidelity": result.model_fidelity and result.model_fidelity.to_json(),
        "task_metric": None if result.task_metric is None else asdict(result.task_metric),
        "interrupted": result.interrupted,
        "provenance": asdict(result.provenance),
    }


def decode_distillation(data: Mapping[str, Any]) -> Distillation:
    """Build a distillation from JSON data of :func:`encode_distillation`; the reducer's tensors are loaded later.

    Raises:
        FileFormatError: the data do not have this form, or have another schema.
        UnknownComponentError, MissingDependencyError: the reducer is not installed.
    """
    if not isinstance(data, Mapping):
        raise FileFormatError("not a distillation: its JSON is not an object")
    if data.get("schema") != SCHEMA:
        raise FileFormatError(
            f"schema {data.get('schema')!r} is not {SCHEMA}: use the version that wrote the file"
        )
    try:
        provenance = _decode_provenance(data["provenance"])
        reduction: Reduction = load("reducers", provenance.reducer).restore(data["reduction"])
        metric = data["task_metric"]
        return Distillation(
            fronts=tuple(ParetoFront.from_json(front, reduction.variable_names) for front in data["fronts"]),
            equation_names=tuple(data["equation_names"]),
            outputs=tuple(int(column) for column in data["outputs"]),
            output_names=tuple(data["output_names"]),
            block_outputs=int(data["block_outputs"]),
            transforms=Transforms.from_json(data["transforms"]),
            reduction=reduction,
            search=SearchSpace(**data["search"]),
            select=data["select"],
            provenance=provenance,
            fidelity=tuple(_decode_fidelity(entry) for entry in data["fidelity"]),
            model_fidelity=data["model_fidelity"] and Fidelity.from_json(data["model_fidelity"]),
            task_metric=None if metric is None else MetricChange(**metric),
            interrupted=bool(data["interrupted"]),
        )
    except (FileFormatError, UnknownComponentError, MissingDependencyError, DuplicateComponentError):
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise FileFormatError(f"not a distillation: {error!r}") from error


def _decode_provenance(data: Mapping[str, Any]) -> Provenance:
    source: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in data["source"].items()
    }
    return Provenance(
        regressor=data["regressor"],
        reducer=data["reducer"],
        surrogate=data["surrogate"],
        source=Source(**source),
        rows=(int(data["rows"][0]), int(data["rows"][1])),
        seconds=dict(data["seconds"]),
        versions=dict(data["versions"]),
        seed=int(data["seed"]),
    )


def _decode_fidelity(entry: Mapping[str, Any]) -> OutputFidelity:
    return OutputFidelity(**{key: value and Fidelity.from_json(value) for key, value in entry.items()})


def _sample_rows(rows: Activations) -> dict[str, Tensor]:
    """Return some rows as tensors for a file: all columns, and no more than a few megabytes."""
    width = rows.inputs.shape[1] + rows.outputs.shape[1]
    few = rows.rows(torch.arange(min(len(rows), _SAMPLE_ROWS, max(1, _SAMPLE_NUMBERS // width))))
    tensors = {"inputs": few.inputs, "outputs": few.outputs}
    return tensors if few.weights is None else {**tensors, "weights": few.weights}


def _restore_rows(tensors: Mapping[str, Tensor], result: Distillation) -> Activations:
    try:
        return Activations(
            tensors["inputs"],
            tensors["outputs"],
            tensors.get("weights"),
            result.transforms.input_names,
            source=result.provenance.source,
        )
    except (KeyError, CaptureError) as error:
        raise FileFormatError(f"the saved sample of held-out rows is damaged: {error}") from None
