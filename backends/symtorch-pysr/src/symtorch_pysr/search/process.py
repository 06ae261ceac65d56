"""The process of a worker: its start, its messages as a stream, and its end."""

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
class Message:
    """A message of the worker."""

    kind: str
    values: Mapping[str, Any]


@final
@dataclass(frozen=True)
class OutputLine:
    """A line that Python or Julia printed in the worker."""

    line: str


@final
@dataclass(frozen=True)
class Silence:
    """A moment without messages and output."""


@final
@dataclass(frozen=True)
class Exit:
    """The end of the worker; ``status`` is its exit status, or minus the signal that killed it."""

    status: int


WorkerEvent = Message | OutputLine | Silence | Exit


def listen(command: Sequence[str], folder: Path) -> Generator[WorkerEvent]:
    """Start a worker, and yield its messages and output, with :class:`Exit` as the last.

    Closing the generator kills the worker and all its children, whatever they are doing. The worker has its own
    session, so that Ctrl-C in the terminal reaches only this process, which then decides.

    Args:
        command: the command; the folder becomes its last argument and its working directory.
        folder: the folder with the job.

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
    events: queue.Queue[WorkerEvent] = queue.Queue()
    readers = [
        _start_reader(process.stdout, events, _parse_message),
        _start_reader(process.stderr, events, OutputLine),
    ]
    try:
        while True:
            try:
                yield events.get(timeout=_TICK)
            except queue.Empty:
                # Do not wait for the end of the pipes: a grandchild may hold them open.
                if process.poll() is not None and not any(reader.is_alive() for reader in readers):
                    break
                if process.poll() is not None:
                    _kill(process)
                yield Silence()
        yield Exit(process.wait())
    finally:
        _kill(process)
        process.wait()
        for reader in readers:
            reader.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def describe_end(status: int) -> str:
    """Return an exit status in words.

    >>> describe_end(-9)
    'was killed by signal 9 (SIGKILL); the system may have run out of memory'
    """
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name if -status in {int(entry) for entry in signal.Signals} else "?"
    memory = "; the system may have run out of memory" if name == "SIGKILL" else ""
    return f"was killed by signal {-status} ({name}){memory}"


def _start_reader(
    pipe: IO[str] | None, events: queue.Queue[WorkerEvent], parse: Callable[[str], WorkerEvent]
) -> threading.Thread:
    assert pipe is not None

    def read() -> None:
        for line in pipe:
            if line.strip():
                events.put(parse(line.rstrip()))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _parse_message(line: str) -> WorkerEvent:
    """Return a message; or a line of output, if something else was written to the pipe."""
    try:
        values = json.loads(line)
    except ValueError:
        return OutputLine(line)
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        return OutputLine(line)
    return Message(values.pop("kind"), values)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the worker and its children."""
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()
