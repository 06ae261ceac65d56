"""Callbacks that write logs: JSON lines and TensorBoard.

with jsonl_log("run.jsonl") as log:
    st.distill(model, X, callbacks=[log])
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from symtorch_core.errors import MissingDependencyError
from symtorch_core.events.records import (
    Callback,
    Event,
    OutputFinished,
    OutputImproved,
    OutputInterrupted,
    StageFinished,
    Stopwatch,
)


@contextmanager
def jsonl_log(path: Path | str) -> Iterator[Callback]:
    """Yield a callback that appends every event to a file, one JSON object a line, written at once.

    Each line has ``event``, the name of its class, ``elapsed`` seconds since the log was opened, ``time`` (UTC,
    ISO 8601), and the event's own fields; a front is as in a saved result.

    Args:
        path: path of the file; created if missing, continued otherwise.
    """
    watch = Stopwatch()
    with Path(path).open("a", encoding="utf-8") as file:

        def log(event: Event) -> None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = {
                "event": type(event).__name__,
                "elapsed": round(watch.seconds(), 3),
                "time": stamp,
                **_to_json(event),
            }
            file.write(json.dumps(line) + "\n")
            file.flush()

        yield log


def _to_json(event: Event) -> dict[str, Any]:
    values = {entry.name: getattr(event, entry.name) for entry in fields(event)}  # type: ignore[arg-type]
    if isinstance(event, (OutputFinished, OutputInterrupted)):
        values["front"] = event.front.to_json()
    return values


@contextmanager
def tensorboard_log(folder: Path | str) -> Iterator[Callback]:
    """Yield a callback that logs the loss and equation of each output, and its front, for TensorBoard.

    Args:
        folder: folder that TensorBoard reads.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # optional, only here
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "this log needs tensorboard. Try: pip install tensorboard", name=error.name
        ) from error
    writer = SummaryWriter(str(folder))
    steps: dict[int, int] = {}
    lowest: dict[int, float] = {}

    def log(event: Event) -> None:
        match event:
            case OutputImproved(output, equation, loss) if loss < lowest.get(output, float("inf")):
                lowest[output] = loss
                steps[output] = steps.get(output, -1) + 1
                writer.add_scalar(f"loss/output {output}", loss, steps[output])
                writer.add_text(f"equation/output {output}", f"`{equation}`", steps[output])
            case OutputFinished(output, front):
                for candidate in front:
                    writer.add_scalar(f"front/output {output}", candidate.loss, candidate.complexity)
            case StageFinished(stage, seconds):
                writer.add_scalar(f"seconds/{stage}", seconds)

    try:
        yield log
    finally:
        writer.close()
