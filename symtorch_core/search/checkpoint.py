"""Finished fronts on disk, so that a stopped run can go on from where it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

from torch import Tensor

from symtorch_core.expressions import evaluate
from symtorch_core.search.front import ParetoFront
from symtorch_core.search.precision import compute_resolution
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.space import SearchSpace
from symtorch_core.storage.identity import identify
from symtorch_core.storage.locks import hold_lock
from symtorch_core.storage.store import Store, make_damage_error, make_key

_AGREES: Final = 1e-6
"""Losses that differ by this share are the same, computed on another machine."""


def identify_search(search: SearchSpace, regressor: Regressor) -> Any:
    """Return JSON data of all that decides a search besides its data, by which finished fronts are known again.

    Args:
        search: the search space.
        regressor: the backend, of which the neutral options are left out.

    Raises:
        SearchError: a loss or an option holds something that exists in this process only.
    """
    decisive = [name for name in regressor.option_names() if name not in regressor.neutral_options]
    options = {name: getattr(regressor, name) for name in decisive}
    return [
        identify(vars(search), "the search"),
        regressor.name,
        identify(options, f"the regressor {regressor.name!r}"),
    ]


@final
class FrontStore:
    """Folder with one file for each set of outputs that was searched to its end.

    Outputs that are independent of each other are sets of one. A file's name holds a digest of everything that
    determines the result (data, search, regressor, seed), so one folder can serve many runs, and fronts of other
    settings are never used.

    Args:
        folder: created if missing.
        X: inputs, shape (n, d).
        weights: shape (n,) or None.
        search: the search space.
        regressor: the backend, with its options.
        variable_names: names of the inputs.
        seed: seed of the run.

    Raises:
        SearchError: the search cannot be known again; see :func:`identify_search`.
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
        self._search, self._weights = search, None if weights is None else weights.double().cpu()
        self._columns = dict(zip(self._variables, X.double().cpu().T, strict=True))
        settings = [identify_search(search, regressor), self._variables, seed]
        self._run = make_key(settings, [X, weights])

    def _name(self, kind: str, targets: Tensor) -> str:
        return f"{kind}-{make_key(self._run, [targets])}"

    def folder(self, Y: Tensor) -> Path:
        """Return the folder a backend may use for targets of shape (n, k); it may not exist yet."""
        return self._store.folder / self._name("search", Y)

    @contextmanager
    def lock(self, Y: Tensor) -> Iterator[None]:
        """Keep other processes from the same search for targets of shape (n, k) inside.

        Raises:
            SearchError: another process is at it.
        """
        with hold_lock(self.folder(Y).with_suffix(".lock"), "the same search"):
            yield

    def load(self, Y: Tensor) -> list[ParetoFront] | None:
        """Return the finished fronts for targets of shape (n, k), or None.

        Raises:
            FileFormatError: the file exists, but does not hold fronts of these targets.
        """
        name = self._name("fronts", Y)
        entries = self._store.read_json(name)
        if entries is None:
            return None
        try:
            fronts = [ParetoFront.from_json(front, self._variables) for front in entries]
            for front, y in zip(fronts, Y.T, strict=True):
                self._check(front, y.double().cpu())
        except (ValueError, TypeError) as error:  # not fronts, or not equations in these variables
            raise make_damage_error(self._store.folder / f"{name}.json", error) from None
        return fronts

    def _check(self, front: ParetoFront, y: Tensor) -> None:
        """Refuse, with a :class:`ValueError`, a front whose figures are not those of its equations on the rows."""
        loss_function, rules = self._search.loss_function, self._search.rules
        rounding = loss_function(y + compute_resolution(y.numpy()), y, self._weights)
        for candidate in front:
            loss = loss_function(evaluate(candidate.expression, self._columns), y, self._weights)
            close = abs(loss - candidate.loss) <= _AGREES * loss + rounding
            if not close or candidate.complexity != rules.count(candidate.expression):
                raise ValueError(
                    f"{candidate} has a loss of {loss:g} on these rows and a complexity of "
                    f"{rules.count(candidate.expression)}, not {candidate.loss:g} and {candidate.complexity}"
                )

    def save(self, Y: Tensor, fronts: Sequence[ParetoFront]) -> None:
        """Write the finished fronts of targets of shape (n, k); a warning names a file that cannot be written."""
        self._store.write_json(self._name("fronts", Y), [front.to_json() for front in fronts])
