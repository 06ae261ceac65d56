"""Where a search writes: never into the working directory, and kept only where somebody asked for it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from symtorch_core import SearchError


@final
@dataclass(frozen=True)
class Run:
    """The folder of one search.

    Attributes:
        folder: PySR's run directory, ``output_directory/run_id``.
        earlier: folders of attempts at the very same search that did not end.
        kept: whether the folder stays.
    """

    folder: Path
    earlier: tuple[Path, ...] = ()
    kept: bool = True


@contextmanager
def run_folder(output_directory: str | Path | None, run_id: str | None, folder: Path | None) -> Iterator[Run]:
    """A folder for one search.

    Args:
        output_directory: where the user wants it; then nothing is taken up from earlier.
        run_id: its name there; made up if None.
        folder: where the core keeps it for repetitions of the same search; None for a temporary one.

    Raises:
        SearchError: the user's folder holds another search already.
    """
    if output_directory is not None:
        chosen = Path(output_directory).expanduser().resolve() / (run_id or uuid.uuid4().hex[:12])
        if chosen.exists() and any(chosen.iterdir()):
            raise SearchError(f"{chosen} is not empty: choose another run_id")
        chosen.mkdir(parents=True, exist_ok=True)
        yield Run(chosen)
    elif folder is not None:
        earlier = tuple(sorted(folder.resolve().glob("attempt-*")))
        attempt = folder.resolve() / f"attempt-{len(earlier) + 1:03d}"
        attempt.mkdir(parents=True)
        yield Run(attempt, earlier)
    else:
        with tempfile.TemporaryDirectory(prefix="symtorch-pysr-") as temporary:
            yield Run(Path(temporary) / "run", kept=False)
