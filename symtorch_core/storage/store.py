"""Finished work on disk: a folder of files whose names hold a digest of everything that determines the result."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, final

import msgspec
import safetensors
import safetensors.torch
from torch import Tensor

from symtorch_core.errors import FileFormatError
from symtorch_core.storage.documents import read_document, write_document
from symtorch_core.storage.files import write_whole
from symtorch_core.storage.identity import identify, to_bytes

_ABOUT, _CHECKSUM = "about", "sha256"
_SCHEMA = 1
_MISMATCH = "its checksum is not that of its contents and name"


@final
class _Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a JSON file of finished work."""

    schema: Literal[1]
    name: str
    data: Any
    sha256: str


def make_key(settings: Any, tensors: Iterable[Tensor | None] = ()) -> str:
    """Return a digest of settings and data: 24 hexadecimal digits.

    Args:
        settings: plain data, functions and objects; see :func:`symtorch_core.storage.identity.identify`.
        tensors: data, on any device; None counts as no data. Their bytes enter, not a sum of them, which would
            depend on the number of threads.

    Raises:
        SearchError: the settings hold something that exists in this process only.

    >>> import torch
    >>> make_key({"seed": 0}, [torch.ones(2)]) == make_key({"seed": 0}, [torch.zeros(2)])
    False
    """
    digest = hashlib.sha256(json.dumps(identify(settings, "a setting"), sort_keys=True).encode())
    for tensor in tensors:
        digest.update(b"none" if tensor is None else to_bytes(tensor))
    return digest.hexdigest()[:24]


@final
class Store:
    """Folder of finished work, as JSON and as tensors; each file is complete or absent, and holds a checksum.

    A name consists of a word for the work and a :func:`make_key`, so one folder can serve many runs, and work with
    other settings is never used. Where a file cannot be written, as on a full disk, a warning names it: the work is
    then done again another time, and not lost now.

    Args:
        folder: created when the first file is written.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> name = f"front-{make_key({'seed': 0})}"
    >>> store.read_json(name) is None
    True
    >>> store.write_json(name, [1, 2])
    True
    >>> store.read_json(name)
    [1, 2]
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def read_json(self, name: str) -> Any:
        """Return the data of :meth:`write_json` under a name, or None if there are none.

        Raises:
            FileFormatError: the file is damaged, or was written under another name.
        """
        path = self._name_json(name)
        if not path.exists():
            return None
        try:
            found = read_document(path.read_bytes(), _Work, _SCHEMA, "the file")
        except FileFormatError as error:
            raise make_damage_error(path, error) from None
        if found.name != name:
            raise make_damage_error(path, f"it was written as {found.name}")
        return found.data

    def write_json(self, name: str, data: Any) -> bool:
        """Write JSON data under a name, and return whether they are on disk."""

        def write(unfinished: Path) -> None:
            text = write_document({"schema": _SCHEMA, "name": name, "data": data})
            unfinished.write_text(text, encoding="utf-8")

        return _try_to_write(self._name_json(name), write)

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], Any] | None:
        """Return the tensors under a name, on the CPU, and the data about them; None if there are none.

        Raises:
            FileFormatError: the file is damaged, or was written under another name.
        """
        path = self._name_tensors(name)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - no mapping
            about = metadata.get(_ABOUT, "")
            if metadata.get(_CHECKSUM) != _compute_checksum(name, about, tensors):
                raise ValueError(_MISMATCH)
            return tensors, json.loads(about)
        except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
            raise make_damage_error(path, error) from None

    def has_tensors(self, name: str) -> bool:
        """Return whether there is a file of tensors under a name; it is not opened."""
        return self._name_tensors(name).exists()

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], about: Any = None) -> bool:
        """Write tensors under a name, with JSON data about them, and return whether they are on disk."""
        plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        text = json.dumps(about)
        metadata = {_ABOUT: text, _CHECKSUM: _compute_checksum(name, text, plain)}
        return _try_to_write(
            self._name_tensors(name),
            lambda unfinished: safetensors.torch.save_file(plain, unfinished, metadata=metadata),
        )

    def _name_json(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _name_tensors(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def make_damage_error(path: Path, reason: object) -> FileFormatError:
    """Return the error about a file of finished work that cannot be used."""
    return FileFormatError(f"{path} is damaged ({reason}): delete it, and its work is done again")


def _compute_checksum(name: str, text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{name}\n{text}\n".encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key}\n".encode() + to_bytes(tensor))
    return digest.hexdigest()


def _try_to_write(path: Path, write: Callable[[Path], object]) -> bool:
    """Write a file, and return whether it is on disk; warn if not."""
    try:
        with write_whole(path) as unfinished:
            write(unfinished)
    except (OSError, FileFormatError, safetensors.SafetensorError) as error:
        warnings.warn(
            f"{path} was not written ({error}): the run goes on without it, and its work is done again by the next run",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True
