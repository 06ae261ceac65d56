"""Progress of a search on disk, from whose last round a killed search goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch

from symtorch_core.studies import Store
from symtorch_torchgp.evolution.archive import Archive

_NAME = "progress"


@final
@dataclass(frozen=True)
class Progress:
    """What decides the next rounds of a search, besides the archive.

    Attributes:
        rows: number of rows to search on.
        generations: generations of all rounds so far, those of islands counted once.
        turn: number of the next round.
        idle: rounds in succession without progress.
        seconds: time so far, of earlier attempts too.
        finished: outputs with a final front.
    """

    rows: int
    generations: int = 0
    turn: int = 0
    idle: int = 0
    seconds: float = 0.0
    finished: tuple[int, ...] = ()


def write_progress(folder: Path, progress: Progress, archive: Archive) -> None:
    """Write progress and archive to a folder; a warning names a file that cannot be written."""
    Store(folder).write_tensors(_NAME, vars(archive), asdict(progress))


def read_progress(folder: Path, device: torch.device) -> tuple[Progress, Archive] | None:
    """Return what :func:`write_progress` wrote to a folder, or None.

    Raises:
        FileFormatError: the file is damaged.
    """
    kept = Store(folder).read_tensors(_NAME)
    if kept is None:
        return None
    tensors, about = kept
    finished = tuple(about.pop("finished"))
    archive = Archive(**{name: tensor.to(device) for name, tensor in tensors.items()})
    return Progress(**about, finished=finished), archive
