"""Pages of what was read of each layer: its variables, its equations by their terms, and the check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from symtorch_core.studies import Page, Part, Section, Table, Text
from symtorch_llm.reading.contexts import Example, Excitation
from symtorch_llm.reading.readings import LayerReading
from symtorch_llm.reading.terms import name_term

_LABEL_TOKENS = 2
_SHOWN = 5
_CONTEXTS = 4
_TERM_CONTEXTS = 2
_MOST = 24
_MARKS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}

_GUIDE = (
    "Each equation is a sum of terms in the variables z, and moves what the layer adds to the model along one "
    "direction. High on, low on: tokens with the largest and smallest means. By token: the share of the variance that "
    "the token alone explains, whatever stands before it. Reads: words whose embeddings lie along the direction that a "
    "variable reads, beside the mean embedding. Raises, lowers: words whose logits a direction moves most through the "
    "final norm and the head (the logit lens), without what later layers make of it. Words are those of the text that "
    "was read. The first token of each sequence is left out: it is an attention sink."
)
_STEERING = (
    "The check: the largest term of an equation is scaled in the running model. The rank correlation is that of the "
    "predicted effect on each word of the vocabulary with the mean change of its log probability, at the tokens where "
    "the term is largest. Named words change by so many nats more than all words do. A term follows if its correlation "
    "is above both controls, the change that a random direction of the same size makes and the words of the layer's "
    "other equations, and if the named words go apart, further than along the random direction."
)


def write_layer_pages(readings: Mapping[str, LayerReading], folder: Path) -> list[Path]:
    """Write a page for each layer, ``layer-NUMBER.html``, and return their paths."""
    return [
        build_layer_page(reading).write(folder / f"layer-{reading.layer}.html")
        for reading in readings.values()
    ]


def build_layer_page(reading: LayerReading) -> Page:
    """Return the page of a layer: how to read it, its variables, equations and terms, and the check."""
    guide = Section("How to read this page", (Text(_GUIDE), Text(_STEERING)))
    return Page(f"Layer {reading.layer}: {reading.path}", "", (_build_section(reading), guide))


def _build_section(reading: LayerReading) -> Section:
    left_out = f"; {reading.left_out:,} left out, where equations are not finite" if reading.left_out else ""
    parts: list[Part] = [
        Text(
            f"{len(reading.equations)} equations in {len(reading.variables)} variables, read on {reading.tokens:,} "
            f"tokens{left_out}."
        )
    ]
    if reading.why_no_words:
        parts.append(Text(f"No words are shown: {reading.why_no_words}.", is_warning=True))
    parts += [tabulate_variables(reading), tabulate_equations(reading), tabulate_terms(reading)]
    if reading.steering:
        parts.append(tabulate_steering(reading))
    parts.append(tabulate_contexts(reading))
    return Section("Variables, equations and terms", tuple(parts), f"layer-{reading.layer}")


def tabulate_variables(reading: LayerReading) -> Table:
    """Return the glossary of the variables."""
    rows = tuple(
        (
            *_describe(variable.excitation),
            show_words(variable.reads.up[:_SHOWN]),
            show_words(variable.writes.up[:_SHOWN]),
            show_words(variable.writes.down[:_SHOWN]),
        )
        for variable in reading.variables
    )
    headings = ("variable", "high on", "low on", "by token", "reads", "linear part raises", "lowers")
    return Table(headings, rows, "The variables", numbers=False)


def tabulate_equations(reading: LayerReading) -> Table:
    """Return the glossary of the equations."""
    rows = tuple(
        (*_describe(equation.excitation), show_words(equation.writes.up), show_words(equation.writes.down))
        for equation in reading.equations
    )
    headings = ("equation", "high on", "low on", "by token", "raises", "lowers")
    return Table(headings, rows, "The equations", numbers=False)


def tabulate_terms(reading: LayerReading) -> Table:
    """Return the largest terms of each equation, with what their variables are about."""
    labels = label_variables(reading)
    rows = tuple(
        (
            equation.excitation.name if number == 0 else "",
            f"{term.share:.0%}" if math.isfinite(term.share) else "",
            name_term(term.term, labels),
            show_examples(term.excitation.most[:_TERM_CONTEXTS]),
            show_examples(term.excitation.least[:_TERM_CONTEXTS]),
        )
        for equation in reading.equations
        for number, term in enumerate(equation.terms)
    )
    return Table(
        ("equation", "share", "term", "largest at", "smallest at"),
        rows,
        "The largest terms, with their share in the variance of their equation",
        numbers=False,
    )


def tabulate_steering(reading: LayerReading) -> Table:
    """Return what the model's words did when terms changed."""
    rows = tuple(
        (
            f"{steered.equation}: {steered.term.to_text()}",
            show_words(steered.named.up),
            show_words(steered.named.down),
            f"{steered.effect.agreement:.2f}",
            f"{steered.effect.random:.2f}",
            f"{steered.effect.others:.2f}" if math.isfinite(steered.effect.others) else "",
            f"{steered.effect.raised:+.3f}",
            f"{steered.effect.lowered:+.3f}",
            "yes" if steered.effect.holds else "NO",
        )
        for steered in reading.steering
    )
    headings = (
        "term",
        "should raise",
        "should lower",
        "rank correlation",
        "random direction",
        "other equations",
        "first change by, nats",
        "second",
        "follows",
    )
    return Table(headings, rows, "Terms changed in the running model", numbers=False)


