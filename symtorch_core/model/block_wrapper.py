"""The base of the wrapper around a block: running and masking."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn

from symtorch_core.activations.hooks import DEFAULT_MAX_ROWS, HookCapture
from symtorch_core.activations.rows import Activations
from symtorch_core.activations.state_guard import take_turns
from symtorch_core.activations.tensor_paths import (
    holds_arrays,
    nest_tensor,
)
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import check_choice
from symtorch_core.errors import SwitchError
from symtorch_core.events.records import Callback
from symtorch_core.model.hooks import run_post_hooks, run_pre_hooks
from symtorch_core.model.loading import (
    list_pruned,
)
from symtorch_core.model.saved_block import SavedBlock
from symtorch_core.model.setting import Setting
from symtorch_core.model.state import Mode
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


class BlockWrapper(SavedBlock, ABC):
    """Wrapper that runs a block or its equations; :class:`SymbolicModel` adds distillation."""

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
        """Run on the block or on the equations inside the context, and restore the mode afterwards.

        This holds for calls in this thread; other threads, also those started inside, run what they ran.

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

    @explain_calls(also=HookCapture.option_names())
    def capture(
        self,
        data: Any,
        *,
        parent: Callable[..., Any] | None = None,
        max_rows: int = DEFAULT_MAX_ROWS,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        **options: Any,
    ) -> Activations:
        """Return activations of the block, whatever the mode; see :func:`symtorch_core.capture`."""
        hooks = HookCapture.with_options(options)
        with self.running("block"):
            return hooks.collect(
                self.block, data, parent=parent, max_rows=max_rows, seed=seed, callbacks=callbacks
            )

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
            raise SwitchError(f"{self.name} has no equations yet: call distill(data) or adopt(result) first")
        return now.distillation, now.surrogate

    def extra_repr(self) -> str:
        return f"name={self.name!r}, mode={self.mode!r}"
