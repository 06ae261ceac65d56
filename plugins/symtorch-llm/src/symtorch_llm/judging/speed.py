"""Speed of a model with other modules in it; variants are measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core import CaptureError
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, Stopwatch, notify
from symtorch_llm.models.transformer import get_device, place_modules


@final
@dataclass(frozen=True)
class Speed:
    """Forward passes of one model.

    Attributes:
        tokens: in each pass.
        seconds: of each pass.
    """

    tokens: int
    seconds: tuple[float, ...]

    @property
    def throughput(self) -> float:
        """Tokens per second of the median pass, which single disturbed passes do not change."""
        return self.tokens / statistics.median(self.seconds)

    @property
    def latency(self) -> float:
        """Mean seconds of a pass."""
        return statistics.fmean(self.seconds)

    @property
    def p95(self) -> float:
        """Seconds that 95 % of the passes do not exceed."""
        return float(torch.tensor(self.seconds, dtype=torch.float64).quantile(0.95))


def measure_speeds(
    model: nn.Module,
    variants: Mapping[str, Mapping[str, nn.Module]],
    ids: Tensor,
    *,
    rounds: int = 10,
    warmups: int = 2,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> dict[str, Speed]:
    """Time forward passes of the model with each variant's modules in place.

    All variants take turns in every round, so that a machine that slows down affects all of them. Passes are timed by
    the CPU's clock, on a GPU by its own events; the warm-ups are not counted.

    Args:
        model: with its own MLPs in place.
        variants: name -> modules by path; an empty mapping is the model itself.
        ids: tokens to read, shape (sequences, tokens).
        rounds: timed passes of each.
        warmups: passes before them.
        callbacks: told of the stage ``"speed"``.
        **options: of the model's forward; ``use_cache=False`` for models that would keep keys and values.
    """
    ids = ids.to(get_device(model))

    def passing(modules: Mapping[str, nn.Module]) -> Callable[[], object]:
        def once() -> object:
            with place_modules(model, modules):
                return model(input_ids=ids, **options)

        return once

    passes = {name: passing(modules) for name, modules in variants.items()}
    taken = time_in_turns(passes, ids.device, rounds=rounds, warmups=warmups, callbacks=callbacks)
    return {name: Speed(ids.numel(), seconds) for name, seconds in taken.items()}


def time_in_turns(
    passes: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int = 10,
    warmups: int = 2,
    callbacks: Sequence[Callback] = (),
) -> dict[str, tuple[float, ...]]:
    """Measure the seconds of each of several calls, which take turns; see :func:`measure_speeds`."""
    watch = Stopwatch()
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    notify(callbacks, StageStarted("speed", rounds + warmups))
    with torch.inference_mode():
        for turn in range(rounds + warmups):
            for name, call in passes.items():
                passed = _time(call, device)
                if turn >= warmups:
                    seconds[name].append(passed)
            notify(callbacks, StageAdvanced("speed"))
    notify(callbacks, StageFinished("speed", watch.seconds()))
    return {name: tuple(passed) for name, passed in seconds.items()}


def _time(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1000
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def build_token_block(tokens: Sequence[Tensor], sequences: int, length: int) -> Tensor:
    """Cut tokens into sequences of one length, shape (sequences, length); they are repeated as needed.

    Raises:
        CaptureError: there are no tokens.
    """
    stream = torch.cat(list(tokens)) if tokens else torch.empty(0, dtype=torch.long)
    if not len(stream):
        raise CaptureError("there are no tokens to measure speed on: give a text to judge on")
    wanted = sequences * length
    return stream.repeat(-(-wanted // len(stream)))[:wanted].reshape(sequences, length)
