"""The part of the wrapper that holds what it runs, and saves, loads and copies it."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import find_device
from symtorch_core.activations.estimators import as_function
from symtorch_core.activations.hooks import check_runs, name_block
from symtorch_core.activations.tensor_paths import FunctionBlock, get_argument_aliases
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import check_encodable, check_function
from symtorch_core.errors import SwitchError
from symtorch_core.model.attributes import BlockAttributes
from symtorch_core.model.loading import (
    MASK,
    STATE,
    Loading,
    add_level,
    check_tensors,
    drop_marks,
    find_marked,
    list_pruned,
    make_mark,
    read_setting,
    widen_tensors,
)
from symtorch_core.model.setting import Setting, Switch
from symtorch_core.model.state import WrapperState
from symtorch_core.surrogates.surrogate import Surrogate


class SavedBlock(BlockAttributes, ABC):
    """Module that holds a block and its equations, and saves, loads and copies both.

    What it runs is one immutable object, so that a forward pass in another thread sees a switch whole or not at all.
    """

    output_mask: Tensor | None
    """True for active outputs, shape (d_out,), boolean; None if no output was ever pruned."""

    @explain_calls()
    def __init__(self, block: Callable[..., Any], name: str | None = None) -> None:
        super().__init__()
        block = as_function(block)
        check_function("block", block, "a module or a function", SwitchError)
        if name is not None and not isinstance(name, str):
            raise SwitchError(f"name must be a text, not {name!r}")
        if name is not None:
            check_encodable("name", name, SwitchError)
        check_runs(block, name or name_block(block), SwitchError)
        self.name = name or name_block(block)
        self._aliases = get_argument_aliases(block)
        self._loading: Loading | None = None
        module = block if isinstance(block, nn.Module) else FunctionBlock(block)
        self._switch = Switch(Setting(module))
        self._marked = find_marked(module)
        self.register_buffer(MASK, None)
        self.register_load_state_dict_post_hook(_finish_loading)  # type: ignore[no-untyped-call]
        # Last, because attributes that are not declared above belong to the block from here on.
        self._modules.update(block=module, surrogate=None)
        self.training = module.training  # not train(): submodules keep their own flags

    @property
    def _now(self) -> Setting:
        """What runs in this thread; to be read once by what must not see half a switch."""
        if self._loading is not None:
            self._settle()
        return self._switch.get()

    def _change(self, **fields: Any) -> None:
        """Change fields of what runs in this thread."""
        self._switch.change(self._modules, **fields)

    @property
    def block(self) -> nn.Module:
        """The block, or a placeholder if it was released."""
        return self._now.block

    @property
    def surrogate(self) -> Surrogate | None:
        """The equations as a module; None before there are any."""
        return self._now.surrogate

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("block", "surrogate") and name in self._modules:
            # As libraries do that wrap a module's children.
            self._switch.change_everywhere(self._modules, **{name: value})
        elif name == MASK:
            # Torch would look at the present one first, which settles a loading.
            self._buffers[MASK] = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name == MASK:
            self._settle()
        return super().__getattr__(name)

    # -- checkpoints -------------------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """Return mode, equations and fronts as UTF-8 JSON in a byte tensor, which any checkpoint format can hold."""
        now = self._now
        state = WrapperState(self.name, now.mode, released=now.released)
        if now.distillation is not None and now.surrogate is not None:
            state = replace(
                state,
                distillation=now.distillation,
                structure=now.surrogate.structure(),
                symbolic_outputs=now.symbolic_outputs,
                trainable=any(p.requires_grad for p in now.surrogate.parameters()),
            )
        return state.to_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Do nothing: the state is used before the children load."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a checkpoint of this module, or of the plain block; after an exception, all is as it was.

        The same holds for this module when a model around it is loaded. Until the model is used again, a copy of what
        was here is kept, since torch finds errors in other parts of the model later.

        Args:
            state_dict: the checkpoint.
            strict: as for every module. A checkpoint with equations must have all their numbers in any case.
            assign: as for every module.

        Returns:
            The missing and the unexpected keys.

        Raises:
            RuntimeError: keys or shapes do not match; see :class:`torch.nn.Module`.
            FileFormatError: the saved equations are damaged or not whole.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            self._settle()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._marked is not None:
            destination[prefix + self._marked] = make_mark()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        now = self._now
        new: Setting | None = None
        if WrapperState.is_in(state_dict.get(prefix + STATE)):
            try:
                maps = f"{prefix}surrogate.reduction."
                state = WrapperState.from_tensor(state_dict[prefix + STATE], state_dict, maps)
                new = read_setting(state.reuse_functions(now.distillation), now)
                check_tensors(state_dict, prefix, new, self.output_mask)
            except Exception as error:
                error_msgs.append(str(error))  # which wrappers that were loaded before look at
                raise
        self._loading = Loading(self, now, error_msgs)
        if new is None:
            add_level(state_dict, prefix, now.surrogate, self._buffers[MASK])
        else:
            drop_marks(state_dict, prefix)
            saved = state_dict.get(prefix + MASK)
            device = find_device(now.block)
            self.output_mask = (
                None if saved is None else torch.ones_like(saved, dtype=torch.bool, device=device)
            )
            self._loading.after, self.name = new, state.name
            self._modules.update(block=new.block, surrogate=new.surrogate)  # where torch goes on
            if new.surrogate is not None:
                widen_tensors(state_dict, prefix, new.surrogate)
            else:
                lost = f"{prefix}surrogate."
                unexpected_keys.extend(key for key in state_dict if key.startswith(lost))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _settle(self) -> None:
        """Forget what was here before a checkpoint was loaded, or put it back if that failed."""
        loading = self._loading
        if loading is None or loading.goes_on:
            return
        self._loading = None
        if loading.failed:
            loading.restore()
            self.name = loading.name
            self._switch.reset(self._modules, loading.before)

    # Each way to what a checkpoint changes leads through one of these, or through _now.

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        self._settle()
        yield from super().named_modules(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._settle()
        with self._switch.holding():
            return super().state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._settle()
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    # -- copies ------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        now = self._switch.get()
        self._switch = Switch(now)  # a shallow copy is switched by itself
        self._modules.update(block=now.block, surrogate=now.surrogate)

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica._switch = Switch(self._now)  # what this thread runs, whichever thread the replica runs in
        return replica


def _finish_loading(model: nn.Module, _: object) -> None:
    """After loading, run what was loaded; the distillation gets its own copy of the maps, as after a search."""
    assert isinstance(model, SavedBlock)
    loading = model._loading
    if loading is None:
        return
    loading.finished = True
    mask = model._buffers[MASK]
    if mask is not None:
        model._buffers[MASK] = mask.bool()  # an assigned one may have been cast
    if loading.failed:
        model._settle()
    elif loading.after is not None:
        new = loading.after
        result = new.distillation
        if result is not None:
            result = replace(
                result,
                transforms=copy.deepcopy(result.transforms),
                reduction=copy.deepcopy(result.reduction).cpu(),
            )
        model._switch.reset(
            model._modules,
            replace(new, distillation=result, pruned_outputs=list_pruned(mask)),
        )
