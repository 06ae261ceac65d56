"""Where equations come from: components, data, time, versions, seed and search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from symtorch_core.activations.rows import Source
from symtorch_core.search.space import SearchSpace


@final
@dataclass(frozen=True)
class Provenance:
    """Origin of a distillation.

    Attributes:
        regressor, reducer, surrogate: names of the components used.
        source: origin of the activations.
        rows: (rows of the fit, rows held out).
        seconds: wall-clock time of each stage.
        versions: versions of the software used.
        seed: seed of every random choice.
    """

    regressor: str
    reducer: str
    surrogate: str
    source: Source = field(default_factory=Source)
    rows: tuple[int, int] = (0, 0)
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@final
@dataclass(frozen=True)
class Origin:
    """The search that some equations of a result come from.

    Attributes:
        outputs: the block's output columns whose equations it found.
        search: its search space.
        provenance: its components, data, time, versions and seed.
    """

    outputs: tuple[int, ...]
    search: SearchSpace
    provenance: Provenance
