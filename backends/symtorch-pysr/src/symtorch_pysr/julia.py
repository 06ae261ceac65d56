"""Whether Julia is there, and what to do where it is not; nothing here starts or installs it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from symtorch_core import Finding, MissingDependencyError, available
from symtorch_pysr.parameters import installed

_SECONDS_FOR_AN_ANSWER = 10.0
_DOWNLOAD = (
    "roughly half a gigabyte to download (Julia and PySR's Julia packages) and one to two on disk once compiled; a "
    "few minutes"
)
GET_IT = (
    "With a network, the first search installs Julia by itself. Without one, prepare an environment elsewhere and set "
    "PYTHON_JULIACALL_EXE to the julia executable and PYTHON_JULIACALL_PROJECT to a project that has PythonCall and "
    "the SymbolicRegression version that PySR asks for; or set PYTHON_JULIAPKG_EXE and PYTHON_JULIAPKG_PROJECT (and "
    "PYTHON_JULIAPKG_OFFLINE=yes) for pyjuliapkg. `symtorch doctor pysr` tells what is there."
)


def no_julia(error: str) -> MissingDependencyError:
    """The one error for a machine where Julia could not be started."""
    others = [entry.name for entry in available("regressors") if entry.name != "pysr"]
    works = " or ".join(f'regressor="{name}"' for name in others)
    now = (
        f"{works} work now, without Julia."
        if others
        else 'regressor="operon" needs no Julia: pip install symtorch-operon'
    )
    return MissingDependencyError(
        f"PySR needs Julia, and Julia could not be started here ({error}). {GET_IT} {now}", name="juliacall"
    )


def findings() -> tuple[Finding, ...]:
    """What ``symtorch doctor pysr`` tells."""
    try:
        pysr = installed()
    except MissingDependencyError as error:
        return (Finding(False, str(error)),)
    lines = [
        Finding(
            True,
            f"PySR {pysr.version} (searches {'can' if pysr.takes_guesses else 'cannot'} start from equations)",
        )
    ]
    exe, project = os.environ.get("PYTHON_JULIACALL_EXE"), os.environ.get("PYTHON_JULIACALL_PROJECT")
    if exe or project:
        return (*lines, *_given(exe, project))
    return (*lines, *_managed(_wanted()))


def _given(exe: str | None, project: str | None) -> list[Finding]:
    """Julia as the user set it up."""
    if not (exe and project):
        return [
            Finding(
                False,
                "PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT must be set together, only one of them is",
            )
        ]
    version = _version_of(exe)
    return [
        Finding(version is not None, f"PYTHON_JULIACALL_EXE={exe}: {version or 'does not run'}"),
        Finding(Path(project).is_dir(), f"PYTHON_JULIACALL_PROJECT={project}"),
    ]


def _managed(wanted: str) -> list[Finding]:
    """Julia as pyjuliapkg manages it."""
    from juliapkg.state import STATE  # reads environment variables, no more

    meta = _read(Path(STATE["meta"]))
    if meta and _version_of(str(meta.get("executable"))):
        return [
            Finding(True, f"Julia {meta.get('version')} at {meta['executable']}"),
            Finding(True, f"its packages, in {STATE['project']}"),
        ]
    exe = STATE["override_executable"] or shutil.which("julia")
    version = None if exe is None else _version_of(exe)
    lines = [Finding(version is not None, f"{exe}: {version or 'does not run'}")] if exe else []
    if STATE["offline"]:
        return [
            *lines,
            Finding(
                False, f"PYTHON_JULIAPKG_OFFLINE is set, and {STATE['project']} is not prepared. {GET_IT}"
            ),
        ]
    what = "PySR's Julia packages" if version else f"Julia {wanted} and PySR's Julia packages"
    return [
        *lines,
        Finding(
            False,
            f"{what} are not installed yet: the first search puts them into {STATE['project']} and {STATE['depot']} "
            f"({_DOWNLOAD}). {GET_IT}",
        ),
    ]


def _wanted() -> str:
    """The versions of Julia that the installed PySR takes."""
    found = importlib.util.find_spec("pysr")
    assert found is not None
    assert found.origin is not None
    return str(_read(Path(found.origin).with_name("juliapkg.json")).get("julia", ""))


def _read(path: Path) -> Mapping[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _version_of(exe: str) -> str | None:
    try:
        done = subprocess.run(
            [exe, "--version"], capture_output=True, text=True, timeout=_SECONDS_FOR_AN_ANSWER, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
