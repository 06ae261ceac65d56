"""The ``symtorch`` command within the test process."""

from __future__ import annotations

from collections.abc import Sequence

from typer.testing import CliRunner, Result

from symtorch_core.cli import app


def run_command(arguments: Sequence[str]) -> Result:
    """Run ``symtorch`` with these arguments, and return its exit code, output and exception."""
    return CliRunner().invoke(app, list(arguments))
