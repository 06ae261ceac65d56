"""Events of a long run, and callbacks for them: progress bars and logs.

A callback is any function of one event. It runs in the process that called the pipeline, between steps of the
search, so it should be quick. Raising ``KeyboardInterrupt`` in it stops the search as Ctrl-C does.

>>> log = []
>>> notify([log.append], StageStarted("regress", total=2))
>>> log[0].stage
'regress'
"""

from symtorch_core.events.logs import jsonl_log, tensorboard_log
from symtorch_core.events.progress import progress_bars
from symtorch_core.events.records import (
    Callback,
    Event,
    Interrupted,
    OutputEvent,
    OutputFinished,
    OutputImproved,
    OutputInterrupted,
    OutputProgressed,
    StageAdvanced,
    StageFinished,
    StageStarted,
    StageTold,
    Stopwatch,
    notify,
)

__all__ = [
    "Callback",
    "Event",
    "Interrupted",
    "OutputEvent",
    "OutputFinished",
    "OutputImproved",
    "OutputInterrupted",
    "OutputProgressed",
    "StageAdvanced",
    "StageFinished",
    "StageStarted",
    "StageTold",
    "Stopwatch",
    "jsonl_log",
    "notify",
    "progress_bars",
    "tensorboard_log",
]
