"""Text as batches of tokens."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from symtorch_core import CaptureError

PAPER_LENGTH = 1048
"""Tokens of a chunk in the SymTorch paper (equation 4)."""

Batch = dict[str, Tensor]
"""``input_ids`` and ``attention_mask``, each of shape (sequences, tokens); padded at the right."""


@final
@dataclass(frozen=True)
class Parts:
    """Sequences of tokens, in parts that share no text.

    Attributes:
        fit: to fit and tune on.
        stop: to stop and choose by.
        judged: other text, by name: what nothing was fitted to or chosen by, and what else is judged.
    """

    fit: list[Tensor]
    stop: list[Tensor]
    judged: dict[str, list[Tensor]]


def drop_blank_lines(text: str) -> str:
    """Return a text without its blank lines.

    >>> drop_blank_lines("a\\n \\n\\nb\\n")
    'a\\nb'
    """
    return "\n".join(line for line in text.split("\n") if line.strip())


def split_documents(text: str, opening: str = "") -> list[str]:
    """Split a text into documents.

    Args:
        text: paragraphs, with blank lines between them.
        opening: a regular expression for the beginnings of documents; it must match the first paragraph of each
            document, and no other. If empty, the text is one document.

    >>> split_documents("Once a fox ran.\\n\\nIt hid.\\n\\nOnce a hen sat.", "Once")
    ['Once a fox ran.\\n\\nIt hid.', 'Once a hen sat.']

    Raises:
        CaptureError: the regular expression is invalid.
    """
    if not opening:
        return [text]
    try:
        starts = re.compile(opening)
    except re.error as error:
        raise CaptureError(f"opening={opening!r} is not a regular expression: {error}") from None
    found: list[list[str]] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if not found or starts.match(paragraph):
            found.append([])
        found[-1].append(paragraph)
    return ["\n\n".join(paragraphs) for paragraphs in found]


def find_mark(tokenizer: Any, always: bool = False) -> int | None:
    """Return the token that sequences begin with; None for none.

    Args:
        tokenizer: of transformers. Some put a mark before each text, as their models expect it, and some do not though
            they have one.
        always: take the mark of those too.

    Raises:
        CaptureError: the tokenizer has no such token, and it must be taken.
    """
    mark: int | None = tokenizer.bos_token_id
    if always and mark is None:
        raise CaptureError("the tokenizer has no token for the beginning of a text: leave mark out")
    return mark if always or (mark is not None and tokenizer("")["input_ids"][:1] == [mark]) else None


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    length: int,
    *,
    whole: bool = False,
    framed: bool = False,
    mark: int | None = None,
) -> list[Tensor]:
    """Return token sequences of at least two tokens.

    Args:
        tokenizer: of transformers.
        texts: documents.
        length: largest number of tokens in a sequence.
        whole: cut each document into as many sequences as needed (SymTorch paper, equation 4). Otherwise only its first
            ``length`` tokens count, so that all sequences begin where documents do.
        framed: put the tokenizer's own marks around each text, as encoders expect.
        mark: the token that every sequence begins with, see :func:`find_mark`. Without its mark, a model reads the
            first token as no text that it was trained on.

    Raises:
        CaptureError: the texts have no such sequence.
    """
    first = [] if mark is None else [mark]
    step = length - len(first)
    result = []
    for text in texts:
        if framed:
            result.append(torch.tensor(tokenizer(text, truncation=True, max_length=length)["input_ids"]))
            continue
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, len(ids) if whole else 1, step):
            part = first + ids[start : start + step]
            if len(part) > 1:
                result.append(torch.tensor(part))
    if not result:
        raise CaptureError("the text has no sequence of two tokens or more: give a longer text")
    return result


def build_batches(tokens: Sequence[Tensor], size: int) -> list[Batch]:
    """Build batches of sequences of similar lengths, so that there is little padding.

    >>> build_batches([torch.tensor([5, 6, 7]), torch.tensor([8, 9])], 2)[0]["attention_mask"]
    tensor([[1, 1, 0],
            [1, 1, 1]])
    """
    order = sorted(tokens, key=len)
    return [_pad(order[start : start + size]) for start in range(0, len(order), size)]


def _pad(tokens: Sequence[Tensor]) -> Batch:
    ids = torch.nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in tokens], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask}


def cut_sequences(sequences: Sequence[Tensor], length: int, mark: int | None = None) -> list[Tensor]:
    """Cut sequences into shorter ones, of at least two tokens; a mark begins each of them.

    >>> cut_sequences([torch.tensor([1, 5, 6, 7, 8])], 3, mark=1)
    [tensor([1, 5, 6]), tensor([1, 7, 8])]
    """
    first = torch.tensor([] if mark is None else [mark], dtype=torch.long)
    parts = (
        torch.cat([first, part])
        for one in sequences
        for part in one[len(first) :].split(max(1, length - len(first)))
    )
    return [part for part in parts if len(part) > 1]


def take_tokens(sequences: Sequence[Tensor], most: int) -> list[Tensor]:
    """Return the first sequences, of at most ``most`` tokens together and at least two sequences; all of them for 0.

    >>> [len(one) for one in take_tokens([torch.zeros(4), torch.zeros(4), torch.zeros(4)], 9)]
    [4, 4]
    """
    ends = list(itertools.accumulate(map(len, sequences)))
    return list(sequences) if not most else list(sequences[: max(2, bisect.bisect_right(ends, most))])


def hold_out(items: Sequence[Any], share: float, least: int = 1) -> tuple[list[Any], list[Any]]:
    """Hold out the last ``share`` of the items; return the others and that share, each of at least ``least`` items.

    Raises:
        CaptureError: there are too few items.
    """
    held = max(least, round(share * len(items)))
    if len(items) - held < least:
        raise CaptureError(
            f"{len(items)} documents are too few to hold {share:.0%} of them out: give a longer text"
        )
    return list(items[: len(items) - held]), list(items[len(items) - held :])
