"""The header of a GGUF file: names, types and sizes of its tensors.

The reader of the package gguf makes arrays of every token of the vocabulary, which takes half a minute for a large
one; this one passes over them. Names and sizes of types are the package's.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final, final

from symtorch_core import MissingDependencyError

_NEEDED: Final = ("gguf", "accelerate")
FLOATS: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types of floats as GGUF and safetensors name them, and torch's dtypes."""
_VERSIONS: Final = (2, 3)
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 8
_ALIGNMENT = "general.alignment"
_PARTS = "split.count"


@final
@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file: the name of its type, and how many numbers it holds."""

    name: str
    type: str
    numbers: int

    @property
    def float_dtype(self) -> str | None:
        """The dtype of a tensor of floats, by name; None where they were quantised."""
        return FLOATS.get(self.type)


def check_packages() -> None:
    """Refuse to go on where packages that read GGUF files are missing.

    Raises:
        MissingDependencyError: with the command that installs them.
    """
    for name in _NEEDED:
        if find_spec(name) is None:
            raise MissingDependencyError(
                f"GGUF files need {name}. Try: pip install 'symtorch-llm[gguf]'", name=name
            )


def list_tensors(file: Path) -> list[GgufTensor]:
    """Return the tensors that a GGUF file names in its header, all of which are in the file.

    Raises:
        ValueError: it is no GGUF file, is damaged or cut short, or one of several parts.
        MissingDependencyError: packages that read it are missing.
    """
    check_packages()
    try:
        with file.open("rb") as opened:
            return _read(opened, file)
    except (struct.error, KeyError, OverflowError, MemoryError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{file.name} is damaged or cut short: copy or download it again") from error


def _read(opened: BinaryIO, file: Path) -> list[GgufTensor]:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if opened.read(4) != b"GGUF":
        raise ValueError(f"{file.name} is no GGUF file: it does not begin with GGUF")
    version, tensors, fields = _unpack(opened, "IQQ")
    if version not in _VERSIONS:
        raise ValueError(f"{file.name} has version {version} of GGUF; versions 2 and 3 can be read")
    values = {
        _read_string(opened).decode(): _read_value(opened, *_unpack(opened, "I")) for _ in range(fields)
    }
    if (values.get(_PARTS) or 1) > 1:
        raise ValueError(
            f"{file.name} is one of {values[_PARTS]} parts: join them into one file (llama-gguf-split --merge)"
        )
    found, end = [], 0
    for _ in range(tensors):
        name = _read_string(opened).decode()
        (count,) = _unpack(opened, "I")
        if count > _MOST_DIMENSIONS:
            raise struct.error
        numbers = math.prod(_unpack(opened, f"{count}Q"))
        number, offset = _unpack(opened, "IQ")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise ValueError(
                f"{file.name} has weights of a type (number {number}) that gguf does not know. A newer one may: pip "
                "install -U gguf"
            ) from error
        length, size = GGML_QUANT_SIZES[kind]
        end = max(end, offset + numbers // length * size)
        found.append(GgufTensor(name, kind.name, numbers))
    alignment = values.get(_ALIGNMENT) or 32
    start = -(-opened.tell() // alignment) * alignment
    if not found or os.fstat(opened.fileno()).st_size < start + end:
        raise struct.error
    return found


def _unpack(opened: BinaryIO, form: str) -> tuple[Any, ...]:
    form = f"<{form}"
    return struct.unpack(form, opened.read(struct.calcsize(form)))


def _read_string(opened: BinaryIO) -> bytes:
    (length,) = _unpack(opened, "Q")
    found = opened.read(length)
    if len(found) < length:
        raise struct.error
    return found


def _read_value(opened: BinaryIO, kind: int) -> Any:
    """Return a number, and None for what is only passed over."""
    if kind == _STRING:
        _read_string(opened)
        return None
    if kind != _ARRAY:
        return _unpack(opened, _SCALARS[kind])[0]
    inner, count = _unpack(opened, "IQ")
    if inner in _SCALARS:
        opened.seek(count * struct.calcsize(f"<{_SCALARS[inner]}"), os.SEEK_CUR)
        return None
    for _ in range(count):
        _read_value(opened, inner)
    return None
