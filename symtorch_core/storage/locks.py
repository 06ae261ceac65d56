"""Locks between processes, so that no two do the same work in one folder at the same time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from symtorch_core.errors import SearchError


@contextmanager
def hold_lock(path: Path, work: str) -> Iterator[None]:
    """Hold a lock inside, as a file that the system unlocks when this process ends, in whatever way.

    The file stays, empty: to remove it could give two processes the lock at once.

    Args:
        path: the file.
        work: what is done under the lock, for the message: ``"this search"``.

    Raises:
        SearchError: another process or thread holds it.
    """
    from filelock import FileLock, Timeout  # here, since most imports of the core need no lock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SearchError(
            f"another run is doing {work} in {path.parent} now (it holds {path.name}): wait for its end or stop it, "
            "or give another folder"
        ) from None
    except NotImplementedError as error:  # some network drives have no locks
        warnings.warn(
            f"{path.parent} cannot be locked ({error}): do not start {work} twice there",
            RuntimeWarning,
            stacklevel=3,
        )
    try:
        yield
    finally:
        lock.release()
