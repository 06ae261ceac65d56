"""The process that runs Julia: ``python -m symtorch_pysr.worker FOLDER``.

This module must not import torch or the core (which imports torch): Julia and torch in one process can crash each
other, and Julia must be loaded first. The folder holds ``job.json`` and ``data.npz``; PySR writes its files there.
Messages for the parent are lines of JSON on the standard output with which this process was started. Everything that
Python and Julia print goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

_SECONDS_FOR_AN_ANSWER = 20.0
_PR_SET_PDEATHSIG = 1


def main(folder: Path) -> int:
    """Run the job in a folder, and return the exit status: 0 if the search is done."""
    channel = _take_output()

    def send(kind: str, **values: Any) -> None:
        channel.write(json.dumps({"kind": kind, **values}) + "\n")
        channel.flush()

    _watch_parent()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    send("starting")
    # A network that drops packets must not delay the message that there is no Julia.
    socket.setdefaulttimeout(_SECONDS_FOR_AN_ANSWER)
    try:
        import pysr  # loads Julia before anything else, and installs it if it is missing
    except (Exception, SystemExit) as error:
        send("no julia", error=f"{type(error).__name__}: {error}")
        return 1
    try:
        model = _drop_exports(pysr.PySRRegressor)(
            **_restore_tuples(job["init"]), **_make_mappings(job["defined"])
        )
        X, y, weights = _read_data(folder / "data.npz")
        send("searching", pysr=pysr.__version__, julia=str(pysr.jl.VERSION))
        model.fit(X, y, weights=weights, **job["fit"])
    except Exception as error:
        send("failed", error=f"{type(error).__name__}: {error}")
        return 1
    send("done")
    return 0


def _take_output() -> TextIO:
    """Return the standard output, and redirect all other output to standard error."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def _watch_parent() -> None:
    """End this process when the parent has ended, in whatever way."""

    def wait_for_the_end() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    if sys.platform == "linux":  # while PySR 1.5 searches, no Python thread runs
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _drop_exports(regressor: Any) -> Any:
    """Return PySR's class without the translation of equations to sympy, which fails for some operators.

    The parent reads the tables that Julia writes.
    """

    class Search(regressor):
        def get_hof(self, *args: Any, **kwargs: Any) -> None:
            return None

    return Search


def _restore_tuples(init: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with limits of two arguments as tuples, which PySR requires and JSON does not have."""
    if "constraints" not in init:
        return init
    limits = {
        name: tuple(most) if isinstance(most, list) else most for name, most in init["constraints"].items()
    }
    return {**init, "constraints": limits}


def _make_mappings(defined: list[str]) -> dict[str, Any]:
    """Return a sympy function for every function that we define, as PySR requires; it only has the name."""
    if not defined:
        return {}
    import sympy

    return {"extra_sympy_mappings": {name: sympy.Function(name) for name in defined}}


def _read_data(path: Path) -> tuple[Any, Any, Any]:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return arrays["X"], arrays["y"], arrays.get("weights")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
