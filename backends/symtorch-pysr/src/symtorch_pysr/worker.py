"""The process in which Julia lives: ``python -m symtorch_pysr.worker FOLDER``.

Nothing here may import torch or the core (which imports torch): Julia and torch in one process can crash each other,
and Julia wants to be loaded first. The folder holds ``job.json`` and ``data.npz``; PySR writes its files beside them.
What the parent should know goes, as lines of JSON, through the standard output this process was started with; all that
Python and Julia print goes to standard error instead.
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
    """Run the job in a folder; the exit status is 0 when its search is done."""
    channel = _private_output()

    def tell(kind: str, **values: Any) -> None:
        channel.write(json.dumps({"kind": kind, **values}) + "\n")
        channel.flush()

    _die_with_parent()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    tell("starting")
    # A network that swallows packets must not hold up the message that there is no Julia.
    socket.setdefaulttimeout(_SECONDS_FOR_AN_ANSWER)
    try:
        import pysr  # loads Julia before anything else, and installs it where it is missing
    except (Exception, SystemExit) as error:
        tell("no julia", error=f"{type(error).__name__}: {error}")
        return 1
    try:
        model = _without_exports(pysr.PySRRegressor)(**_with_tuples(job["init"]), **_mappings(job["defined"]))
        X, y, weights = _data(folder / "data.npz")
        tell("searching", pysr=pysr.__version__, julia=str(pysr.jl.VERSION))
        model.fit(X, y, weights=weights, **job["fit"])
    except Exception as error:
        tell("failed", error=f"{type(error).__name__}: {error}")
        return 1
    tell("done")
    return 0


def _private_output() -> TextIO:
    """The standard output we were given, out of reach for everybody else."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def _die_with_parent() -> None:
    """End when the parent is gone, however it went, so that no search runs on for nobody."""

    def wait_for_the_end() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    if sys.platform == "linux":  # where PySR 1.5 searches, no thread of Python's runs
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _without_exports(regressor: Any) -> Any:
    """PySR's class, without the translation of what was found to sympy, which fails for some operators.

    The parent reads the tables that Julia writes.
    """

    class Search(regressor):
        def get_hof(self, *args: Any, **kwargs: Any) -> None:
            return None

    return Search


def _with_tuples(init: dict[str, Any]) -> dict[str, Any]:
    """Limits of two arguments as tuples, which JSON does not have and PySR asks for."""
    if "constraints" not in init:
        return init
    limits = {
        name: tuple(most) if isinstance(most, list) else most for name, most in init["constraints"].items()
    }
    return {**init, "constraints": limits}


def _mappings(defined: list[str]) -> dict[str, Any]:
    """PySR wants a sympy function for every function that we define; ours only carry the name."""
    if not defined:
        return {}
    import sympy

    return {"extra_sympy_mappings": {name: sympy.Function(name) for name in defined}}


def _data(path: Path) -> tuple[Any, Any, Any]:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return arrays["X"], arrays["y"], arrays.get("weights")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
