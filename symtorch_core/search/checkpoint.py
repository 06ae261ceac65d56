"""Finished fronts on disk, so that a stopped run can go on from where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from torch import Tensor

from symtorch_core.errors import FileFormatError
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.space import SearchSpace
from symtorch_core.storage.store import Store, make_key


@final
class FrontStore:
    """Folder with one file for each finished output.

    A file's name holds a digest of everything that determines the result (data, search, regressor, seed), so one
    folder can serve many runs, and fronts of other settings are never used. The regressor's neutral options are
    left out of the digest.

    Args:
        folder: created if missing.
        X: inputs, shape (n, d).
        weights: shape (n,) or None.
        search: the search space.
        regressor: the backend, with its options.
        variable_names: names of the inputs.
        seed: seed of the run.
    """

    def __init__(
        self,
        folder: Path | str,
        X: Tensor,
        weights: Tensor | None,
        search: SearchSpace,
        regressor: Regressor,
        variable_names: Sequence[str],
        seed: int,
    ) -> None:
        self._store = Store(folder)
        self._store.folder.mkdir(parents=True, exist_ok=True)
        self._variables = tuple(variable_names)
        options = {
            n: getattr(regressor, n) for n in regressor.option_names() if n not in regressor.neutral_options
        }
        settings: list[Any] = [asdict(search), regressor.name, options, self._variables, seed]
        self._run = make_key(settings, [X, weights])

    def _name(self, kind: str, targets: Tensor) -> str:
        return f"{kind}-{make_key(self._run, [targets])}"

    def folder(self, Y: Tensor) -> Path:
        """Return the folder a backend may use for targets of shape (n, k); it may not exist yet."""
        return self._store.folder / self._name("search", Y)

    def load(self, y: Tensor) -> ParetoFront | None:
        """Return the finished front for targets of shape (n,), or None.

        Raises:
            FileFormatError: the file exists, but holds no valid front.
        """
        name = self._name("front", y)
        entries = self._store.read_json(name)
        if entries is None:
            return None
        try:
            return ParetoFront.from_json(entries, self._variables)
        except ValueError as error:  # not a front, or not equations in these variables
            raise FileFormatError(
                f"{self._store.folder / name}.json is damaged ({error}): delete it, and its output is searched again"
            ) from None

    def save(self, y: Tensor, front: ParetoFront) -> None:
        """Write a finished front; a crash while writing never leaves half a file."""
        self._store.write_json(self._name("front", y), front.to_json())
