"""Jobs in worker processes that finish early when they are told to stop, and never outlive this process."""

from __future__ import annotations

import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, final

from symtorch_core.errors import BackendError

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0
"""A worker that goes on for so long after it was told to stop is ended."""

Result = TypeVar("Result")


@final
@dataclass(frozen=True)
class Permit:
    """Permission to work, given to a worker: it lasts as long as a file exists and the process that gave it lives.

    Attributes:
        file: removed when the work has to stop.
        parent: number of the process that gave the permission.
    """

    file: Path
    parent: int

    def is_withdrawn(self) -> bool:
        """Return whether the work has to stop; on another machine, where there is no such folder, it never has."""
        return self.file.parent.exists() and not self.file.exists()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Do the block's work; the process ends if the work goes on for too long after the permit is withdrawn."""
        if os.getpid() == self.parent:  # joblib was told to use threads, or not to use processes here
            yield
            return
        done = threading.Event()
        threading.Thread(target=self._enforce, args=(done,), daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def _enforce(self, done: threading.Event) -> None:
        while not self.is_withdrawn():
            if done.wait(_POLL_SECONDS):
                return
        if not done.wait(_GRACE_SECONDS):
            os._exit(1)


def end_with_parent(parent: int) -> None:
    """Let this process end when another one on this machine does, in whatever way; a daemon thread looks.

    Without it, idle workers of joblib stay for minutes, and busy ones until they are done.

    Args:
        parent: the number of the process that uses this one.
    """
    if os.name != "posix":
        return
    starter = os.getppid()  # with some ways to start processes, this is another one

    def watch() -> None:
        # A process that has ended may keep its number for a while, but not its children.
        while os.getppid() == starter and _is_there(parent):
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _start_worker(parent: int) -> None:
    end_with_parent(parent)
    # Ctrl-C is for the parent, which then withdraws the permits: a worker that it ended would take the others with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@final
class Workers(Generic[Result]):
    """Results of a function on some tasks, from joblib's workers, in a context.

    A thread talks to joblib, so that Ctrl-C in the main thread does not cost the results that are under way: after
    :meth:`stop`, :meth:`results` goes on with them. At the end of the context, no worker is busy.

    Args:
        function: called with a task and a permit, which it must heed; a worker process must be able to import it.
        tasks: the tasks.
        n_jobs: number of workers, as joblib counts.
    """

    def __init__(self, function: Callable[[Any, Permit], Result], tasks: Sequence[Any], n_jobs: int) -> None:
        import joblib  # slow to import

        self._folder = tempfile.TemporaryDirectory(prefix="symtorch-jobs-")
        self._permit = Permit(Path(self._folder.name) / "permit", os.getpid())
        self._permit.file.touch()
        self._news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        # Made here, since settings of joblib's are those of a thread.
        parallel = joblib.Parallel(
            n_jobs=n_jobs,
            return_as="generator_unordered",
            initializer=_start_worker,
            initargs=(self._permit.parent,),
        )
        jobs = (
            joblib.delayed(function)(task, self._permit) for task in tasks if not self._permit.is_withdrawn()
        )
        self._thread = threading.Thread(target=self._work, args=(parallel, jobs), daemon=True)

    def _work(self, parallel: Any, jobs: Iterator[Any]) -> None:
        try:
            for result in parallel(jobs):
                self._news.put(("result", result))
        except BaseException as error:
            self._news.put(("error", error))
        finally:
            self._news.put(("end", None))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def results(self) -> Iterator[Result]:
        """Yield each result as soon as it is there.

        Raises:
            BackendError: a worker ended, or a task cannot be sent to it.
        """
        while True:
            try:
                kind, value = self._news.get(timeout=_POLL_SECONDS)  # else Windows would ignore Ctrl-C
            except queue.Empty:
                continue
            if kind == "end":
                self._news.put((kind, value))  # for the next call
                return
            if kind == "error":
                raise BackendError(f"a worker process failed with {type(value).__name__}: {value}") from value
            yield value

    def stop(self) -> None:
        """Tell the workers to stop."""
        self._permit.file.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join()
        self._folder.cleanup()
