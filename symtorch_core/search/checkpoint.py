"""Finished fronts on disk, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import final

from torch import Tensor

from symtorch_core.errors import FileFormatError
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.space import SearchSpace
from symtorch_core.storage.files import write_whole


@final
class Checkpoint:
    """A folder with a JSON file for each finished output.

    A file's name holds a digest of everything that decides the result (data, search, regressor, seed), so a
    folder may serve many runs and a changed setting never picks up old fronts. Options that the regressor
    calls neutral_options decide nothing.

    Args:
        folder: made if missing.
        X: inputs, shape (n, d).
        weights: shape (n,) or None.
        search: the search space.
        regressor: with its options.
        variable_names: names of the inputs.
        seed: of the run.
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
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._variables = tuple(variable_names)
        options = {
            n: getattr(regressor, n) for n in regressor.option_names() if n not in regressor.neutral_options
        }
        settings = [asdict(search), regressor.name, options, self._variables, seed, list(X.shape)]
        self._digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode())
        self._digest.update(_to_bytes(X))
        self._digest.update(b"" if weights is None else _to_bytes(weights))

    def _path(self, y: Tensor) -> Path:
        digest = self._digest.copy()
        digest.update(_to_bytes(y))
        return self._folder / f"front-{digest.hexdigest()[:24]}.json"

    def folder(self, Y: Tensor) -> Path:
        """Where a backend may keep files of its own for these targets, shape (n, k); it may not exist yet."""
        digest = self._digest.copy()
        digest.update(_to_bytes(Y))
        return self._folder / f"search-{digest.hexdigest()[:24]}"

    def load(self, y: Tensor) -> ParetoFront | None:
        """The finished front for these targets, shape (n,), or None.

        Raises:
            FileFormatError: there is a file, but it holds no front.
        """
        path = self._path(y)
        if not path.exists():
            return None
        try:
            return ParetoFront.from_json(json.loads(path.read_text(encoding="utf-8")), self._variables)
        except ValueError as error:  # not JSON, not a front, or not equations in these variables
            raise FileFormatError(
                f"{path} is damaged ({error}): delete it, and its output is searched again"
            ) from None

    def save(self, y: Tensor, front: ParetoFront) -> None:
        """Write a finished front; a crash while writing leaves no half file."""
        with write_whole(self._path(y)) as unfinished:
            unfinished.write_text(json.dumps(front.to_json()), encoding="utf-8")


def _to_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
