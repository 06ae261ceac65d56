"""Atomic files, complete or absent, and JSON for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end, so that a stop never leaves half a file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "new" / "numbers.txt"
    >>> with write_whole(path) as unfinished:
    ...     _ = unfinished.write_text("1 2 3")
    ...     path.exists()
    False
    >>> path.read_text()
    '1 2 3'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    yield unfinished
    unfinished.replace(path)


def to_json(data: Any, indent: int | None = None) -> str:
    """Return data as JSON; numpy's numbers, which a user may give for any setting, become plain ones.

    >>> to_json({"seed": np.int64(3)})
    '{"seed": 3}'
    """

    def convert(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"a {type(value).__name__} cannot be written as JSON")

    return json.dumps(data, indent=indent, default=convert)
