"""What a wrapper runs: one immutable object, replaced as a whole."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, final

from torch import nn

from symtorch_core.activations.watching import identify_thread
from symtorch_core.model.placeholders import ReleasedBlock
from symtorch_core.model.state import Mode
from symtorch_core.model.surroundings import Surroundings
from symtorch_core.results.distillation import Distillation
from symtorch_core.surrogates.surrogate import Surrogate


@final
@dataclass(frozen=True, eq=False)
class Setting:
    """What a wrapper runs; a forward pass reads it once.

    Attributes:
        block: the block, or a placeholder.
        mode: which of the two runs.
        surrogate: the equations, or None.
        distillation: where they come from.
        symbolic_outputs: output columns that run on equations in symbolic mode.
        included_hooks: handles of the block's hooks whose effect is in the equations.
        surroundings: what is known about the model around the block.
        pruned_outputs: output columns that are zero, as numbers, so that no forward pass reads the mask back.
    """

    block: nn.Module
    mode: Mode = "block"
    surrogate: Surrogate | None = None
    distillation: Distillation | None = None
    symbolic_outputs: tuple[int, ...] = ()
    included_hooks: frozenset[int] = frozenset()
    surroundings: Surroundings = field(default_factory=Surroundings)
    pruned_outputs: tuple[int, ...] = ()

    @property
    def released(self) -> bool:
        """Whether the block's weights were freed."""
        return isinstance(self.block, ReleasedBlock)

    def replaces_block(self) -> bool:
        """Whether the block itself does not run, since equations compute all that it returns."""
        if self.mode == "block" or self.distillation is None:
            return False
        known = {*self.symbolic_outputs, *self.pruned_outputs}
        whole = self.distillation.provenance.source.select_output in (None, "")
        return len(known) == self.distillation.block_outputs and (whole or self.released)


@final
class Switch:
    """Holder of a wrapper's setting, which any thread may read while another replaces it.

    A thread may run another setting than the others for a while, as a capture runs the block. A pickle holds the
    setting without the rows of its distillation.

    Args:
        setting: the setting to begin with.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._own: dict[int, Setting] = {}  # of threads that run something else for a while
        self._lock = threading.RLock()

    def get(self) -> Setting:
        """Return what this thread runs."""
        return self._own.get(identify_thread(), self._setting) if self._own else self._setting

    def change(self, children: dict[str, nn.Module | None], **fields: Any) -> None:
        """Change fields of what this thread runs.

        Args:
            children: the wrapper's submodules, in which torch finds block and equations.
            **fields: fields of :class:`Setting`.
        """
        with self._lock:
            thread = identify_thread()
            if thread in self._own:
                self._own[thread] = replace(self._own[thread], **fields)
            else:
                self._put(children, replace(self._setting, **fields))

    def change_everywhere(self, children: dict[str, nn.Module | None], **fields: Any) -> None:
        """Change fields of what every thread runs."""
        with self._lock:
            for thread, own in self._own.items():
                self._own[thread] = replace(own, **fields)
            self._put(children, replace(self._setting, **fields))

    def reset(self, children: dict[str, nn.Module | None], setting: Setting) -> None:
        """Replace the setting, also in this thread."""
        with self._lock:
            self._own.pop(identify_thread(), None)
            self._put(children, setting)

    def _put(self, children: dict[str, nn.Module | None], setting: Setting) -> None:
        children["block"], children["surrogate"] = setting.block, setting.surrogate
        self._setting = setting

    @contextmanager
    def trying(self, **fields: Any) -> Iterator[None]:
        """Run something else in this thread inside the context: what it ran before, with other fields."""
        thread, before = identify_thread(), self._own.get(identify_thread())
        with self._lock:
            self._own[thread] = replace(before or self._setting, **fields)
        try:
            yield
        finally:
            with self._lock:
                self._own.pop(thread, None)
                if before is not None:
                    self._own[thread] = before

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let other threads change nothing inside the context."""
        with self._lock:
            yield

    def __reduce__(self) -> tuple[type[Switch], tuple[Setting]]:
        setting = self.get()
        bare = None if setting.distillation is None else setting.distillation.without_rows()
        return Switch, (replace(setting, distillation=bare),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Switch:
        return Switch(copy.deepcopy(self.get(), memo))
