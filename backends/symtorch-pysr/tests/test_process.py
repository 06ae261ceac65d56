"""The worker's process: scripts that stand in for it, and what the parent makes of them."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from symtorch_pysr.search.process import Exit, Message, OutputLine, Silence, WorkerEvent, describe_end, listen


def collect_events(tmp_path: Path, code: str) -> list[WorkerEvent]:
    command = [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]
    with closing(listen(command, tmp_path)) as items:
        return [item for item in items if not isinstance(item, Silence)]


def test_messages_and_output_are_told_apart(tmp_path: Path) -> None:
    items = collect_events(
        tmp_path,
        """
print('{"kind": "searching", "julia": "1.11"}', flush=True)
print("Info: compiling", file=sys.stderr, flush=True)
time.sleep(0.6)
print('{"kind": "done"}', flush=True)
""",
    )
    assert Message("searching", {"julia": "1.11"}) in items
    assert OutputLine("Info: compiling") in items
    assert items[-2:] == [Message("done", {}), Exit(0)]


def test_garbage_is_output(tmp_path: Path) -> None:
    items = collect_events(tmp_path, "os.write(1, b'\\xff\\x00[1, 2]\\n{\"kind\": 3}\\n[\\n')")
    assert [type(item) for item in items] == [OutputLine, OutputLine, OutputLine, Exit]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_a_crash_is_an_end_with_its_signal(tmp_path: Path, name: str) -> None:
    items = collect_events(tmp_path, f"print('last words', flush=True); os.kill(os.getpid(), signal.{name})")
    assert items[0] == OutputLine("last words")
    assert name in describe_end(items[-1].status)
    assert ("memory" in describe_end(items[-1].status)) == (name == "SIGKILL")


def test_a_child_that_holds_the_pipes_open_does_not_hold_us(tmp_path: Path) -> None:
    started = time.monotonic()
    items = collect_events(
        tmp_path, "import subprocess; subprocess.Popen(['sleep', '60']); print('gone', flush=True)"
    )
    assert items == [OutputLine("gone"), Exit(0)]
    assert time.monotonic() - started < 30


def test_closing_kills_whatever_it_is_doing(tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    code = f"import signal, time\n{deaf}\nprint('deaf', flush=True)\ntime.sleep(60)"
    started = time.monotonic()
    with closing(listen([sys.executable, "-c", code], tmp_path)) as items:
        assert next(item for item in items if not isinstance(item, Silence)) == OutputLine("deaf")
    assert time.monotonic() - started < 30


def test_it_runs_in_the_folder_of_the_job_which_is_its_last_argument(tmp_path: Path) -> None:
    items = collect_events(tmp_path, "print(os.getcwd() == sys.argv[-1], flush=True)")
    assert items[0] == OutputLine("True")
