"""Readings of replaced MLPs: each variable, equation and term with what excites it, what it writes, and a check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core import SearchError, SymbolicModel
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, Stopwatch, notify
from symtorch_llm.models.transformer import place_modules
from symtorch_llm.reading.contexts import Tally
from symtorch_llm.reading.lens import Words
from symtorch_llm.reading.passes import cut_windows, find_read_tokens, list_types, run_model, watch_blocks
from symtorch_llm.reading.readings import (
    Detail,
    EquationReading,
    LayerReading,
    SteeringReading,
    TermReading,
    VariableReading,
)
from symtorch_llm.reading.steering import (
    compare,
    draw_direction,
    evaluate_on_text,
    measure_effect,
)
from symtorch_llm.reading.streams import Streams, find_streams, list_directions
from symtorch_llm.reading.terms import Term, compute_shares, evaluate_terms, split_terms
from symtorch_llm.text import Batch

STAGE = "read"


@final
@dataclass(frozen=True, eq=False)
class _Layer:
    """Names, terms and directions of one block."""

    path: str
    block: SymbolicModel
    names: tuple[str, ...]
    equations: tuple[str, ...]
    terms: tuple[tuple[Term, ...], ...]

    @property
    def every_term(self) -> list[Term]:
        """Terms of all equations, one after another."""
        return [term for terms in self.terms for term in terms]

    @property
    def columns(self) -> list[str]:
        """Names of all columns that are counted."""
        return [*self.names, *self.equations, *(term.to_text() for term in self.every_term)]

    def compute_columns(self, z: Tensor, f: Tensor) -> Tensor:
        """Return variables, equations and terms on rows."""
        return torch.cat([z, f, evaluate_terms(self.every_term, self.names, z)], 1)


def read_layers(
    model: nn.Module,
    tokenizer: Any,
    blocks: Mapping[str, SymbolicModel],
    batches: Sequence[Batch],
    *,
    layers: Mapping[str, int],
    detail: Detail | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, LayerReading]:
    """Read the equations of replaced MLPs, by path; the model does not change.

    Args:
        model: with its own MLPs in place.
        tokenizer: of transformers.
        blocks: on equations, by path.
        batches: of tokens; one pass over all of them, and several over the first ones, in which terms are changed.
        layers: number of each block's layer, by path.
        detail: how much is read.
        callbacks: told of the stage ``"read"``.

    Raises:
        SearchError: a block does not run on equations alone or has no number, or the text has nothing to read.
    """
    detail = detail or Detail()
    known = {path: _describe(path, block) for path, block in blocks.items()}
    missing = [path for path in blocks if path not in layers]
    if missing:
        raise SearchError(
            f"no number of a layer is given for {missing}: layers={{path: number}} for every block"
        )
    if not any(bool(find_read_tokens(batch).any()) for batch in batches):
        raise SearchError("the text has no sequence of two tokens or more to read: give a longer text")
    watch = Stopwatch()
    streams = find_streams(model, tokenizer, blocks, batches)
    steered = (
        0 if streams.lens is None else sum(min(detail.steered, len(one.terms)) for one in known.values())
    )
    notify(callbacks, StageStarted(STAGE, len(batches) + steered))
    tallies = _tally(model, blocks, known, batches, detail, callbacks)
    found = {
        path: _read(one, tallies[path], streams, layers[path], tokenizer, detail)
        for path, one in known.items()
    }
    found = _steer(model, blocks, known, streams, found, batches, detail, callbacks)
    notify(callbacks, StageFinished(STAGE, watch.seconds()))
    return found


def _describe(path: str, block: SymbolicModel) -> _Layer:
    """Return names and terms of a block that runs on equations."""
    surrogate = block.surrogate
    if surrogate is None or len(block.symbolic_outputs) != block.distillation.block_outputs:
        raise SearchError(
            f"{path} does not run on equations alone: call switch_to_symbolic() for all its outputs first"
        )
    terms = tuple(map(split_terms, surrogate.expressions()))
    return _Layer(path, block, surrogate.maps().variable_names, block.distillation.equation_names, terms)


def _tally(
    model: nn.Module,
    blocks: Mapping[str, SymbolicModel],
    known: Mapping[str, _Layer],
    batches: Sequence[Batch],
    detail: Detail,
    callbacks: Sequence[Callback],
) -> dict[str, Tally]:
    """Count what all blocks compute, in one pass."""
    types = list_types(batches)
    tallies = {
        path: Tally(
            len(one.columns), len(one.names) + len(one.equations), types, detail.examples, detail.before
        )
        for path, one in known.items()
    }
    with place_modules(model, blocks), watch_blocks(blocks) as seen:
        for batch in batches:
            run_model(model, batch)
            read, windows = find_read_tokens(batch), cut_windows(batch, detail.before, detail.after)
            for path, (z, f) in seen.items():
                rows = read.flatten().to(z.device)
                columns = known[path].compute_columns(z.flatten(0, -2)[rows], f.flatten(0, -2)[rows])
                tallies[path].add(windows, columns.float().cpu())
            notify(callbacks, StageAdvanced(STAGE))
    return tallies


def _read(
    one: _Layer, tally: Tally, streams: Streams, number: int, tokenizer: Any, detail: Detail
) -> LayerReading:
    """Return the reading of one block, before any check."""
    excitations = tally.finish(one.columns, tokenizer, detail.words)
    reads, linear, writes = _find_words(one, streams, detail.words)
    lengths = _measure_lengths(one)
    variables = [
        VariableReading(*parts) for parts in zip(excitations[: len(one.names)], reads, linear, strict=True)
    ]
    equations, first = [], len(one.names) + len(one.equations)
    for place, terms in enumerate(one.terms):
        last = first + len(terms)
        shares = compute_shares(tally.covariance[first:last, first:last])
        readings = [
            TermReading(term, float(share), excitation)
            for term, share, excitation in zip(terms, shares, excitations[first:last], strict=True)
            if term.factors
        ]
        readings.sort(key=lambda reading: -abs(reading.share))
        excitation = excitations[len(one.names) + place]
        equations.append(
            EquationReading(
                excitation,
                writes[place],
                tuple(readings[: detail.terms]),
                len(terms),
                excitation.spread * lengths[place],
            )
        )
        first = last
    return LayerReading(
        one.path, number, tuple(variables), tuple(equations), (), tally.rows, tally.left_out, streams.why
    )


def _find_words(one: _Layer, streams: Streams, count: int) -> tuple[list[Words], list[Words], list[Words]]:
    """Return the words that variables read and write, and that equations write; empty ones where there are none."""
    lens, site = streams.lens, streams.sites[one.path]
    nothing = [Words() for _ in one.names], [Words() for _ in one.names], [Words() for _ in one.equations]
    if lens is None:
        return nothing
    reads, linear, writes = nothing
    down, through, up = _list_maps(one)
    if down is not None:
        reads = lens.find_read(site.before.pull(down), count)
    if through is not None:
        linear = lens.find_written(site.after.push(through), count)
    if up is not None:
        writes = lens.find_written(site.after.push(up), count)
    return reads, linear, writes


def _list_maps(one: _Layer) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the directions that variables read, those of the linear part, and those of equations, as rows."""
    assert one.block.surrogate is not None
    maps, width = one.block.surrogate.maps(), one.block.distillation.block_outputs
    down = list_directions(maps.down, len(one.names))
    # What a map reads are its rows, what it writes are its columns.
    return (
        None if down is None else down.T,
        list_directions(maps.linear, width),
        list_directions(maps.up, width),
    )


