"""The folder of a search: never the working directory, and kept only if the user or the core asks for it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from symtorch_core import SearchError
from symtorch_core.studies import Store


@final
@dataclass(frozen=True)
class Run:
    """The folder of one search.

    Attributes:
        folder: PySR's run directory, ``output_directory/run_id``; the first one to write there creates it.
        earlier: folders of earlier attempts at the same search that did not end.
        kept: whether the folder is kept.
        tables: where the tables of a search that has ended are kept until its fronts are; None for nowhere.
    """

    folder: Path
    earlier: tuple[Path, ...] = ()
    kept: bool = True
    tables: Store | None = None


@contextmanager
def open_run_folder(
    output_directory: str | Path | None, run_id: str | None, folder: Path | None
) -> Iterator[Run]:
    """Open a folder for one search, as a context.

    Args:
        output_directory: the folder in which the user wants it, without earlier attempts; None for none.
        run_id: its name there; made up if None.
        folder: the folder in which the core keeps attempts at the same search; None for a temporary folder.

    Raises:
        SearchError: the user's folder already holds another search.
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
        yield Run(attempt, earlier, tables=Store(folder))
    else:
        with tempfile.TemporaryDirectory(prefix="symtorch-pysr-") as temporary:
            yield Run(Path(temporary) / "run", kept=False)
