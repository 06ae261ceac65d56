"""Export of equations to files; the file's ending gives the format."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from symtorch_core.components.checks import check_path
from symtorch_core.errors import FileFormatError, MissingDependencyError
from symtorch_core.exports.deployed import Deployed
from symtorch_core.exports.source import to_c, to_python
from symtorch_core.exports.tables import to_latex_table
from symtorch_core.results.present import adopt_constants
from symtorch_core.storage.files import write_whole
from symtorch_core.surrogates.surrogate import Surrogate

if TYPE_CHECKING:
    from symtorch_core.results.distillation import Distillation


def export(result: Distillation, path: Path | str, surrogate: Surrogate | None = None) -> Path:
    """Write the deployed equations to a file, in the format of its ending.

    ======== ==========================================================================
    ``.py``  a numpy module with a function ``equations(X)``
    ``.c``   C99 with ``void equations(const double *x, double *y)``
    ``.tex`` all fronts as a LaTeX table
    ``.json`` everything, for ``Distillation.load`` and the ``symtorch`` command
    ``.onnx`` a graph for onnxruntime and others (needs onnx and onnxscript); float32 rows
    ``.pt2`` an exported program for ``torch.export.load``; float32 rows
    ======== ==========================================================================

    Args:
        result: the distillation.
        path: path of the file, which is overwritten.
        surrogate: surrogate with its present constants, if they differ from the distillation's. In ``.tex`` and
            ``.json`` the fronts then hold its equations, with losses measured on the rows in memory; equations that are
            neither simpler nor better are left out.

    Returns:
        The path.

    Raises:
        FileFormatError: the format is unknown, or the equations cannot be written in it.
        MissingDependencyError: a package for the format is not installed.
    """
    path = check_path("path", path, FileFormatError)
    if surrogate is not None and not isinstance(surrogate, Surrogate):
        raise FileFormatError(f"surrogate must be a Surrogate, not a {type(surrogate).__name__}")
    write = FORMATS.get(path.suffix)
    if write is None:
        raise FileFormatError(
            f"{path.name}: there is no format {path.suffix!r}; there are {', '.join(FORMATS)}"
        )
    write(result, path, surrogate)
    return path


def _write(path: Path, content: bytes) -> None:
    with write_whole(path) as unfinished:
        unfinished.write_bytes(content)


def _write_python(result: Distillation, path: Path, surrogate: Surrogate | None) -> None:
    _write(path, to_python(Deployed.of(result, surrogate)).encode())


def _write_c(result: Distillation, path: Path, surrogate: Surrogate | None) -> None:
    _write(path, to_c(Deployed.of(result, surrogate)).encode())


def _write_latex(result: Distillation, path: Path, surrogate: Surrogate | None) -> None:
    present = result if surrogate is None else adopt_constants(result, surrogate)
    table = to_latex_table(dict(zip(present.equation_names, present.fronts, strict=True)))
    _write(path, f"{table}\n".encode())


def _write_json(result: Distillation, path: Path, surrogate: Surrogate | None) -> None:
    present = result if surrogate is None else adopt_constants(result, surrogate)
    present.save(path)


def _to_single_precision(result: Distillation, surrogate: Surrogate | None) -> tuple[Surrogate, Tensor]:
    """Return the surrogate on the CPU, for float32 rows, which other programs pass, and two such rows."""
    module = result.surrogate() if surrogate is None else copy.deepcopy(surrogate)
    module = module.cpu().float().eval()
    example = torch.zeros(2, len(result.transforms.input_names))
    module(example)  # what cannot run says so better here than within an exporter
    return module, example


def _write_onnx(result: Distillation, path: Path, surrogate: Surrogate | None) -> None:
    module, example = _to_single_precision(result, surrogate)
    rows = torch.export.Dim("rows")
    try:
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: rows},),
            input_names=["x"],
            output_names=["y"],
            verbose=False,
        )
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"ONNX files need {error.name}. Try: pip install onnx onnxscript", name=error.name
        ) from error
    assert program is not None
    _write(path, program.model_proto.SerializeToString())


def _write_exported_program(result: Distillation, path: Path, surrogate: Surrogate | None) -> None:
    module, example = _to_single_precision(result, surrogate)
    rows = torch.export.Dim("rows")
    program = torch.export.export(module, (example,), dynamic_shapes=({0: rows},))
    content = io.BytesIO()
    torch.export.save(program, content)
    _write(path, content.getvalue())


FORMATS: Mapping[str, Callable[[Distillation, Path, Surrogate | None], None]] = MappingProxyType(
    {
        ".py": _write_python,
        ".c": _write_c,
        ".tex": _write_latex,
        ".json": _write_json,
        ".onnx": _write_onnx,
        ".pt2": _write_exported_program,
    }
)
"""Writers by file ending."""
