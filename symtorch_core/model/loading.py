"""Loading of a checkpoint into a wrapper: all that is in it, or nothing."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from symtorch_core.activations.block_function import find_linear_widths
from symtorch_core.activations.state_guard import TensorBackup
from symtorch_core.components.registry import load
from symtorch_core.errors import FileFormatError
from symtorch_core.model.attributes import BlockAttributes
from symtorch_core.model.hooks import list_hooks
from symtorch_core.model.placeholders import ReleasedBlock
from symtorch_core.model.setting import Setting
from symtorch_core.model.state import WrapperState
from symtorch_core.storage.tensors import list_problems
from symtorch_core.surrogates.running import move_to_block
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.training.descend import allow_gradients

STATE: Final = "_extra_state"
MASK: Final = "output_mask"
_MARK_SHAPE: Final = (1,) * 8
"""Shape that no weight has: of the mark at the place of a block's first weight in a checkpoint."""


@final
class Loading:
    """What a wrapper was before a checkpoint was loaded, for as long as the loading may turn out to have failed.

    Torch loads a model module by module, and raises what it found missing or unexpected at the end, when this wrapper
    has long changed. It collects its errors in one list for the whole model, which tells afterwards.

    Args:
        wrapper: the wrapper, with its block and equations.
        before: what it runs.
        errors: torch's list.

    Attributes:
        before, name: what the wrapper ran, and its name.
        after: what it is to run; None if the checkpoint is of the plain block, which changes numbers only.
        finished: whether torch came to the end of this wrapper.
    """

    def __init__(self, wrapper: BlockAttributes, before: Setting, errors: list[str]) -> None:
        self.before, self.name = before, wrapper.name
        self.after: Setting | None = None
        self.finished = False
        self._errors, self._thread = errors, threading.current_thread()
        modules = list(wrapper.modules())
        self._tensors = [TensorBackup(kind) for m in modules for kind in (m._parameters, m._buffers)]
        self._extra = [(m, copy.deepcopy(m.get_extra_state())) for m in modules if _has_extra_state(m)]

    @property
    def goes_on(self) -> bool:
        """Whether another thread is at it; whoever looks in the same thread knows that an exception ended it."""
        other = self._thread is not threading.current_thread() and self._thread.is_alive()
        return not self.finished and other

    @property
    def failed(self) -> bool:
        """Whether the checkpoint was refused, here or in another part of the model."""
        return not self.finished or bool(self._errors)

    def restore(self) -> None:
        """Put back the tensors of block and equations; other wrappers of the model learn that they must do so too."""
        if not self._errors:
            self._errors.append("an exception ended the loading")
        for backup in self._tensors:
            backup.restore()
        for module, extra in self._extra:
            module.set_extra_state(extra)


def _has_extra_state(module: nn.Module) -> bool:
    own = type(module).set_extra_state is not nn.Module.set_extra_state
    return own and not isinstance(module, BlockAttributes)


@allow_gradients()
def read_setting(state: WrapperState, now: Setting) -> Setting:
    """Return what a wrapper is to run after loading; numbers of its equations are still to be loaded.

    Args:
        state: the saved state.
        now: what the wrapper runs before.
    """
    surrogate: Surrogate | None = None
    block = ReleasedBlock() if state.released else now.block
    if state.distillation is not None:
        result = state.distillation
        kind: type[Surrogate] = load("surrogates", result.provenance.surrogate)
        # On the distillation's own maps, so that their numbers load with the surrogate's.
        made = kind.build(state.structure, result.transforms, result.reduction)
        surrogate = move_to_block(made, now.block).trainable(state.trainable)
    return Setting(
        block=block,
        mode=state.mode,
        surrogate=surrogate,
        distillation=state.distillation,
        symbolic_outputs=state.symbolic_outputs,
        included_hooks=list_hooks(block),
    )


def check_tensors(tensors: Mapping[str, Any], prefix: str, new: Setting, mask: Tensor | None) -> None:
    """Refuse a checkpoint whose tensors do not go with its equations, whether or not torch is told to be strict.

    Args:
        tensors: the checkpoint.
        prefix: of the wrapper's keys.
        new: what the wrapper is to run.
        mask: the wrapper's present mask, or None.

    Raises:
        FileFormatError: numbers of the equations are missing, of another shape or not finite; or the mask of outputs
            is none of this block; or a released block would be needed.
    """
    expected = {} if new.surrogate is None else new.surrogate.state_dict(prefix=f"{prefix}surrogate.")
    problems = list_problems(tensors, expected)
    if problems:
        raise FileFormatError(
            f"the checkpoint's equations are not whole, so nothing of them is loaded: {'; '.join(problems)}"
        )
    saved = tensors.get(prefix + MASK)
    if saved is not None:
        _check_mask(prefix + MASK, saved, new, mask)
    if new.released:
        _check_released(prefix, new, list_pruned(saved))


