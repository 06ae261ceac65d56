"""Events: small records of what happened, handed to plain functions; and the clock they are timed with."""

from __future__ import annotations

import time
from abc import ABC
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from symtorch_core.search.front import ParetoFront


class Event(ABC):  # noqa: B024 - a family of records with nothing to implement
    """Something that happened during a run."""


@dataclass(frozen=True)
class OutputEvent(Event):
    """Something that happened to one output, which a backend numbers among those it was given."""

    output: int


@final
@dataclass(frozen=True)
class StageStarted(Event):
    """A stage of the pipeline begins; ``total`` counts its steps (batches, outputs), None if unknown."""

    stage: str
    total: int | None = None


@final
@dataclass(frozen=True)
class StageAdvanced(Event):
    """``steps`` more steps of a stage are done."""

    stage: str
    steps: int = 1


@final
@dataclass(frozen=True)
class StageTold(Event):
    """What a stage is busy with, in words, where it does not count steps (a backend that starts, say)."""

    stage: str
    text: str


@final
@dataclass(frozen=True)
class StageFinished(Event):
    """A stage of the pipeline is over, after so many seconds."""

    stage: str
    seconds: float


@final
@dataclass(frozen=True)
class OutputProgressed(OutputEvent):
    """The search for one output has done ``fraction`` (0..1) of what it was asked to do at most."""

    fraction: float


@final
@dataclass(frozen=True)
class OutputImproved(OutputEvent):
    """The search for one output found a better equation (its own estimate, perhaps on some rows).

    Backends that tell ``complexity`` tell every equation that is the best of its complexity so far, so that a callback
    can keep the whole front; the others tell only equations of the lowest loss.
    """

    equation: str
    loss: float
    complexity: int | None = None


@final
@dataclass(frozen=True)
class OutputFinished(OutputEvent):
    """The search for one output is over, with this front."""

    front: ParetoFront


@final
@dataclass(frozen=True)
class OutputInterrupted(OutputEvent):
    """The search for one output was stopped, by the user or by a failure; the front is the best so far, kept."""

    front: ParetoFront


@final
@dataclass(frozen=True)
class Interrupted(Event):
    """The run was stopped, by the user or by a failure; so many outputs are kept, some perhaps not finished."""

    kept: int


Callback = Callable[[Event], None]


def notify(callbacks: Iterable[Callback], event: Event) -> None:
    """Hand an event to every callback, in order."""
    for callback in callbacks:
        callback(event)


@final
class Stopwatch:
    """Wall-clock seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start
