"""Events, small records that callbacks receive, and the clock that times them."""

from __future__ import annotations

import time
import warnings
from abc import ABC
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from symtorch_core.search.front import ParetoFront


class Event(ABC):  # noqa: B024 - a family of records with nothing to implement
    """Event of a run."""


@dataclass(frozen=True)
class OutputEvent(Event, ABC):
    """Event of one output; a backend numbers the outputs it received."""

    output: int


@final
@dataclass(frozen=True)
class StageStarted(Event):
    """Start of a stage of the pipeline; ``total`` is its number of steps (batches, outputs), None if unknown."""

    stage: str
    total: int | None = None


@final
@dataclass(frozen=True)
class StageAdvanced(Event):
    """Completion of ``steps`` more steps of a stage."""

    stage: str
    steps: int = 1


@final
@dataclass(frozen=True)
class StageTold(Event):
    """Description of the present work of a stage that does not count steps (the start of a backend, say)."""

    stage: str
    text: str


@final
@dataclass(frozen=True)
class StageFinished(Event):
    """End of a stage of the pipeline, with its duration in seconds."""

    stage: str
    seconds: float


@final
@dataclass(frozen=True)
class OutputProgressed(OutputEvent):
    """Progress of the search for one output: ``fraction`` (0..1) of its largest effort."""

    fraction: float


@final
@dataclass(frozen=True)
class OutputImproved(OutputEvent):
    """A better equation for one output; the loss is the search's own estimate, perhaps on a sample of the rows.

    Backends that report ``complexity`` send every equation that is the best of its complexity so far, so that a
    callback can keep the whole front; other backends send only equations of the lowest loss.
    """

    equation: str
    loss: float
    complexity: int | None = None


@final
@dataclass(frozen=True)
class OutputFinished(OutputEvent):
    """End of the search for one output, with its front."""

    front: ParetoFront


@final
@dataclass(frozen=True)
class OutputInterrupted(OutputEvent):
    """Stop of the search for one output, by the user or by a failure, with the best front so far."""

    front: ParetoFront


@final
@dataclass(frozen=True)
class Interrupted(Event):
    """Stop of the run, by the user or by a failure; ``kept`` outputs are kept, some perhaps unfinished."""

    kept: int


Callback = Callable[[Event], None]


def notify(callbacks: Iterable[Callback], event: Event) -> None:
    """Send an event to every callback, in order.

    A callback that fails does not end the run, which may have worked for hours: a warning names it, and the others
    are called. To stop a run from a callback, raise KeyboardInterrupt: what was found so far is returned.
    """
    for callback in callbacks:
        try:
            callback(event)
        except Exception as error:
            name = getattr(callback, "__name__", type(callback).__name__)
            warnings.warn(
                f"the callback {name} failed on {type(event).__name__} ({error!r}); the run goes on",
                RuntimeWarning,
                stacklevel=2,
            )


@final
class Stopwatch:
    """Clock of wall-clock seconds since its creation."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self._start
