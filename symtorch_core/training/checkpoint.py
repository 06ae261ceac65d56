"""The file of a training, from which a stopped one goes on."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import nn

from symtorch_core.errors import FileFormatError
from symtorch_core.storage.files import write_whole
from symtorch_core.storage.locks import hold_lock

_SCHEMA: Final = 2


@final
@dataclass(frozen=True)
class Checkpoint:
    """File of a training, from which a stopped one continues exactly.

    Attributes:
        file: path of the file.
        module: module with everything that changes during training, buffers included.
        key: digest of everything that determines the training, see :func:`symtorch_core.studies.make_key`; a file of
            another training is refused.
        every: number of steps between two writes.
    """

    file: Path
    module: nn.Module
    key: str = ""
    every: int = 1000

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training with this file inside.

        Raises:
            SearchError: another process is at it.
        """
        with hold_lock(self.file.with_name(f"{self.file.name}.lock"), "this training"):
            yield

    def write(self, state: Mapping[str, Any]) -> None:
        """Write the state of the training; a warning says if the file cannot be written, as on a full disk."""
        try:
            with write_whole(self.file) as unfinished:
                torch.save({"schema": _SCHEMA, "key": self.key, **state}, unfinished)
        except (OSError, RuntimeError) as error:  # torch raises either
            warnings.warn(
                f"{self.file} was not written ({error}): the training goes on without it",
                RuntimeWarning,
                stacklevel=2,
            )

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state that was written, on a device; None if there is no file.

        Raises:
            FileFormatError: the file is damaged, or of another training.
        """
        if not self.file.exists():
            return None
        try:
            with zipfile.ZipFile(self.file) as archive:
                damaged = (
                    archive.testzip()
                )  # torch.load does not look at the checksums that torch.save writes
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of its part {damaged} is wrong")
            state: dict[str, Any] = torch.load(self.file, map_location=device, weights_only=True)
        except Exception as error:  # archives and pickles fail in many ways
            raise FileFormatError(
                f"{self.file} is damaged ({error}): delete it, and its training starts again"
            ) from None
        if state.get("schema") != _SCHEMA or state.get("key") != self.key:
            raise FileFormatError(
                f"{self.file} is a checkpoint of another training: give another folder, or remove it"
            )
        return state
