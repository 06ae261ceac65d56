"""Text as batches of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from symtorch_core import CaptureError

PAPER_LENGTH = 1048
"""Tokens of a chunk in the SymTorch paper (equation 4)."""

Batch = dict[str, Tensor]
"""``input_ids`` and ``attention_mask``, each of shape (sequences, tokens); padded at the right."""


def documents(text: str, opening: str = "") -> list[str]:
    """A text's documents.

    Args:
        text: paragraphs, with blank lines between them.
        opening: a regular expression that the first paragraph of each document begins with, and no other does; empty
            for one document.

    >>> documents("Once a fox ran.\\n\\nIt hid.\\n\\nOnce a hen sat.", "Once")
    ['Once a fox ran.\\n\\nIt hid.', 'Once a hen sat.']

    Raises:
        CaptureError: the expression is none.
    """
    if not opening:
        return [text]
    try:
        starts = re.compile(opening)
    except re.error as error:
        raise CaptureError(f"opening={opening!r} is no regular expression: {error}") from None
    found: list[list[str]] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if not found or starts.match(paragraph):
            found.append([])
        found[-1].append(paragraph)
    return ["\n\n".join(paragraphs) for paragraphs in found]


def sequences(
    tokenizer: Any, texts: Sequence[str], length: int, *, whole: bool = False, framed: bool = False
) -> list[Tensor]:
    """Token sequences for a model to read, of at least two tokens.

    Args:
        tokenizer: of transformers.
        texts: documents. Where the tokenizer knows a token for their beginning, they get it.
        length: most tokens in a sequence, the beginning not counted.
        whole: cut each document into as many sequences as it takes, as for text without an inner order (SymTorch
            paper, equation 4); else only its first ``length`` tokens count, so that all sequences begin where
            documents do.
        framed: put the tokenizer's own marks around each text, as encoders are used to; ``length`` counts them.

    Raises:
        CaptureError: there are none.
    """
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    result = []
    for text in texts:
        if framed:
            result.append(torch.tensor(tokenizer(text, truncation=True, max_length=length)["input_ids"]))
            continue
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, len(ids) if whole else 1, length):
            # The beginning stands at the document's, not at every cut.
            part = (first if start == 0 else []) + ids[start : start + length]
            if len(part) > 1:
                result.append(torch.tensor(part))
    if not result:
        raise CaptureError("the text has no sequence of two tokens or more")
    return result


def batched(tokens: Sequence[Tensor], size: int) -> list[Batch]:
    """Batches of sequences, of like length together, so that little is padding.

    >>> batched([torch.tensor([5, 6, 7]), torch.tensor([8, 9])], 2)[0]["attention_mask"]
    tensor([[1, 1, 0],
            [1, 1, 1]])
    """
    order = sorted(tokens, key=len)
    return [_padded(order[start : start + size]) for start in range(0, len(order), size)]


def _padded(tokens: Sequence[Tensor]) -> Batch:
    ids = torch.nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in tokens], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask}


def split(items: Sequence[Any], share: float, least: int = 1) -> tuple[list[Any], list[Any]]:
    """All but the last ``share`` of the items, and that share, each of at least ``least``.

    Raises:
        CaptureError: there are too few.
    """
    held = max(least, round(share * len(items)))
    if len(items) - held < least:
        raise CaptureError(f"{len(items)} documents are too few to hold {share:.0%} of them out")
    return list(items[: len(items) - held]), list(items[len(items) - held :])
