"""Give damaged and hostile input to everything that reads, and report what is not refused as it should be.

python tests/fuzz/fuzz.py                             # every target, a minute in all
python tests/fuzz/fuzz.py --seconds 3600 --jobs 2     # an hour, as `make fuzz`
python tests/fuzz/fuzz.py --target texts --seed 7 --only 123  # one input again

An input may be refused by an error of the framework, whose message is short. Anything else is a fault: another
exception, more than two seconds of computing, more than 200 MB, other numbers than before, or a text that was executed.
Prints the number of inputs and every fault with the seed and number that make it again; the exit code is 1 if there is
one.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

SECONDS_EACH: Final = 2.0
MEGABYTES_EACH: Final = 200
MOST_FAULTS: Final = 10
_STATUS = Path("/proc/self/status")
_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
)


class Hang(BaseException):
    """The input takes too long; no ``except Exception`` may catch this."""


class Guard:
    """What watches while an input is used: time, memory, and whether something was executed."""

    def __init__(self) -> None:
        self.watching = False
        self.executed: list[str] = []
        sys.addaudithook(self._hear)
        signal.signal(signal.SIGPROF, self._stop)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and (event in _FORBIDDEN or (event == "import" and "canary" in str(arguments[0]))):
            self.executed.append(f"{event} {arguments[:1]}")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {SECONDS_EACH:g} s")

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch inside the context.

        Raises:
            Hang: the time is up.
            AssertionError: too much memory was used, or something was executed.
        """
        self.executed.clear()
        before = _reset_peak()
        signal.setitimer(signal.ITIMER_PROF, SECONDS_EACH)
        self.watching = True
        try:
            yield
        finally:
            self.watching = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        used = (_read_status("VmHWM") - before) / 1024
        if used > MEGABYTES_EACH:
            raise AssertionError(f"{used:.0f} MB of memory")
        if self.executed:
            raise AssertionError(f"something was executed: {self.executed}")


def _reset_peak() -> int:
    """Return the memory in use in kB, from which the peak is counted anew."""
    if not _STATUS.exists():
        return 0
    Path("/proc/self/clear_refs").write_text("5")
    return _read_status("VmRSS")


def _read_status(name: str) -> int:
    if not _STATUS.exists():  # other systems do not tell
        return 0
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(name))


def fuzz(name: str, seconds: float, seed: int, only: int | None, most: int | None) -> int:
    """Fuzz one target for some seconds, print what is wrong, and return the number of faults."""
    import numpy as np
    import torch
    from targets import MOST, check_that, make_target

    import symtorch_core as st

    torch.set_num_threads(1)
    guard = Guard()
    count = refused = faults = 0
    slowest = 0.0
    numbers = range(10**9) if only is None else [only]
    with tempfile.TemporaryDirectory(prefix="symtorch-fuzz-") as folder:
        target = make_target(name, Path(folder))
        end = time.monotonic() + seconds
        for number in numbers:
            if time.monotonic() > end or faults >= MOST_FAULTS or (most is not None and count >= most):
                break
            given = target.make(np.random.default_rng([seed, number]))
            count += 1
            started = time.monotonic()
            try:
                with guard.watch():
                    try:
                        target.run(given)
                    except st.SymTorchError as error:
                        refused += 1
                        check_that(len(str(error)) <= MOST, f"a message of {len(str(error))} characters")
            except (Exception, Hang):
                faults += 1
                print(f"FAULT {name} --seed {seed} --only {number}: {given!r:.2000}")
                print("".join(traceback.format_exc(limit=-6)), flush=True)
            slowest = max(slowest, time.monotonic() - started)
    print(f"{name}: {count} inputs, {refused} refused, {faults} faults, slowest {slowest:.2f} s", flush=True)
    return faults


def main() -> int:
    """Fuzz the targets, each in a process of its own, and return the exit code."""
    sys.path.insert(0, str(Path(__file__).parent))
    from targets import TARGETS

    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--target", choices=TARGETS, help="only this one")
    options.add_argument(
        "--seconds", type=float, default=60.0, help="time for all targets together, on one core"
    )
    options.add_argument("--inputs", type=int, help="stop each target after so many inputs")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", type=int, help="number of the one input to try")
    options.add_argument("--jobs", type=int, default=1, help="processes at a time")
    chosen = options.parse_args()
    if chosen.target:
        return min(1, fuzz(chosen.target, chosen.seconds, chosen.seed, chosen.only, chosen.inputs))
    each = chosen.seconds * chosen.jobs / len(TARGETS)
    waiting, running, failed = list(TARGETS), [], False
    while waiting or running:
        while waiting and len(running) < chosen.jobs:
            command = [sys.executable, __file__, "--target", waiting.pop(0), "--seconds", str(each)]
            command += ["--seed", str(chosen.seed)]
            command += [] if chosen.inputs is None else ["--inputs", str(chosen.inputs)]
            running.append(subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}))
        failed |= running.pop(0).wait() != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
