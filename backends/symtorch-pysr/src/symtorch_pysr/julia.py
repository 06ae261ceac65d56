"""Checks whether Julia is available, and advice if it is not; nothing here starts or installs it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from symtorch_core import Finding, MissingDependencyError, available
from symtorch_pysr.arguments.parameters import read_installed

_SECONDS_FOR_AN_ANSWER = 10.0
_DOWNLOAD = (
    "roughly half a gigabyte to download (Julia and PySR's Julia packages) and one to two on disk once compiled; a "
    "few minutes"
)
_GET_IT = (
    "With a network, the first search installs Julia itself. Without one, prepare an environment elsewhere and set "
    "PYTHON_JULIACALL_EXE to the julia executable and PYTHON_JULIACALL_PROJECT to a project that has PythonCall and "
    "the SymbolicRegression version that PySR requires; or set PYTHON_JULIAPKG_EXE and PYTHON_JULIAPKG_PROJECT (and "
    "PYTHON_JULIAPKG_OFFLINE=yes) for pyjuliapkg. `symtorch doctor pysr` shows what was found."
)


def make_julia_error(error: str) -> MissingDependencyError:
    """Return the error for a machine on which Julia could not be started, with all ways out.

    Args:
        error: what the worker reported.
    """
    others = [entry.name for entry in available("regressors") if entry.name != "pysr"]
    works = " or ".join(f'regressor="{name}"' for name in others)
    now = (
        f"{works} work now, without Julia."
        if others
        else 'regressor="operon" needs no Julia: pip install symtorch-operon'
    )
    return MissingDependencyError(
        f"PySR needs Julia, and Julia could not be started here ({error}). {_GET_IT} {now}", name="juliacall"
    )


def check_julia() -> tuple[Finding, ...]:
    """Return the findings that ``symtorch doctor pysr`` prints."""
    try:
        pysr = read_installed()
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
        return (*lines, *_check_given(exe, project))
    return (*lines, *_check_managed(_read_wanted_versions()))


def _check_given(exe: str | None, project: str | None) -> list[Finding]:
    """Check Julia as the user has set it up."""
    if not (exe and project):
        return [
            Finding(
                False,
                "PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT must be set together, but only one of them is set",
            )
        ]
    version = _ask_version(exe)
    return [
        Finding(version is not None, f"PYTHON_JULIACALL_EXE={exe}: {version or 'does not run'}"),
        Finding(Path(project).is_dir(), f"PYTHON_JULIACALL_PROJECT={project}"),
    ]


def _check_managed(wanted: str) -> list[Finding]:
    """Check Julia as pyjuliapkg manages it."""
    from juliapkg.state import STATE  # only reads environment variables

    meta = _read_json(Path(STATE["meta"]))
    if meta and _ask_version(str(meta.get("executable"))):
        return [
            Finding(True, f"Julia {meta.get('version')} at {meta['executable']}"),
            Finding(True, f"its packages, in {STATE['project']}"),
        ]
    exe = STATE["override_executable"] or shutil.which("julia")
    version = None if exe is None else _ask_version(exe)
    lines = [Finding(version is not None, f"{exe}: {version or 'does not run'}")] if exe else []
    if STATE["offline"]:
        return [
            *lines,
            Finding(
                False, f"PYTHON_JULIAPKG_OFFLINE is set, and {STATE['project']} is not prepared. {_GET_IT}"
            ),
        ]
    what = "PySR's Julia packages" if version else f"Julia {wanted} and PySR's Julia packages"
    return [
        *lines,
        Finding(
            False,
            f"{what} are not installed yet: the first search puts them into {STATE['project']} and {STATE['depot']} "
            f"({_DOWNLOAD}). {_GET_IT}",
        ),
    ]


def _read_wanted_versions() -> str:
    """Return the versions of Julia that the installed PySR takes."""
    found = importlib.util.find_spec("pysr")
    assert found is not None
    assert found.origin is not None
    return str(_read_json(Path(found.origin).with_name("juliapkg.json")).get("julia", ""))


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _ask_version(exe: str) -> str | None:
    try:
        done = subprocess.run(
            [exe, "--version"], capture_output=True, text=True, timeout=_SECONDS_FOR_AN_ANSWER, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
