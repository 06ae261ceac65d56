"""The base of the wrapper around a block: running, masking and checkpoints."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import find_device
from symtorch_core.activations.hooks import HookCapture, check_runs
from symtorch_core.activations.rows import Activations
from symtorch_core.activations.state_guard import take_turns
from symtorch_core.activations.tensor_paths import (
    FunctionBlock,
    get_argument_aliases,
    holds_arrays,
    nest_tensor,
)
from symtorch_core.components.checks import check_choice, check_function
from symtorch_core.errors import SwitchError, SymTorchError
from symtorch_core.model.attributes import BlockAttributes
from symtorch_core.model.hooks import run_post_hooks, run_pre_hooks
from symtorch_core.model.loading import (
    MASK,
    STATE,
    Loading,
    add_level,
    check_tensors,
    list_pruned,
    read_setting,
)
from symtorch_core.model.setting import Setting, Switch
from symtorch_core.model.state import Mode, WrapperState
from symtorch_core.results.distillation import Distillation
from symtorch_core.surrogates.running import (
    apply_mask,
    compute_columns,
    find_inputs,
    mask_result,
    mix_columns,
    overwrite_argument,
    spread_columns,
    to_array,
)
from symtorch_core.surrogates.surrogate import Surrogate


class BlockWrapper(BlockAttributes, ABC):
    """Wrapper that runs a block or its equations, and saves both; :class:`SymbolicModel` adds distillation.

    What it runs is one immutable object, so that a forward pass in another thread sees a switch whole or not at all.
    """

    output_mask: Tensor | None
    """True for active outputs, shape (d_out,), boolean; None if no output was ever pruned."""

    def __init__(self, block: Callable[..., Any], name: str | None = None) -> None:
        super().__init__()
        check_function("block", block, "a module or a function", SwitchError)
        if name is not None and not isinstance(name, str):
            raise SwitchError(f"name must be a text, not {name!r}")
        check_runs(block, name or type(block).__name__, SwitchError)
        self.name = name or type(block).__name__
        self._aliases = get_argument_aliases(block)
        self._loading: Loading | None = None
        module = block if isinstance(block, nn.Module) else FunctionBlock(block)
        self._switch = Switch(Setting(module))
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

    @property
    def mode(self) -> Mode:
        """The current mode, ``"block"`` or ``"symbolic"``."""
        return self._now.mode

    @property
    def released(self) -> bool:
        """Whether the block's weights were freed."""
        return self._now.released

    @property
    def distillation(self) -> Distillation:
        """The last distillation.

        Raises:
            SwitchError: there is no distillation yet.
        """
        return self._get_equations(self._now)[0]

    @property
    def symbolic_outputs(self) -> tuple[int, ...]:
        """Output columns that run on equations now; empty in block mode."""
        now = self._now
        return now.symbolic_outputs if now.mode == "symbolic" else ()

    @property
    def pruned_outputs(self) -> tuple[int, ...]:
        """Output columns that are zero in both modes."""
        return self._now.pruned_outputs

    def prune_outputs(self, active: Tensor) -> None:
        """Set outputs of the block to zero from now on, in both modes; see :class:`symtorch_core.OutputPruner`.

        Args:
            active: shape (d_out,), boolean: True for outputs to keep.

        Raises:
            SwitchError: a pruned output would become active again, or no output would be active.
        """
        if not isinstance(active, Tensor) or active.dtype != torch.bool:
            raise SwitchError("active must be a tensor of True and False, one for each output")
        kept = active.detach().reshape(-1)
        with take_turns():  # a capture puts back the buffers that it found
            before = self.output_mask
            if before is not None and (
                kept.shape != before.shape or bool((kept & ~before.to(kept.device)).any())
            ):
                raise SwitchError(
                    f"a pruned output of {self.name} stays pruned: make a mask from output_mask"
                )
            if not bool(kept.any()):
                raise SwitchError(f"no output of {self.name} would be left: keep at least one")
            self.output_mask = kept.clone()
            self._switch.change_everywhere(self._modules, pruned_outputs=list_pruned(kept))

    @contextmanager
    def running(self, mode: Mode) -> Iterator[None]:
        """Run on the block or on the equations inside the context, in this thread, and restore the mode afterwards.

        Raises:
            SwitchError: there is no such mode, the block was released, or there are no equations.
        """
        check_choice("mode", mode, get_args(Mode), SwitchError)
        now = self._now
        if mode == "block" and now.released:
            raise SwitchError(f"{self.name} was released: there is no block to run")
        if mode == "symbolic":
            self._get_equations(now)
        with self._switch.trying(mode=mode):
            yield

    def capture(self, data: Any, *, parent: Callable[..., Any] | None = None, **options: Any) -> Activations:
        """Return activations of the block, whatever the mode; see :func:`symtorch_core.capture`."""
        collect_options = {
            key: options.pop(key) for key in ("max_rows", "seed", "callbacks") if key in options
        }
        hooks = HookCapture.with_options(options)
        with self.running("block"):
            return hooks.collect(self.block, data, parent=parent, **collect_options)

    def get_receiver(self) -> nn.Module:
        """Return what a batch is prepared for: the block, whose arguments are known; this module if it was released."""
        now = self._now
        return self if now.released else now.block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.fx.Proxy):
                # Traced by torch.fx: one call of this module, which may still be switched.
                tracer: Any = value.tracer
                return tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)
        now = self._now  # once, since another thread may switch meanwhile
        mask = self.output_mask
        if now.mode == "symbolic":
            return self._run_symbolic(now, mask, args, kwargs)
        full = now.block(*args, **kwargs)
        return full if mask is None else mask_result(full, mask, self.name)

    def _run_symbolic(
        self, now: Setting, mask: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        (result, surrogate), columns = self._get_equations(now), now.symbolic_outputs
        source = result.provenance.source
        path = source.select_output or ""
        x = find_inputs(args, kwargs, source, self._aliases, self.name)
        y = compute_columns(surrogate, x, result.outputs, columns)
        if now.replaces_block():
            y = apply_mask(spread_columns(y, columns, result.block_outputs), mask)
            y = y.squeeze(-1) if source.scalar_output else y
            if source.overwrites is not None:
                y = overwrite_argument(args, kwargs, source.overwrites, y, self._aliases, self.name)
            whole = nest_tensor(to_array(y) if holds_arrays((args, kwargs)) else y, path)
            if not now.block._forward_pre_hooks and not now.block._forward_hooks:
                return whole
            run_pre_hooks(now.block, args, kwargs, now.included_hooks, self.name)
            return run_post_hooks(now.block, args, kwargs, whole, now.included_hooks)
        # The block still computes what has no equation: other outputs, other tensors of its result.
        full = now.block(*args, **kwargs)
        return mix_columns(full, y, columns, source, mask, self.name, result.block_outputs)

    def _get_equations(self, now: Setting) -> tuple[Distillation, Surrogate]:
        if now.distillation is None or now.surrogate is None:
            raise SwitchError(f"{self.name} has no equations yet: call distill(data) first")
        return now.distillation, now.surrogate

    def __setattr__(self, name: str, value: Any) -> None:
        if (
            name in ("block", "surrogate") and name in self._modules
        ):  # as other wrappers do around this one's parts
            self._switch.change_everywhere(self._modules, **{name: value})
        elif (
            name == MASK
        ):  # without a look at the present one, which torch takes and which would settle a loading
            self._buffers[MASK] = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name == MASK:
            self._settle()
        return super().__getattr__(name)

    def extra_repr(self) -> str:
        return f"name={self.name!r}, mode={self.mode!r}"

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
                state = WrapperState.from_tensor(state_dict[prefix + STATE])
                new = read_setting(state.reuse_functions(now.distillation), now)
                check_tensors(state_dict, prefix, new, self.output_mask)
            except SymTorchError as error:
                error_msgs.append(str(error))  # which wrappers that were loaded before look at
                raise
        self._loading = Loading(self, now, error_msgs)
        if new is None:
            add_level(state_dict, prefix, now.surrogate, self._buffers[MASK])
        else:
            saved = state_dict.get(prefix + MASK)
            device = find_device(now.block)
            self.output_mask = (
                None if saved is None else torch.ones_like(saved, dtype=torch.bool, device=device)
            )
            self._loading.after, self.name = new, state.name
            self._modules.update(block=new.block, surrogate=new.surrogate)  # where torch goes on
            if new.surrogate is None:
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

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._settle()
        super()._save_to_state_dict(*args, **kwargs)

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
    assert isinstance(model, BlockWrapper)
    loading = model._loading
    if loading is None:
        return
    loading.finished = True
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
            replace(new, distillation=result, pruned_outputs=list_pruned(model._buffers[MASK])),
        )
