"""Seeded damage: nasty texts, and changes of texts, bytes, JSON and tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Random = np.random.Generator

CANARY = "symtorch_canary"
"""A module that nothing may import: that it was imported proves that a text was executed."""

PIECES = (
    *(
        "x0",
        "x1",
        "x2",
        "y",
        "2.0",
        "1e308",
        "5e-324",
        "1e400",
        "9^9^9^9",
        "0",
        "-1",
        "1/0",
        "10^400",
        "nan",
        "inf",
        "pi",
    ),
    *(
        "+",
        "-",
        "*",
        "/",
        "^",
        "**",
        "(",
        ")",
        ",",
        "<",
        ">=",
        " ",
        "\n",
        "\t",
        "\0",
        "\x1b[2J",
        "\ud7ff",
        "\u202e",
        "é",
    ),
    *(
        "sin(",
        "exp(",
        "log(",
        "sqrt(",
        "inv(",
        "square(",
        "cube(",
        "abs(",
        "gamma(",
        "mod(",
        "max(",
        "if(",
        "tan(",
    ),
    *(
        f"__import__('{CANARY}')",
        f"import {CANARY}",
        f"(lambda: __import__('{CANARY}'))()",
        "x.__class__",
        "exit()",
    ),
    *(
        f"{{{{ __import__('{CANARY}') }}}}",
        "{% raw %}",
        "${x}",
        "%s",
        "{0.__class__}",
        "\\write18{id}",
        "\\input{x}",
    ),
    *(
        "<script>alert(1)</script>",
        '"',
        "'",
        '"""',
        "*/",
        "//",
        "\\",
        "`",
        "$x_$",
        "=1+1",
        "&amp;",
        "--",
        ";",
        "#",
    ),
    *("π", "x" * 300, "(" * 50, ")" * 50, "-" * 40, "9" * 400, "x0+" * 60, "sin(" * 30),
)
"""What texts are made of: parts of equations, and what other languages would take for theirs."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**30, -(10**12), 0.0, -0.0, 0.5, -1.5, 1e308, 5e-324),
    *(
        "",
        "x0",
        "bset",
        "mse",
        "inf",
        "nan",
        "identity",
        "1e999",
        CANARY,
        "x0*0",
        "9^9^9^9",
        "\x1b[2J",
        "A" * 10_000,
    ),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], ["x0"], {"function": "f"}, {"x0": "x1"}, [0] * 1000),
)


def make_text(random: Random, most: int = 30) -> str:
    """Return a text of random pieces."""
    return "".join(random.choice(PIECES, size=int(random.integers(1, most))))


def change_text(random: Random, text: str) -> str:
    """Return a text with one to three places cut, repeated, exchanged or replaced."""
    for _ in range(int(random.integers(1, 4))):
        start, stop = sorted(random.integers(0, len(text) + 1, size=2).tolist())
        stop = min(stop, start + 200)
        part = text[start:stop]
        kind = int(random.integers(5))
        middle = ("", part * 2, make_text(random, 4), part[::-1], part.swapcase())[kind]
        text = text[:start] + middle + text[stop:]
    return text


def change_bytes(random: Random, data: bytes) -> bytes:
    """Return bytes with some flipped, zeroed, cut, repeated or put in."""
    kind = int(random.integers(5))
    if kind == 0 or len(data) < 4:
        return data[: int(random.integers(0, len(data) + 1))]
    changed = bytearray(data)
    for _ in range(int(random.choice([1, 1, 1, 2, 8, 64]))):
        at = int(random.integers(len(changed)))
        if kind == 1:
            changed[at] ^= 1 << int(random.integers(8))
        elif kind == 2:
            changed[at : at + 8] = bytes(min(8, len(changed) - at))
        elif kind == 3:
            changed[at:at] = random.bytes(int(random.integers(1, 9)))
        else:
            length = int(random.integers(1, 65))
            changed[at:at] = changed[max(0, at - length) : at]
    return bytes(changed)


def change_json(random: Random, data: Any) -> Any:
    """Return JSON data with one to three values replaced, removed, exchanged, nested or added."""
    data = copy.deepcopy(data)
    for _ in range(int(random.integers(1, 4))):
        holders = list(_list_holders(data))
        holder = holders[int(random.integers(len(holders)))]
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = keys[int(random.integers(len(keys)))]
        kind = int(random.integers(7))
        if kind == 0:
            del holder[key]
        elif kind == 1:
            other = keys[int(random.integers(len(keys)))]
            holder[key], holder[other] = holder[other], holder[key]
        elif kind == 2:
            holder[key] = [holder[key]]
        elif kind == 3 and isinstance(holder, dict):
            holder[str(random.choice(PIECES))] = copy.deepcopy(holder[key])
        elif kind == 3:
            holder.append(copy.deepcopy(holder[key]))
        elif kind == 4 and isinstance(holder[key], str):
            holder[key] = change_text(random, holder[key])
        elif kind == 5 and isinstance(holder[key], (int, float)):
            holder[key] = type(holder[key])(holder[key] * 2 + 1)
        else:
            holder[key] = copy.deepcopy(VALUES[int(random.integers(len(VALUES)))])
    return data


def _list_holders(data: Any) -> Any:
    if isinstance(data, (dict, list)):
        yield data
        for value in list(data.values()) if isinstance(data, dict) else data:
            yield from _list_holders(value)


def change_tensors(random: Random, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return named tensors with one to three dropped, added, renamed, reshaped, cast or spoilt."""
    changed = dict(tensors)
    for _ in range(int(random.integers(1, 4))):
        if not changed:
            break
        names = sorted(changed)
        name = names[int(random.integers(len(names)))]
        value = changed[name]
        kind = int(random.integers(10))
        if kind == 0:
            del changed[name]
        elif kind == 1:
            changed[name + str(random.choice(PIECES))] = value
        elif kind == 2:
            changed[name] = changed[names[int(random.integers(len(names)))]]
        elif kind == 3:
            changed[name] = torch.cat([value.reshape(-1), value.reshape(-1)])
        elif kind == 4:
            changed[name] = value.reshape(-1)[: max(0, value.numel() - 1)]
        elif kind == 5:
            changed[name] = value.to(torch.complex64)
        elif kind == 6 and value.is_floating_point():
            changed[name] = torch.full_like(value, torch.nan)
        elif kind == 7 and value.dtype == torch.uint8:
            flipped = change_bytes(random, bytes(value.reshape(-1).tolist()))
            changed[name] = torch.tensor(list(flipped), dtype=torch.uint8)
        elif kind == 8:
            changed[name] = value.unsqueeze(0)
        else:
            changed[name] = value.to(torch.int64)
    return changed
