"""Distillations as JSON. Nothing that is read is executed: equations go through the grammar."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from symtorch_core.activations.rows import Activations, Source
from symtorch_core.components.checks import check_function, check_path
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
from symtorch_core.storage.files import to_json, write_whole
from symtorch_core.storage.functions import LostFunction, decode_function, encode_function, name_function
from symtorch_core.storage.tensors import decode_tensors, encode_tensors
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.verification.fidelity import Fidelity, OutputFidelity

SCHEMA: Final = 3
"""Version of the JSON form; other versions are refused."""
_SAMPLE_ROWS = 300
_SAMPLE_NUMBERS = 200_000


def save_distillation(result: Distillation, path: Path | str) -> None:
    """Write a distillation to a file, reducer included, with a sample of its held-out rows.

    A Python function among transforms and loss is left out; a warning names it.
    """
    path = check_path("path", path, FileFormatError)
    tensors = {key: value.contiguous() for key, value in result.reduction.state_dict().items()}
    held = {} if result.held_out is None else _sample_rows(result.held_out)
    texts = {"reduction_tensors": encode_tensors(tensors), "held_out_sample": encode_tensors(held)}
    text = to_json({**encode_distillation(result), **texts}, indent=1)
    with write_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


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
        data = json.loads(path.read_text(encoding="utf-8"))
        tensors, held = (
            decode_tensors(data["reduction_tensors"]),
            decode_tensors(data.get("held_out_sample", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is not a saved distillation: {error!r}") from None
    result = _give_functions(decode_distillation(data), transforms or {}, loss)
    try:
        result.reduction.load_state_dict(tensors)
    except RuntimeError as error:  # names or shapes that the reducer does not have
        raise FileFormatError(f"{path} holds tensors that do not fit its reducer: {error}") from None
    return replace(result, held_out=_restore_rows(held, result)) if held else result


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
    search = result.search
    functions = [f"transform {name!r}" for name in result.transforms.functions()]
    functions += ["the loss"] if callable(search.loss) else []
    if functions:
        warnings.warn(
            f"not saved, because no file can hold a Python function: {', '.join(functions)}. Everything else is. "
            "Equations in such a transform run again in a model that has the function, or once it is given to "
            "Distillation.load; an expression is saved as it is",
            RuntimeWarning,
            stacklevel=2,
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
        "search": _encode_search(search),
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
            search=_decode_search(data["search"]),
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


def _encode_search(search: SearchSpace) -> dict[str, Any]:
    if not callable(search.loss):
        return asdict(search)
    return {**asdict(replace(search, loss="mse")), "loss": encode_function(search.loss)}


def _decode_search(data: Mapping[str, Any]) -> SearchSpace:
    return SearchSpace(**{**data, "loss": decode_function(data["loss"], "the loss")})


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
    loss = own.search.loss
    same = callable(loss) and result.search.loss == LostFunction("the loss", name_function(loss))
    return _give_functions(result, found, loss if callable(loss) and same else None)


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
    if loss is not None and not isinstance(result.search.loss, LostFunction):
        raise FileFormatError(f"the file has its loss, {result.search.loss!r}: leave out loss=")
    return replace(
        result,
        transforms=result.transforms.with_functions(transforms),
        search=result.search if loss is None else replace(result.search, loss=loss),
    )


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