def _measure_lengths(one: _Layer) -> list[float]:
    up = _list_maps(one)[2]
    return [math.nan] * len(one.equations) if up is None else up.norm(dim=1).tolist()


def _steer(
    model: nn.Module,
    blocks: Mapping[str, SymbolicModel],
    known: Mapping[str, _Layer],
    streams: Streams,
    found: Mapping[str, LayerReading],
    batches: Sequence[Batch],
    detail: Detail,
    callbacks: Sequence[Callback],
) -> dict[str, LayerReading]:
    """Return the readings with checks of the terms that write most, where the model has words."""
    if streams.lens is None or not detail.steered:
        return dict(found)
    some = _choose_text(batches, detail.tokens)
    variables = evaluate_on_text(model, blocks, some)
    result = dict(found)
    for path, one in known.items():
        up, checks = _list_maps(one)[2], []
        if up is None:
            continue
        predicted = streams.lens.compute_effects(streams.sites[path].after.push(up))
        for place, reading in _choose_terms(found[path], detail.steered):
            values = [evaluate_terms([reading.term], one.names, z[path])[..., 0] for z in variables]
            measured, random, rows = measure_effect(
                model,
                blocks,
                path,
                reading.term,
                (up[place], draw_direction(up[place], detail.seed + place)),
                some,
                values,
                change=detail.change,
                rows=detail.rows,
            )
            notify(callbacks, StageAdvanced(STAGE))
            if not rows:  # the term is zero in this part of the text
                continue
            effect = compare(streams.lens, predicted, place, measured, random, detail.words, rows)
            named = found[path].equations[place].writes
            checks.append(SteeringReading(one.equations[place], reading.term, named, effect))
        result[path] = replace(found[path], steering=tuple(checks))
    return result


def _choose_terms(reading: LayerReading, count: int) -> list[tuple[int, TermReading]]:
    """Return the largest term of each of the equations that move the model most, and the equations' places."""
    order = sorted(range(len(reading.equations)), key=lambda place: -reading.equations[place].size)
    largest = [(place, next(iter(reading.equations[place].terms), None)) for place in order]
    return [(place, term) for place, term in largest if term is not None and term.excitation.spread > 0][
        :count
    ]


def _choose_text(batches: Sequence[Batch], tokens: int) -> list[Batch]:
    """Return the first sequences of a text, with at most so many tokens together; the first one may be cut."""
    chosen: list[Batch] = []
    for batch in batches:
        length = batch["input_ids"].shape[1]
        sequences = min(len(batch["input_ids"]), tokens // length)
        if sequences < 1:
            return chosen or [{key: value[:1, :tokens] for key, value in batch.items()}]
        chosen.append({key: value[:sequences] for key, value in batch.items()})
        tokens -= sequences * length
    return chosen
