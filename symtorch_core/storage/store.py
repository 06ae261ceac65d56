"""Finished work on disk: a folder of files whose names hold a digest of everything that determines the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from symtorch_core.errors import FileFormatError
from symtorch_core.storage.files import write_whole

_ABOUT = "about"


def make_key(settings: Any, tensors: Iterable[Tensor | None] = ()) -> str:
    """Return a digest of settings and data: 24 hexadecimal digits.

    Args:
        settings: anything that JSON can hold; other objects enter by their ``repr``.
        tensors: data, on any device; None counts as no data. Their bytes enter, not a sum of them, which would
            depend on the number of threads.

    >>> import torch
    >>> make_key({"seed": 0}, [torch.ones(2)]) == make_key({"seed": 0}, [torch.zeros(2)])
    False
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode())
    for tensor in tensors:
        digest.update(b"" if tensor is None else _to_bytes(tensor))
    return digest.hexdigest()[:24]


def _to_bytes(tensor: Tensor) -> bytes:
    rows = tensor.detach().cpu().contiguous()
    return f"{rows.dtype}{tuple(rows.shape)}".encode() + rows.reshape(-1).view(torch.uint8).numpy().tobytes()


@final
class Store:
    """Folder of finished work, as JSON and as tensors; each file is complete or absent.

    A name consists of a word for the work and a :func:`make_key`, so one folder can serve many runs, and work with
    other settings is never used.

    Args:
        folder: created when the first file is written.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> name = f"front-{make_key({'seed': 0})}"
    >>> store.read_json(name) is None
    True
    >>> store.write_json(name, [1, 2])
    >>> store.read_json(name)
    [1, 2]
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def read_json(self, name: str) -> Any:
        """Return the data of :meth:`write_json` under a name, or None if there are none.

        Raises:
            FileFormatError: the file is damaged.
        """
        path = self.folder / f"{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError as error:
            raise FileFormatError(
                f"{path} is damaged ({error}): delete it, and its work is done again"
            ) from None

    def write_json(self, name: str, data: Any) -> None:
        """Write JSON data under a name."""
        with write_whole(self.folder / f"{name}.json") as unfinished:
            unfinished.write_text(json.dumps(data), encoding="utf-8")

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], Any] | None:
        """Return the tensors under a name, on the CPU, and the data about them; None if there are none.

        Raises:
            FileFormatError: the file is damaged.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt") as opened:
                about = json.loads((opened.metadata() or {}).get(_ABOUT, "null"))
                return {key: opened.get_tensor(key) for key in opened.keys()}, about  # noqa: SIM118 - no mapping
        except (safetensors.SafetensorError, ValueError) as error:
            raise FileFormatError(
                f"{path} is damaged ({error}): delete it, and its work is done again"
            ) from None

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], about: Any = None) -> None:
        """Write tensors under a name, with JSON data about them."""
        plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        with write_whole(self.folder / f"{name}.safetensors") as unfinished:
            safetensors.torch.save_file(plain, unfinished, metadata={_ABOUT: json.dumps(about)})
