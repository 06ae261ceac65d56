"""Text as the layers from the first replaced one on see it: what the original model made of it, kept on disk.

Whatever replaces an MLP changes nothing below its layer. The hidden states that enter the first layer with a replaced
MLP are therefore computed once, by the original model, and every later pass over the same text starts there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from symtorch_core import Activations, FileFormatError, capture, find_block
from symtorch_core.events import (
    Callback,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Stopwatch,
    notify,
)
from symtorch_core.studies import Store, make_key
from symtorch_llm.models.tasks import Task
from symtorch_llm.models.transformer import get_device
from symtorch_llm.text import Batch

_HIDDEN: Final = "hidden"
_SIDES: Final = ("inputs", "outputs")
_CLOSE: Final = 1e-3  # of the spread of the outputs; passes that start higher up compute the same numbers


@final
@dataclass(frozen=True)
class Entry:
    """The layer at which passes start.

    Attributes:
        stack: path of the list of layers.
        number: of the layer in it.
        tupled: whether layers return their hidden states as the first of a tuple.
    """

    stack: str
    number: int
    tupled: bool = False


@final
@dataclass(frozen=True)
class Measured:
    """What a model is worth on a text.

    Attributes:
        score: of the task; lower is better.
        distance: mean distance of its outputs from those of the original model.
    """

    score: float
    distance: float


@final
@dataclass(frozen=True, eq=False)
class Passages:
    """Batches of text, and what the original model made of each.

    Attributes:
        model: whose modules may be others by now.
        task: says which outputs count.
        batches: of tokens.
        entry: where passes start; None at the beginning, as for models whose layers cannot be entered.
        store: where hidden states and the original's outputs are kept.
        names: of each batch in the store.
        key: of the model and its weights.
    """

    model: nn.Module
    task: Task
    batches: Sequence[Batch]
    entry: Entry | None
    store: Store
    names: Sequence[str]
    key: str = ""

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def tokens(self) -> int:
        """Number of tokens, without padding."""
        return sum(int(batch["attention_mask"].sum()) for batch in self.batches)

    def take(self, numbers: Sequence[int]) -> Passages:
        """Return the passages of these numbers."""
        return replace(
            self, batches=[self.batches[n] for n in numbers], names=[self.names[n] for n in numbers]
        )

    def with_text(self, batches: Sequence[Batch]) -> Passages:
        """Return passages over other text, which start at the same layer."""
        where = None if self.entry is None else vars(self.entry)
        names = [
            f"passage-{make_key([self.key, self.task.name, where], list(batch.values()))}"
            for batch in batches
        ]
        return replace(self, batches=batches, names=names)

    def visit(self, number: int) -> None:
        """Run the original model over one batch, and keep what later passes need; what is kept is not computed again.

        Modules that are watched see the batch in any case, from the entry on.
        """
        with torch.no_grad():
            if self.store.has_tensors(self.names[number]):
                self.compute_outputs(number)
                return
            batch = self.batches[number]
            if self.entry is None:
                kept = self.task.keep(self.task.compute_outputs(self.model, batch), batch)
            else:
                hidden, outputs = _watch(self.model, self.task, batch, self.entry)
                kept = {_HIDDEN: hidden, **self.task.keep(outputs, batch)}
            self.store.write_tensors(self.names[number], kept)

    def compute_outputs(self, number: int) -> Tensor:
        """Return the outputs for one batch of the model as it is now, from the entry on."""
        return self._run(number, {} if self.entry is None else self._read(number))

    def compute_distance(self, number: int) -> Tensor:
        """Return the distance of the model's outputs for one batch from the original's, a tensor of one number."""
        kept = self._read(number)
        return self.task.compute_distance(self._run(number, kept), self.batches[number], kept)

    def measure(self) -> Measured:
        """Return how good the model as it is now is on this text, and how far from the original."""
        loss, size, distance = 0.0, 0, 0.0
        with torch.inference_mode():
            for number, batch in enumerate(self.batches):
                kept = self._read(number)
                outputs = self._run(number, kept)
                part, count = self.task.measure(outputs, batch, kept)
                loss, size = loss + part, size + count
                distance += float(self.task.compute_distance(outputs, batch, kept)) * count
        return Measured(self.task.compute_score(loss / size), distance / size)

    def score(self) -> float:
        """Return the score of the model as it is now on this text."""
        return self.measure().score

    def read_original(self, number: int) -> dict[str, Tensor]:
        """Return what is kept of the original model's outputs for one batch."""
        return {key: value for key, value in self._read(number).items() if key != _HIDDEN}

    def _run(self, number: int, kept: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs for one batch, from the hidden states that are kept of it on."""
        if self.entry is None:
            return self.task.compute_outputs(self.model, self.batches[number])
        with enter(self.model, self.entry, kept[_HIDDEN].to(get_device(self.model))):
            return self.task.compute_outputs(self.model, self.batches[number])

    def _read(self, number: int) -> dict[str, Tensor]:
        found = self.store.read_tensors(self.names[number])
        if found is None:
            raise FileFormatError(
                f"{self.names[number]} is not in {self.store.folder} any more, or could not be written: run it again"
            )
        return found[0]


def prepare_passages(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    folder: Path,
    *,
    first: str | None = None,
    key: str = "",
) -> Passages:
    """Prepare passages over batches of text; nothing is read yet, but for one sequence to see where passes may start.

    Args:
        model: with its own modules in place.
        task: says what is kept of the outputs.
        batches: of tokens.
        folder: where files go, one for each batch.
        first: path of the first module that will be replaced; passes start at its layer. None for whole passes.
        key: of the model and its weights.
    """
    entry = None if first is None else _choose_entry(model, task, batches[0], find_entry(model, first))
    return Passages(model, task, (), entry, Store(folder), (), key).with_text(batches)


def read_passages(passages: Passages, callbacks: Sequence[Callback] = ()) -> None:
    """Let the original model read text, and keep what later passes need; a stopped reading goes on where it was.

    Args:
        passages: of the original model, with its own modules in place.
        callbacks: told of the stage ``"keep"``.
    """
    watch = Stopwatch()
    notify(callbacks, StageStarted("keep", len(passages)))
    for number, name in enumerate(passages.names):
        if not passages.store.has_tensors(name):
            passages.visit(number)
        notify(callbacks, StageAdvanced("keep"))
    notify(callbacks, StageFinished("keep", watch.seconds()))


def capture_rows(
    passages: Passages,
    modules: Mapping[str, nn.Module],
    *,
    most: int,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Activations]:
    """Let the original model read text; return rows of modules, by path, in float32.

    Args:
        passages: of the original model, with its own modules in place; what they need is kept in the same pass.
        modules: of the model, by path.
        most: largest number of rows of each; a seeded sample of all tokens, padding excepted.
        seed: of the sample.
        callbacks: told of the stage ``"capture"``.

    Raises:
        CaptureError: a module gave no rows.
    """
    key = make_key(["rows", most, seed, list(modules), list(passages.names)])
    kept = passages.store.read_tensors(f"rows-{key}")
    if kept is None:
        batches = [
            {"number": torch.tensor(number), "attention_mask": batch["attention_mask"]}
            for number, batch in enumerate(passages.batches)
        ]
        rows: dict[str, Activations] = capture(
            _Reader(passages), modules, batches, max_rows=most, seed=seed, callbacks=callbacks
        )
        passages.store.write_tensors(
            f"rows-{key}",
            {f"{path}.{side}": getattr(some, side) for path, some in rows.items() for side in _SIDES},
        )
        return rows
    return {path: Activations.of(*(kept[0][f"{path}.{side}"] for side in _SIDES)) for path in modules}


@final
class _Reader(nn.Module):
    """The original model as a function of a batch's number, which can be captured."""

    def __init__(self, passages: Passages) -> None:
        super().__init__()
        self.model = passages.model
        self._passages = passages

    def forward(self, number: Tensor, attention_mask: Tensor) -> None:
        """Read one batch; the mask is what rows are chosen by."""
        self._passages.visit(int(number))


def find_entry(model: nn.Module, path: str) -> Entry | None:
    """Return the layer that holds the module at a path, as an entry; None where it is in no list of layers.

    >>> model = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict({"mlp": nn.Identity()}) for _ in range(3))})
    >>> find_entry(model, "layers.2.mlp")
    Entry(stack='layers', number=2, tupled=False)
    """
    parts = path.split(".")
    for length in range(1, len(parts)):
        stack = find_block(model, ".".join(parts[:length]))
        if isinstance(stack, nn.ModuleList):
            return Entry(".".join(parts[:length]), int(parts[length]))
    return None


@contextmanager
def enter(model: nn.Module, entry: Entry, hidden: Tensor) -> Iterator[None]:
    """Let passes of a model start at a layer with these hidden states, inside: the layers below return at once."""
    stack = find_block(model, entry.stack)
    assert isinstance(stack, nn.ModuleList)
    below = list(stack[: entry.number])
    before = [vars(layer).get("forward") for layer in below]

    def pass_on(hidden_states: Any, *args: Any, **options: Any) -> Any:
        return (hidden_states,) if entry.tupled else hidden_states

    def put_in(layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        return ((hidden, *args[1:]), options) if args else (args, {**options, "hidden_states": hidden})

    handle = stack[entry.number].register_forward_pre_hook(put_in, with_kwargs=True)
    try:
        for layer in below:
            vars(layer)["forward"] = pass_on
        yield
    finally:
        handle.remove()
        for layer, own in zip(below, before, strict=True):
            vars(layer).pop("forward", None)
            if own is not None:
                vars(layer)["forward"] = own


def _choose_entry(model: nn.Module, task: Task, batch: Batch, entry: Entry | None) -> Entry | None:
    """Return the entry if passes from there give what whole passes give, else None: models differ in their layers."""
    if entry is None or entry.number == 0:
        return None
    short = {name: value[:1] for name, value in batch.items()}
    with torch.no_grad():
        hidden, whole = _watch(model, task, short, entry)
        for tried in (entry, replace(entry, tupled=True)):
            try:
                with enter(model, tried, hidden):
                    again = task.compute_outputs(model, short)
            except Exception:
                continue
            if float((again - whole).abs().max()) <= _CLOSE * float(whole.float().std()):
                return tried
    return None


def _watch(model: nn.Module, task: Task, batch: Batch, entry: Entry) -> tuple[Tensor, Tensor]:
    """Return the hidden states that enter a layer, and the outputs."""
    seen: list[Tensor] = []

    def watch(layer: nn.Module, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        seen.append(args[0] if args else options["hidden_states"])

    layer = find_block(model, f"{entry.stack}.{entry.number}")
    handle = layer.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        outputs = task.compute_outputs(model, batch)
    finally:
        handle.remove()
    return seen[0], outputs
