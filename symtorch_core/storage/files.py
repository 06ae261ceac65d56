"""Files that are whole or old, and JSON for them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def write_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end, so that a stop never leaves half a file.

    Whenever the process is killed, the disk is full or two writers race, `path` holds all of the old file or all of a
    new one. The temporary file is beside `path`, has its ending, and a name of its own for each writer; it is removed
    if the writing fails. A link is followed, permissions are kept, and folders are made.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "new" / "numbers.txt"
    >>> with write_whole(path) as unfinished:
    ...     _ = unfinished.write_text("1 2 3")
    ...     path.exists()
    False
    >>> path.read_text()
    '1 2 3'

    Raises:
        OSError: the file cannot be written; the old one is as it was.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder: give the path of a file")
        yield path  # a device or a pipe, which cannot be replaced
        return
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is read-only: give another path, or make it writable")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{secrets.token_hex(8)}{path.suffix}")
    try:
        # Made here, so that no other writer has it, and with the permissions that a new file gets.
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield unfinished
        _flush(unfinished, os.O_RDWR)
        if path.exists():
            shutil.copymode(path, unfinished)
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # Windows opens no folders
        _flush(path.parent, os.O_RDONLY)


def write_text(path: Path | str, text: str) -> None:
    """Write a text in UTF-8, its line ends as they are, in whole or not at all; see :func:`write_whole`."""
    with write_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def _flush(path: Path, flags: int) -> None:
    """Wait until a file, or the names in a folder, are on the disk and not only in its cache."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(data: Any, indent: int | None = None) -> str:
    """Return data as JSON; numpy's numbers, which a user may give for any setting, become plain ones.

    >>> to_json({"seed": np.int64(3)})
    '{"seed": 3}'

    Raises:
        TypeError, ValueError: JSON cannot hold the data, as NaN and infinities.
    """

    def convert(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"a {type(value).__name__} cannot be written as JSON")

    return json.dumps(data, indent=indent, default=convert)
