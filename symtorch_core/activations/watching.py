"""Watching of a module's calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Before = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""Called with the arguments of a call, before any other hook."""
After = Callable[[Any], Any]
"""Called with the result of a call, after all other hooks; what it returns replaces the result, unless it is None."""


def identify_thread() -> int:
    """Return this thread's number; a model that is compiled asks for it once, when that is done."""
    return threading.get_ident()


# What torch.compiler.assume_constant_result does, without importing the compiler.
identify_thread._dynamo_marked_constant = True  # type: ignore[attr-defined]


@contextmanager
def watch_calls(block: nn.Module, before: Before, after: After) -> Iterator[None]:
    """Call two functions around each call of a module inside the context; also if the module is TorchScript.

    Calls in other threads are not this context's, and pass unseen.
    """
    thread = identify_thread()

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if identify_thread() == thread:
            before(args, kwargs)

    def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        return after(result) if identify_thread() == thread else None

    # Methods of the base class, since TorchScript modules refuse their own, but run such hooks.
    handles = [
        nn.Module.register_forward_pre_hook(block, enter, with_kwargs=True, prepend=True),
        nn.Module.register_forward_hook(block, leave, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
