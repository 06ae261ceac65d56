"""JSON documents: written with a checksum, and decoded by the types of their parts before anything is believed.

The parts are declared as classes of msgspec, which check types, ranges and names of fields, and say where a fault is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, final

import msgspec

from symtorch_core.components.escaping import shorten, show_hidden
from symtorch_core.errors import FileFormatError
from symtorch_core.storage.files import to_json

Count = Annotated[int, msgspec.Meta(ge=0)]
"""A number of things, or the number of one."""
Width = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
"""A number of columns."""
Label = Annotated[str, msgspec.Meta(max_length=1_000_000)]
"""A name, or a sentence."""
Number = float | Literal["inf", "-inf", "nan"]
"""A number that may be infinite or undefined, which JSON writes as a word."""

_CHECKSUM = "sha256"
_SHOWN = 300
_T = TypeVar("_T")


@final
class _Opening(msgspec.Struct):
    """The field of any document that says how to read the others."""

    schema: Any = msgspec.UNSET


def encode_number(value: float) -> Any:
    """Return a number as JSON data.

    >>> encode_number(0.5), encode_number(math.inf)
    (0.5, 'inf')
    """
    return float(value) if math.isfinite(value) else str(float(value))


def write_document(content: Mapping[str, Any], indent: int | None = None) -> str:
    """Return JSON of an object with a checksum, as ``sha256``, among its fields; its first field is ``schema``.

    >>> write_document({"schema": 1, "seed": 3})  # doctest: +ELLIPSIS
    '{"schema": 1, "seed": 3, "sha256": "..."}'

    Raises:
        FileFormatError: JSON cannot hold the content.
    """
    try:
        written = msgspec.json.decode(to_json(content))
    except (TypeError, ValueError, msgspec.DecodeError) as error:
        raise FileFormatError(f"cannot be written as JSON: {summarize(error)}") from None
    return to_json({**content, _CHECKSUM: _compute_checksum(written)}, indent)


def read_document(text: bytes | str, kind: type[_T], schema: int, what: str) -> _T:
    """Return the object of a text from :func:`write_document`, as a class whose fields it must have.

    Args:
        text: the text.
        kind: a class of msgspec, with fields ``schema`` and ``sha256``.
        schema: the version that the text must have.
        what: what the text is, for messages.

    Raises:
        FileFormatError: the text is not such an object, is of another version, or was changed since it was written;
            the message says where.
    """
    try:
        version = msgspec.json.decode(text, type=_Opening).schema
        if version is not msgspec.UNSET and version != schema:
            raise FileFormatError(
                f"{what} has schema {summarize(repr(version))}, not {schema}: use the version that wrote it"
            )
        found = msgspec.json.decode(text, type=kind)  # first, since it reads no more than the class has
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise FileFormatError(f"{what} is damaged, or is something else: {summarize(error)}") from None
    saved = raw.pop(_CHECKSUM)
    if saved != _compute_checksum(raw):
        raise FileFormatError(
            f"{what} was changed since it was written: its checksum differs. Take an undamaged copy"
        )
    return found


def decode(data: Any, kind: type[_T], what: str) -> _T:
    """Return JSON data as a class or type that they must match.

    >>> decode({"x": 1.5}, dict[str, Number], "a test")
    {'x': 1.5}

    Raises:
        FileFormatError: the data are others; the message says where.
    """
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise FileFormatError(f"{what} is damaged, or is something else: {summarize(error)}") from None


def summarize(error: object) -> str:
    r"""Return the message of an error as part of a line: some hold a whole file, or what a terminal would obey.

    >>> summarize("a\x1b[2J"), len(summarize("x" * 10**6))
    ('a\\x1b[2J', 300)
    """
    return show_hidden(shorten(str(error), _SHOWN))


def _compute_checksum(data: Any) -> str:
    """Return a digest of what the data say, without spaces and line ends; the order of transforms, say, counts."""
    return hashlib.sha256(msgspec.json.encode(data)).hexdigest()
