"""The base of the wrapper around a block: running, masking and checkpoints."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from symtorch_core.activations.batches import find_device
from symtorch_core.activations.hooks import HookCapture, check_runs
from symtorch_core.activations.rows import Activations
from symtorch_core.activations.tensor_paths import (
    FunctionBlock,
    get_argument_aliases,
    holds_arrays,
    nest_tensor,
)
from symtorch_core.components.checks import check_choice, check_function
from symtorch_core.components.registry import load
from symtorch_core.errors import SwitchError
from symtorch_core.model.hooks import list_hooks, run_post_hooks, run_pre_hooks
from symtorch_core.model.placeholders import ReleasedBlock, WithheldWeight
from symtorch_core.model.state import Mode, WrapperState
from symtorch_core.model.surroundings import Surroundings
from symtorch_core.results.distillation import Distillation
from symtorch_core.surrogates.running import (
    apply_mask,
    compute_columns,
    find_inputs,
    mask_result,
    mix_columns,
    move_to_block,
    overwrite_argument,
    spread_columns,
    to_array,
)
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.training.descend import allow_gradients

_STATE = "_extra_state"
_MASK = "output_mask"


class BlockWrapper(nn.Module, ABC):
    """Wrapper that runs a block or its equations, and saves both; :class:`SymbolicModel` adds distillation."""

    output_mask: Tensor | None
    """True for active outputs, shape (d_out,), boolean; None if no output was ever pruned."""

    def __init__(self, block: Callable[..., Any], name: str | None = None) -> None:
        super().__init__()
        check_function("block", block, "a module or a function", SwitchError)
        if name is not None and not isinstance(name, str):
            raise SwitchError(f"name must be a text, not {name!r}")
        check_runs(block, name or type(block).__name__, SwitchError)
        self.name = name or type(block).__name__
        self.surrogate: Surrogate | None = None
        self._distillation: Distillation | None = None
        self._mode: Mode = "block"
        self._symbolic_outputs: tuple[int, ...] = ()
        self._included_hooks: frozenset[int] = frozenset()  # hooks whose effect is in the equations
        self._surroundings = Surroundings()
        self._pruned_outputs: tuple[int, ...] = ()  # as numbers, so that no forward pass reads the mask back
        self._aliases = get_argument_aliases(block)
        self.register_buffer(_MASK, None)
        self.register_load_state_dict_post_hook(_finish_loading)  # type: ignore[no-untyped-call]
        # Last, because attributes that are not declared above belong to the block from here on.
        self.block: nn.Module = block if isinstance(block, nn.Module) else FunctionBlock(block)
        self.training = self.block.training  # not train(): submodules keep their own flags

    @property
    def mode(self) -> Mode:
        """The current mode, ``"block"`` or ``"symbolic"``."""
        return self._mode

    @property
    def released(self) -> bool:
        """Whether the block's weights were freed."""
        return isinstance(self.block, ReleasedBlock)

    @property
    def distillation(self) -> Distillation:
        """The last distillation.

        Raises:
            SwitchError: there is no distillation yet.
        """
        if self._distillation is None:
            raise SwitchError(f"{self.name} has no equations yet: call distill(data) first")
        return self._distillation

    @property
    def symbolic_outputs(self) -> tuple[int, ...]:
        """Output columns that run on equations now; empty in block mode."""
        return self._symbolic_outputs if self._mode == "symbolic" else ()

    @property
    def pruned_outputs(self) -> tuple[int, ...]:
        """Output columns that are zero in both modes."""
        return self._pruned_outputs

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
        before = self.output_mask
        if before is not None and (
            kept.shape != before.shape or bool((kept & ~before.to(kept.device)).any())
        ):
            raise SwitchError(f"a pruned output of {self.name} stays pruned: make a mask from output_mask")
        if not bool(kept.any()):
            raise SwitchError(f"no output of {self.name} would be left: keep at least one")
        self.output_mask = kept.clone()
        self._pruned_outputs = _list_pruned(self.output_mask)

    @contextmanager
    def running(self, mode: Mode) -> Iterator[None]:
        """Run on the block or on the equations inside the context, and restore the mode afterwards.

        Raises:
            SwitchError: there is no such mode, the block was released, or there are no equations.
        """
        check_choice("mode", mode, get_args(Mode), SwitchError)
        if mode == "block" and self.released:
            raise SwitchError(f"{self.name} was released: there is no block to run")
        if mode == "symbolic":
            self._get_surrogate()
        before = (
            self._mode,
            self.surrogate,
            self._distillation,
            self._symbolic_outputs,
            self._included_hooks,
        )
        try:
            self._mode = mode
            yield
        finally:
            self._mode, self.surrogate, self._distillation, self._symbolic_outputs, self._included_hooks = (
                before
            )

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
        return self if self.released else self.block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.fx.Proxy):
                # Traced by torch.fx: one call of this module, which may still be switched.
                tracer: Any = value.tracer
                return tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)
        if self._mode == "symbolic":
            return self._run_symbolic(args, kwargs)
        full = self.block(*args, **kwargs)
        return full if self.output_mask is None else mask_result(full, self.output_mask, self.name)

    def _run_symbolic(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result, columns = self.distillation, self._symbolic_outputs
        source = result.provenance.source
        path = source.select_output or ""
        x = find_inputs(args, kwargs, source, self._aliases, self.name)
        y = compute_columns(self._get_surrogate(), x, result.outputs, columns)
        if self._replaces_block():
            y = apply_mask(spread_columns(y, columns, result.block_outputs), self.output_mask)
            y = y.squeeze(-1) if source.scalar_output else y
            if source.overwrites is not None:
                y = overwrite_argument(args, kwargs, source.overwrites, y, self._aliases, self.name)
            whole = nest_tensor(to_array(y) if holds_arrays((args, kwargs)) else y, path)
            if not self.block._forward_pre_hooks and not self.block._forward_hooks:
                return whole
            run_pre_hooks(self.block, args, kwargs, self._included_hooks, self.name)
            return run_post_hooks(self.block, args, kwargs, whole, self._included_hooks)
        # The block still computes what has no equation: other outputs, other tensors of its result.
        full = self.block(*args, **kwargs)
        return mix_columns(full, y, columns, source, self.output_mask, self.name, result.block_outputs)

    def _replaces_block(self) -> bool:
        """Whether the block itself does not run now, since equations compute all that it returns."""
        if self._mode == "block" or self._distillation is None:
            return False
        known = {*self._symbolic_outputs, *self.pruned_outputs}
        whole = self._distillation.provenance.source.select_output in (None, "")
        return len(known) == self._distillation.block_outputs and (whole or self.released)

    # -- the block's attributes and items ------------------------------------------------

    # Models read, write and iterate over their blocks (a layer's weight, a batch_first flag, the layers of a
    # Sequential). They may do so here, but not compute with weights that the equations replace.

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "block" or name.startswith("__"):
                raise
        value = getattr(self.block, name)
        if self._mode == "block":
            return value
        if self._replaces_block() and name in self.distillation.provenance.source.set_attributes:
            raise SwitchError(
                f"{name} is set by {self.name} when it runs, but equations run in its place: switch_to_block(), or "
                "make the block return it"
            )
        return WithheldWeight.of(value) if isinstance(value, Tensor) else value

    def __setattr__(self, name: str, value: Any) -> None:
        if self._owns(name):
            super().__setattr__(name, value)
        else:
            setattr(self.block, name, value)

    def __delattr__(self, name: str) -> None:
        if self._owns(name):
            super().__delattr__(name)
        else:
            delattr(self.block, name)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        if self._owns(name):
            super().register_buffer(name, tensor, persistent)
        else:
            self.block.register_buffer(name, tensor, persistent)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if self._owns(name):
            super().register_parameter(name, param)
        else:
            self.block.register_parameter(name, param)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        if self._owns(name):
            super().add_module(name, module)
        else:
            self.block.add_module(name, module)

    def _owns(self, name: str) -> bool:
        """Whether an attribute is the wrapper's own, not the block's."""
        children = vars(self).get("_modules", {})
        if "block" not in children or name in vars(self) or name in children or name in self._buffers:
            return True
        if any(name in vars(kind) for kind in type(self).__mro__):
            return True
        return name.startswith("_") and name not in dir(children["block"])

    def __len__(self) -> int:
        return len(self._get_container())

    def __bool__(self) -> bool:
        return True  # as every module, with or without a length

    def __iter__(self) -> Iterator[Any]:
        return iter(self._get_container())

    def __getitem__(self, key: Any) -> Any:
        return self._get_container()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._get_container()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._get_container()[key]

    def __contains__(self, item: object) -> bool:
        return item in self._get_container()

    def _get_container(self) -> Any:
        if self._mode == "symbolic":
            raise SwitchError(
                f"{self.name} runs on equations, and computing with its parts would go round them: switch_to_block(), "
                "or use the wrapper's .block to look at them"
            )
        return self.block

    def extra_repr(self) -> str:
        return f"name={self.name!r}, mode={self._mode!r}"

    def _get_surrogate(self) -> Surrogate:
        if self.surrogate is None:
            raise SwitchError(f"{self.name} has no equations yet: call distill(data) first")
        return self.surrogate

    # -- checkpoints -------------------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """Return mode, equations and fronts as UTF-8 JSON in a byte tensor, which any checkpoint format can hold."""
        state = WrapperState(self.name, self._mode, released=self.released)
        if self._distillation is not None and self.surrogate is not None:
            state = replace(
                state,
                distillation=self._distillation,
                structure=self.surrogate.structure(),
                symbolic_outputs=self._symbolic_outputs,
                trainable=any(p.requires_grad for p in self.surrogate.parameters()),
            )
        return state.to_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Do nothing: the state is used before the children load."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if WrapperState.is_in(state_dict.get(prefix + _STATE)):
            maps = f"{prefix}surrogate.reduction."
            state = WrapperState.from_tensor(state_dict[prefix + _STATE], state_dict, maps)
            self._restore(state.reuse_functions(self._distillation))
            saved = state_dict.get(prefix + _MASK)
            self.output_mask = (
                None
                if saved is None
                else torch.ones_like(saved, dtype=torch.bool, device=find_device(self.block))
            )
        else:
            # A checkpoint of the plain block: its keys lack the wrapper's level, and the equations here stay.
            for plain in [key for key in state_dict if key.startswith(prefix)]:
                state_dict[f"{prefix}block.{plain[len(prefix) :]}"] = state_dict.pop(plain)
            if self.surrogate is not None:
                for key, value in self.surrogate.state_dict().items():
                    state_dict[f"{prefix}surrogate.{key}"] = value
            if self.output_mask is not None:
                state_dict[prefix + _MASK] = self.output_mask
            state_dict[prefix + _STATE] = torch.empty(0)  # expected, and not used
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @allow_gradients()
    def _restore(self, state: WrapperState) -> None:
        surrogate: Surrogate | None = None
        if state.distillation is not None:
            result = state.distillation
            kind: type[Surrogate] = load("surrogates", result.provenance.surrogate)
            # On the distillation's own maps, so that their numbers load with the surrogate's: see _finish_loading.
            made = kind.build(state.structure, result.transforms, result.reduction)
            surrogate = move_to_block(made, self.block).trainable(state.trainable)
        if state.released:
            self.block = ReleasedBlock()
        self.name, self._mode = state.name, state.mode
        self.surrogate, self._distillation = surrogate, state.distillation
        self._symbolic_outputs = state.symbolic_outputs
        self._included_hooks = list_hooks(self.block)
        self._surroundings = Surroundings()


def _list_pruned(mask: Tensor | None) -> tuple[int, ...]:
    return () if mask is None else tuple((~mask).nonzero()[:, 0].tolist())


def _finish_loading(model: nn.Module, _: object) -> None:
    """After loading, give the distillation its own copy of the maps, as after a search."""
    assert isinstance(model, BlockWrapper)
    model._pruned_outputs = _list_pruned(model.output_mask)
    result = model._distillation
    if result is not None:
        model._distillation = replace(
            result,
            transforms=copy.deepcopy(result.transforms),
            reduction=copy.deepcopy(result.reduction).cpu(),
        )