def find_marked(block: nn.Module) -> str | None:
    """Return the name of the block's weight at whose place a checkpoint of its wrapper has a mark; None without any.

    The mark has a shape that no plain model takes. One that is given the checkpoint then refuses it, rather than keep
    the random weights that it has in this place: ``load_state_dict(..., strict=False)`` and ``from_pretrained`` do so.
    """
    own = ("block.", "surrogate.", MASK, STATE)
    names = (name for name, _ in block.named_parameters() if not name.startswith(own))
    return next(names, None)


def make_mark() -> Tensor:
    """Return the mark of a wrapped block in a checkpoint."""
    return torch.zeros(_MARK_SHAPE, dtype=torch.uint8)


def drop_marks(tensors: dict[str, Any], prefix: str) -> None:
    """Leave the marks of wrapped blocks out of a checkpoint, which is changed."""
    marks = [
        key for key, value in tensors.items() if isinstance(value, Tensor) and value.shape == _MARK_SHAPE
    ]
    for key in marks:
        if key.startswith(prefix):
            del tensors[key]


def widen_tensors(tensors: dict[str, Any], prefix: str, surrogate: Surrogate) -> None:
    """Change numbers of equations that were cast to half precision, in which they cannot be computed."""
    for key, own in surrogate.state_dict(prefix=f"{prefix}surrogate.").items():
        floating = isinstance(own, Tensor) and own.is_floating_point()
        if floating and torch.finfo(tensors[key].dtype).bits < 32:
            tensors[key] = tensors[key].to(own.dtype)


def _check_mask(key: str, saved: Any, new: Setting, mask: Tensor | None) -> None:
    numbers = isinstance(saved, Tensor) and saved.ndim == 1 and not saved.is_meta
    if not numbers or not bool(((saved == 0) | (saved == 1)).all()) or not bool((saved == 1).any()):
        raise FileFormatError(
            f"{key} is not a mask of outputs, True for at least one: the checkpoint is damaged"
        )
    widths = [] if mask is None else [len(mask)]
    linear = find_linear_widths(new.block)[1]
    if linear is not None:
        widths.append(linear)
    if new.distillation is not None and new.distillation.provenance.source.select_output in (None, ""):
        widths.append(new.distillation.block_outputs)
    for width in widths:
        if len(saved) != width:
            raise FileFormatError(f"{key} is a mask of {len(saved)} outputs, but the block has {width}")


def _check_released(prefix: str, new: Setting, pruned: tuple[int, ...]) -> None:
    known = {*new.symbolic_outputs, *pruned}
    whole = new.distillation is not None and len(known) == new.distillation.block_outputs
    if new.mode != "symbolic" or not whole:
        raise FileFormatError(
            f"the block at {prefix.rstrip('.') or 'the top'} was released, here or in the checkpoint, and the "
            "checkpoint's equations do not compute all of its outputs: build the model again and load into that; if "
            "that does not help, the checkpoint is damaged"
        )


def list_pruned(mask: Tensor | None) -> tuple[int, ...]:
    """Return the positions of outputs that a mask sets to zero."""
    return () if mask is None else tuple((mask == 0).nonzero()[:, 0].tolist())


def add_level(tensors: dict[str, Any], prefix: str, surrogate: Surrogate | None, mask: Tensor | None) -> None:
    """Change a checkpoint of the plain block, whose keys lack the wrapper's level, to one of the wrapper as it is.

    Args:
        tensors: the checkpoint, which is changed.
        prefix: of the wrapper's keys.
        surrogate: the equations, which stay.
        mask: the mask of outputs, which stays.
    """
    for plain in [key for key in tensors if key.startswith(prefix)]:
        tensors[f"{prefix}block.{plain[len(prefix) :]}"] = tensors.pop(plain)
    if surrogate is not None:
        tensors.update(surrogate.state_dict(prefix=f"{prefix}surrogate.", keep_vars=True))
    if mask is not None:
        tensors[prefix + MASK] = mask
    tensors[prefix + STATE] = torch.empty(0)  # expected, and not used
