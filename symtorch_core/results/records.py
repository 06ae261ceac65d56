"""The parts of a saved distillation, as they stand in its file: one class for each object of the JSON.

Each class lists the fields of its object, all of which a file must have, and no others.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, final

import msgspec
from msgspec import Meta, Struct

from symtorch_core.results.choosing import ChosenBy
from symtorch_core.search.fidelity import FidelityRecord
from symtorch_core.search.front import FrontRecord
from symtorch_core.storage.documents import Count, Label, Number, Width
from symtorch_core.storage.functions import FunctionRecord
from symtorch_core.surrogates.transforms import TransformsRecord

SCHEMA = 5
"""Version of the JSON form; other versions are refused."""


_Fronts = Annotated[list[FrontRecord], Meta(min_length=1)]
_Seconds = Annotated[float, Meta(ge=0)]


@final
class SearchRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of :class:`symtorch_core.SearchSpace`, which checks their values."""

    binary_operators: list[Label]
    unary_operators: list[Label]
    niterations: Count
    maxsize: Count
    parsimony: float
    complexity_of_operators: dict[Label, Count]
    complexity_of_constants: Count
    complexity_of_variables: Count | dict[Label, Count]
    constraints: dict[Label, list[int]]
    nested_constraints: dict[Label, dict[Label, Count]]
    loss: str | FunctionRecord
    timeout_in_seconds: float | None
    refine: bool


@final
class OutputFidelityRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The fidelity of one output."""

    train: FidelityRecord | None
    held_out: FidelityRecord | None
    out_of_range: FidelityRecord | None
    linear: FidelityRecord | None
    truth: FidelityRecord | None


@final
class MetricRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A task metric before and after the switch."""

    block: Number
    equations: Number


@final
class ColumnRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A column of a data frame."""

    label: Label | int
    dtype: Label


@final
class SourceRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """Origin of the rows."""

    block: Label
    rows_seen: Count
    rows_dropped: Count
    calls: Count
    scalar_output: bool
    select_input: tuple[Label, ...] | None
    select_output: Label | None
    overwrites: Label | None
    changed_inputs: tuple[Label, ...]
    set_attributes: tuple[Label, ...]
    arrays: bool
    columns: tuple[ColumnRecord, ...]


@final
class ProvenanceRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """Components, rows, time, versions and seed."""

    regressor: Label
    reducer: Label
    surrogate: Label
    source: SourceRecord
    rows: tuple[Count, Count]
    seconds: dict[Label, _Seconds]
    versions: dict[Label, Label]
    seed: Count


@final
class ChoiceRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The equation chosen from one front."""

    complexity: Count | None
    by: ChosenBy


@final
class OriginRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A search before the last one, from which equations are kept."""

    outputs: list[Count]
    search: SearchRecord
    provenance: ProvenanceRecord


@final
class RoundedRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A constant that was set to an exact number."""

    equation: Label
    before: float
    error: float
    after: float
    text: Label


@final
class DistillationRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A distillation without its tensors."""

    fronts: _Fronts
    equation_names: list[Label]
    outputs: list[Count]
    output_names: list[Label]
    block_outputs: Width
    transforms: TransformsRecord
    reduction: dict[str, Any]
    search: SearchRecord
    choices: list[ChoiceRecord]
    fidelity: list[OutputFidelityRecord]
    model_fidelity: FidelityRecord | None
    task_metric: MetricRecord | None
    interrupted: bool
    provenance: ProvenanceRecord
    earlier: list[OriginRecord]
    constant_losses: list[Number]
    rounded: list[RoundedRecord]


@final
class WrapperRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The state of a wrapped block in a checkpoint, besides its tensors."""

    schema: Literal[5]
    name: Label
    mode: Literal["block", "symbolic"]
    distillation: DistillationRecord | None
    structure: list[str]
    symbolic_outputs: list[Count]
    trainable: bool
    released: bool
    sha256: str


@final
class SavedDistillation(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file: a distillation, and tensors as safetensors in base64."""

    schema: Literal[5]
    distillation: DistillationRecord
    reduction_tensors: str
    held_out_sample: str
    sha256: str


def describe_file() -> str:
    """Return the JSON schema of a saved distillation, as text."""
    return json.dumps(msgspec.json.schema(SavedDistillation), indent=1) + "\n"