def tabulate_contexts(reading: LayerReading) -> Table:
    """Return where each variable and each equation is largest and smallest."""
    excitations = [one.excitation for one in reading.variables] + [
        one.excitation for one in reading.equations
    ]
    rows = tuple(
        (
            f"{one.name} ({one.mean:.2g} ± {one.spread:.2g})",
            show_examples(one.most[:_CONTEXTS]),
            show_examples(one.least[:_CONTEXTS]),
        )
        for one in excitations
    )
    caption = (
        "«Tokens» in their contexts, with the values there; in brackets the mean and the standard deviation"
    )
    return Table(("", "largest at", "smallest at"), rows, caption, numbers=False)


def label_variables(reading: LayerReading) -> dict[str, str]:
    """Return what each variable is about in a few words: tokens that it is high on, against those that it is low on."""
    return {
        variable.excitation.name: " against ".join(
            show_words(tokens[:_LABEL_TOKENS]) for tokens in _list_tokens(variable.excitation)
        )
        for variable in reading.variables
    }


def _list_tokens(excitation: Excitation) -> tuple[Sequence[str], Sequence[str]]:
    """Return the tokens that a number is high and low on; those of single places in a text with few tokens."""
    most, least = (
        tuple(dict.fromkeys(example.token for example in examples))
        for examples in (excitation.most, excitation.least)
    )
    return excitation.tokens_most or most, excitation.tokens_least or least


def _describe(excitation: Excitation) -> tuple[str, str, str, str]:
    """Return name, tokens on both sides, and what the token alone explains."""
    high, low = (show_words(tokens[:_SHOWN]) for tokens in _list_tokens(excitation))
    known = "" if math.isnan(excitation.by_token) else f"{max(0.0, excitation.by_token):.0%}"
    return excitation.name, high, low, known


def show_words(words: Sequence[str]) -> str:
    """Return words with a comma between them."""
    return ", ".join(show_token(word) for word in words)


def show_token(token: str) -> str:
    """Return a token with marks for spaces and line breaks, shortened if it is long; in quotes if it has no letters.

    >>> show_token(" the"), show_token(" ,"), show_token("\\n\\n")
    ('·the', '‘·,’', '‘⏎⏎’')
    """
    shown = _mark(token[:_MOST] + ("…" if len(token) > _MOST else ""), space="·")
    return shown if any(map(str.isalnum, shown)) else f"‘{shown}’"


def show_examples(examples: Sequence[Example]) -> str:
    """Return tokens in their contexts, each with its value.

    >>> show_examples([Example(2.5, "One day,\\n", " Tim", " ran")])
    '2.5: One day,⏎« Tim» ran'
    """
    return " | ".join(
        f"{example.value:.2g}: {_mark(example.before)}«{_mark(example.token)}»{_mark(example.after)}"
        for example in examples
    )


def _mark(text: str, space: str = " ") -> str:
    """Return text with marks for line breaks, tabs and unusual spaces."""
    shown = (
        _MARKS.get(c, space if c == " " else c.encode("unicode_escape").decode() if c.isspace() else c)
        for c in text
    )
    return "".join(shown)
