"""Running a worker: what it says, as a stream, and its certain end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

from symtorch_core import BackendError

_TICK = 0.25


@final
@dataclass(frozen=True)
class Told:
    """A message of the worker."""

    kind: str
    values: Mapping[str, Any]


@final
@dataclass(frozen=True)
class Printed:
    """A line that Python or Julia printed in the worker."""

    line: str


@final
@dataclass(frozen=True)
class Silence:
    """Nothing was heard for a moment."""


@final
@dataclass(frozen=True)
class Ended:
    """The worker is gone; ``status`` is its exit status, or minus the signal that killed it."""

    status: int


Heard = Told | Printed | Silence | Ended


def listen(command: Sequence[str], folder: Path) -> Generator[Heard]:
    """Start a worker and yield what is heard of it, :class:`Ended` last.

    Close the generator to end the worker: it is killed with all its children, whatever it is doing. The worker has a
    session of its own, so that Ctrl-C in the terminal reaches only this process, which then decides.

    Args:
        command: what to run; the folder becomes its last argument, and the working directory.
        folder: with the job.

    Raises:
        BackendError: the command cannot be started.
    """
    try:
        process = subprocess.Popen(
            [*command, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise BackendError(f"cannot start PySR's worker {command[0]!r}: {error}") from error
    heard: queue.Queue[Heard] = queue.Queue()
    readers = [
        _reader(process.stdout, heard, _message),
        _reader(process.stderr, heard, Printed),
    ]
    try:
        while True:
            try:
                yield heard.get(timeout=_TICK)
            except queue.Empty:
                # Not the end of the pipes: a grandchild may hold them open.
                if process.poll() is not None and not any(reader.is_alive() for reader in readers):
                    break
                if process.poll() is not None:
                    _kill(process)
                yield Silence()
        yield Ended(process.wait())
    finally:
        _kill(process)
        process.wait()
        for reader in readers:
            reader.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def describe_end(status: int) -> str:
    """An exit status in words.

    >>> describe_end(-9)
    'was killed by signal 9 (SIGKILL); the system may have run out of memory'
    """
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name if -status in {int(entry) for entry in signal.Signals} else "?"
    memory = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"was killed by signal {-status} ({name}){memory}"


def _reader(
    pipe: IO[str] | None, heard: queue.Queue[Heard], understood: Callable[[str], Heard]
) -> threading.Thread:
    assert pipe is not None

    def pump() -> None:
        for line in pipe:
            if line.strip():
                heard.put(understood(line.rstrip()))

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    return thread


def _message(line: str) -> Heard:
    """A message, or a line of output where something wrote into the wrong pipe."""
    try:
        values = json.loads(line)
    except ValueError:
        return Printed(line)
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        return Printed(line)
    return Told(values.pop("kind"), values)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the worker and what it started."""
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()
