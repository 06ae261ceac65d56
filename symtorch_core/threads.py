"""How many threads torch may use inside one operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, the caller's setting afterwards.

    Fitting constants runs thousands of operations on a few thousand rows: too small to share out, and on a busy
    machine the threads wait for each other many times longer than they work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
