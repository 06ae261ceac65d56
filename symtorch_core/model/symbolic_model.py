"""The wrapper that stands in a block's place and runs either the block or its equations."""

from __future__ import annotations

import copy
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import sympy as sp
import torch
from torch import Tensor, nn

from symtorch_core.activations.hooks import HookCapture, find_block
from symtorch_core.activations.rows import Activations
from symtorch_core.activations.tensor_paths import (
    collect_call_tensors,
    flatten_tensors,
    get_argument_aliases,
    nest_tensor,
    pick_inputs,
    pick_tensor,
    replace_tensor,
)
from symtorch_core.components.registry import load
from symtorch_core.errors import SwitchError
from symtorch_core.exports import export
from symtorch_core.model.placeholders import FunctionBlock, ReleasedBlock, Withheld
from symtorch_core.model.pruning import apply_mask
from symtorch_core.model.refinement import Refinement, refine
from symtorch_core.model.state import Mode, WrapperState
from symtorch_core.pipeline import distill
from symtorch_core.results.distillation import Complexity, Distillation, MetricChange
from symtorch_core.search.front import ParetoFront, SelectionRule
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.views.notebook import render_result

_STATE = "_extra_state"
_MASK = "output_mask"


@final
class SymbolicModel(nn.Module):
    """A module in place of a block: bit-exact in block mode, its equations in symbolic mode.

    Args:
        block: a module, or a function of tensors.
        name: what to call it in messages and reports; the block's type by default.

    >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> block = wrap(model, "2")
    >>> block.mode
    'block'
    """

    def __init__(self, block: Callable[..., Any], name: str | None = None) -> None:
        super().__init__()
        if not callable(block):
            raise TypeError(f"a block is a module or a function, not a {type(block).__name__}")
        self.block: nn.Module = block if isinstance(block, nn.Module) else FunctionBlock(block)
        self.name = name or type(block).__name__
        self.surrogate: Surrogate | None = None
        self._distillation: Distillation | None = None
        self._mode: Mode = "block"
        self._symbolic_outputs: tuple[int, ...] = ()
        self._aliases = get_argument_aliases(block)
        self.register_buffer(_MASK, None)
        self.training = self.block.training  # not train(): submodules keep their own flags
        self.register_load_state_dict_post_hook(_own_maps)  # type: ignore[no-untyped-call]

    output_mask: Tensor | None
    """Which outputs are active, shape (d_out,), boolean; None where nothing was ever pruned."""

    # -- looking ---------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """``"block"`` or ``"symbolic"``."""
        return self._mode

    @property
    def released(self) -> bool:
        """Whether the block's weights were freed."""
        return isinstance(self.block, ReleasedBlock)

    @property
    def distillation(self) -> Distillation:
        """The last distillation.

        Raises:
            SwitchError: there was none yet.
        """
        if self._distillation is None:
            raise SwitchError(f"{self.name} has no equations yet: call distill(data) first")
        return self._distillation

    @property
    def symbolic_outputs(self) -> tuple[int, ...]:
        """The output columns that run on equations now; empty in block mode."""
        return self._symbolic_outputs if self._mode == "symbolic" else ()

    @property
    def pruned_outputs(self) -> tuple[int, ...]:
        """The output columns that are zero, whatever runs."""
        return () if self.output_mask is None else tuple((~self.output_mask).nonzero()[:, 0].tolist())

    def prune_outputs(self, active: Tensor) -> None:
        """Set outputs of the block to zero from now on, in both modes; see :class:`symtorch_core.OutputPruner`.

        Args:
            active: shape (d_out,), boolean: True for those that stay.

        Raises:
            SwitchError: an output would come back, or none would be left.
        """
        kept = active.detach().bool().reshape(-1)
        before = self.output_mask
        if before is not None and (
            kept.shape != before.shape or bool((kept & ~before.to(kept.device)).any())
        ):
            raise SwitchError(f"a pruned output of {self.name} stays pruned: make a mask from output_mask")
        if not bool(kept.any()):
            raise SwitchError(f"no output of {self.name} would be left")
        self.output_mask = kept.clone()

    def front(self, equation: int = 0) -> ParetoFront:
        """The Pareto front of one equation."""
        return self.distillation.front(equation)

    def equations(self) -> dict[str, sp.Expr]:
        """The equations in use (or that would be, in block mode), by name, with their current constants."""
        names = self.distillation.equation_names
        return dict(zip(names, self._ready().equations(), strict=True))

    def get_symbolic_function(self, output: int = 0) -> Callable[[Tensor], Tensor]:
        """One of the block's outputs by its equations, as a function (..., d_in) -> (...).

        Args:
            output: column of the block's output.

        Raises:
            SwitchError: that output has no equation.
        """
        outputs, surrogate = self.distillation.outputs, self._ready()
        if output not in outputs:
            raise SwitchError(f"output {output} has no equation; these have: {', '.join(map(str, outputs))}")
        position = outputs.index(output)

        def function(x: Tensor) -> Tensor:
            column: Tensor = surrogate(x)[..., position]
            return column

        return function

    def __getattr__(self, name: str) -> Any:
        # Models look into their blocks (a layer's weight, a batch_first flag): let them find what was there,
        # but not compute with weights whose place the equations have taken.
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "block" or name.startswith("__"):
                raise
            value = getattr(self.block, name)
            return Withheld.of(value) if isinstance(value, Tensor) and self._mode == "symbolic" else value

    def extra_repr(self) -> str:
        return f"name={self.name!r}, mode={self._mode!r}"

    def _repr_html_(self) -> str:
        rows = "" if self._distillation is None else render_result(self._distillation)
        return f"<p>SymbolicModel <b>{html.escape(self.name)}</b>, running on its {self._mode}</p>{rows}"

    def _repr_latex_(self) -> str:
        return "" if self._distillation is None else self._distillation._repr_latex_()

    # -- distilling ---------------------------------------------------------------------

    def capture(self, data: Any, *, parent: Callable[..., Any] | None = None, **options: Any) -> Activations:
        """Activations of the block, whatever the mode; see :func:`symtorch_core.activations.hooks.capture`."""
        collecting = {key: options.pop(key) for key in ("max_rows", "seed", "callbacks") if key in options}
        hooks = HookCapture.with_options(options, also=("max_rows", "seed", "callbacks"))
        with self._afterwards_as_before():
            self._mode = "block"
            return hooks.collect(self.block, data, parent=parent, **collecting)

    def distill(
        self,
        data: Any,
        *,
        parent: Callable[..., Any] | None = None,
        metric: Callable[[Any], float] | None = None,
        **options: Any,
    ) -> Distillation:
        """Fit equations to the block; see :func:`symtorch_core.distill` for the options.

        The result stays here for :meth:`switch_to_symbolic`; until that is called, the block itself runs.
        Where anything goes wrong, mode and equations are as they were.

        Args:
            data: what the block (or ``parent``) runs on.
            parent: the model that calls the block.
            metric: a figure of merit of ``parent`` (or of this module), measured on the block and on the
                equations.
            **options: of :func:`symtorch_core.distill`.
        """
        if self.released:
            raise SwitchError(f"{self.name} was released: there is no block left to distill")
        with self._afterwards_as_before():
            self._mode = "block"
            result = distill(self.block, data, parent=parent, **self._active_only(options))
            surrogate = self._placed(result.surrogate())
            if metric is not None:
                model = self if parent is None else parent
                with_block = float(metric(model))
                self.surrogate, self._distillation = surrogate, result
                self._mode, self._symbolic_outputs = "symbolic", result.outputs
                result = replace(result, task_metric=MetricChange(with_block, float(metric(model))))
        self._take(result, surrogate)
        return result

    def adopt(self, result: Distillation) -> SymbolicModel:
        """Take equations that were found elsewhere: from one pass over several blocks, or from a file.

        As after :meth:`distill`, the block itself runs until :meth:`switch_to_symbolic` is called.

        >>> net = nn.Sequential(nn.Linear(2, 1))
        >>> from symtorch_core.activations.hooks import capture
        >>> rows = capture(net, ["0"], torch.randn(100, 2))["0"]
        >>> found = distill(rows, regressor="sparse", progress=False)  # doctest: +SKIP
        >>> SymbolicModel(net[0]).adopt(found).switch_to_symbolic()  # doctest: +SKIP

        Args:
            result: a distillation of this block's inputs and outputs.

        Returns:
            Itself.

        Raises:
            SwitchError: the block was released, so that nothing could run until the switch.
        """
        if self.released:
            raise SwitchError(f"{self.name} was released: adopt equations before the block is freed")
        self._take(result, self._placed(result.surrogate()))
        return self

    def _take(self, result: Distillation, surrogate: Surrogate) -> None:
        self._mode, self._symbolic_outputs = "block", ()
        self.surrogate, self._distillation = surrogate, result

    def export(self, path: Path | str) -> Path:
        """Write the equations in use, with their current constants; see :func:`symtorch_core.exports.export`."""
        return export(self.distillation, path, copy.deepcopy(self._ready()))

    def refine(self, data: Any, *, parent: Callable[..., Any] | None = None, **options: Any) -> Refinement:
        """Fine-tune the constants of the equations in use by gradients; see :func:`symtorch_core.refine`.

        :meth:`equations` then has the new constants; fronts and fidelity of the distillation are those of the search.
        """
        return refine(self, data, parent=parent, **options)

    def _active_only(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options of a distillation that leaves out what is pruned."""
        pruned, asked = set(self.pruned_outputs), options.get("outputs")
        if self.output_mask is None or not pruned:
            return options
        if asked is not None and pruned & set(asked):
            raise SwitchError(f"output {min(pruned & set(asked))} of {self.name} is pruned: it is zero")
        active = [column for column in range(len(self.output_mask)) if column not in pruned]
        return {**options, "outputs": active if asked is None else asked}

    @contextmanager
    def running(self, mode: Mode) -> Iterator[None]:
        """Run on the block, or on the equations, inside; as before afterwards.

        Raises:
            SwitchError: there is no block left, or there are no equations.
        """
        if mode == "block" and self.released:
            raise SwitchError(f"{self.name} was released: there is no block to run")
        if mode == "symbolic":
            self._ready()
        with self._afterwards_as_before():
            self._mode = mode
            yield

    @contextmanager
    def _afterwards_as_before(self) -> Iterator[None]:
        before = (self._mode, self.surrogate, self._distillation, self._symbolic_outputs)
        try:
            yield
        finally:
            self._mode, self.surrogate, self._distillation, self._symbolic_outputs = before

    # -- switching ---------------------------------------------------------------------

    def switch_to_symbolic(
        self,
        complexity: Complexity = None,
        select: SelectionRule | None = None,
        outputs: Sequence[int] | None = None,
        trainable: bool = False,
        release_block: bool = False,
    ) -> SymbolicModel:
        """Run on equations from now on.

        Equations that are picked again keep the constants they have here, trained ones too.

        Args:
            complexity: use the equations of this complexity (one number, or equation number -> complexity).
            select: else the rule that picks them; by default the one the distillation was made with.
            outputs: output columns of the block that become symbolic, the others stay neural; all that were
                distilled by default.
            trainable: let the equations' constants receive gradients.
            release_block: free the block's weights; the way back is then a fresh model and its checkpoint.
                Every output must be symbolic. Tensors that the block returned beside the distilled one become
                None.

        Returns:
            Itself.

        Raises:
            SwitchError, SelectionError: it cannot be done, and nothing has changed.
        """
        result = self.distillation
        wanted = result.outputs if outputs is None else tuple(int(column) for column in outputs)
        distilled = ", ".join(map(str, result.outputs))
        if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(result.outputs):
            raise SwitchError(
                f"outputs={list(wanted)} cannot become symbolic: give different ones of those that were "
                f"distilled: {distilled}"
            )
        unexplained = set(range(result.block_outputs)) - set(wanted) - set(self.pruned_outputs)
        if (release_block or self.released) and unexplained:
            raise SwitchError(
                f"only {result.block_outputs - len(unexplained)} of {result.block_outputs} outputs would be symbolic: "
                "the block is needed for the others, but "
                + ("it was released" if self.released else "it would be released")
            )
        picked = tuple(candidate.expression for candidate in result.chosen(select, complexity))
        surrogate = self._ready()
        if surrogate.structure() != picked:
            surrogate = self._placed(result.surrogate(select, complexity))
        surrogate.trainable(trainable)
        self.surrogate, self._symbolic_outputs, self._mode = surrogate, tuple(sorted(wanted)), "symbolic"
        if release_block:
            self.block = ReleasedBlock()
        return self

    def switch_to_block(self) -> SymbolicModel:
        """Run on the block again; the equations stay for later. Returns itself.

        Raises:
            SwitchError: the block was released.
        """
        if self.released:
            raise SwitchError(f"{self.name} was released: there is no block to switch back to")
        self._mode = "block"
        return self

    def _ready(self) -> Surrogate:
        if self.surrogate is None:
            raise SwitchError(f"{self.name} has no equations yet: call distill(data) first")
        return self.surrogate

    def _placed(self, surrogate: Surrogate) -> Surrogate:
        """The surrogate on the block's device."""
        device = self._device()
        return surrogate if device is None else surrogate.to(device)

    def _device(self) -> torch.device | None:
        """Where the block is; None for a block without tensors."""
        tensor = next((t for t in [*self.block.parameters(), *self.block.buffers()]), None)
        return None if tensor is None else tensor.device

    # -- running ---------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._mode == "symbolic":
            return self._run_symbolic(args, kwargs)
        whole = self.block(*args, **kwargs)
        if self.output_mask is None:
            return whole
        path, tensor = pick_tensor(flatten_tensors(whole), None, f"the result of {self.name}")
        return replace_tensor(whole, path, apply_mask(tensor, self.output_mask))

    def _run_symbolic(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = self.distillation
        source = result.source
        path = source.select_output or ""
        y = self._by_equations(self._inputs(args, kwargs))
        known = {*self._symbolic_outputs, *self.pruned_outputs}
        if len(known) == result.block_outputs and (path == "" or self.released):
            if len(self._symbolic_outputs) < result.block_outputs:
                index = torch.tensor(self._symbolic_outputs, device=y.device)
                y = y.new_zeros(*y.shape[:-1], result.block_outputs).index_copy(-1, index, y)
            y = apply_mask(y, self.output_mask)
            return nest_tensor(y.squeeze(-1) if source.scalar_output else y, path)
        # The block still gives what has no equation: other outputs, other tensors of its result.
        whole = self.block(*args, **kwargs)
        _, neural = pick_tensor(flatten_tensors(whole), path, f"the result of {self.name}")
        if source.scalar_output:
            return replace_tensor(whole, path, y.squeeze(-1).to(neural.dtype))
        index = torch.tensor(self._symbolic_outputs, device=neural.device)
        mixed = neural.index_copy(-1, index, y.to(neural.dtype))
        return replace_tensor(whole, path, apply_mask(mixed, self.output_mask))

    def _inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The equations' inputs among the tensors of a call, passed by position or by keyword."""
        tensors = collect_call_tensors(args, kwargs)
        wanted = self.distillation.source.select_input or ("0",)
        if any(path not in tensors for path in wanted):
            for path, tensor in list(tensors.items()):
                head, dot, rest = path.partition(".")
                tensors.setdefault(self._aliases.get(head, head) + dot + rest, tensor)
        x, _ = pick_inputs(tensors, wanted, self.name)
        return x if x.is_floating_point() else x.to(torch.get_default_dtype())

    def _by_equations(self, x: Tensor) -> Tensor:
        """The symbolic outputs, in ascending order of their columns."""
        surrogate = self._ready()
        if x.is_nested:  # a stock TransformerEncoder packs padded batches so
            y: Tensor = torch.nested.as_nested_tensor([surrogate(part) for part in x.unbind()])
        else:
            y = surrogate(x)
        given = self.distillation.outputs
        return (
            y if self._symbolic_outputs == given else y[..., [given.index(c) for c in self._symbolic_outputs]]
        )

    # -- saving ---------------------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """Mode, equations and fronts as UTF-8 JSON in a byte tensor, which any checkpoint format can hold."""
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
        """Nothing is left to do: the state was used before the children loaded."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if WrapperState.is_in(state_dict.get(prefix + _STATE)):
            self._restore(WrapperState.from_tensor(state_dict[prefix + _STATE]))
            saved = state_dict.get(prefix + _MASK)
            self.output_mask = None if saved is None else torch.ones_like(saved, device=self._device())
        else:
            # A checkpoint of the plain block: its keys lack the wrapper's level; the equations here stay.
            for plain in [key for key in state_dict if key.startswith(prefix)]:
                state_dict[f"{prefix}block.{plain[len(prefix) :]}"] = state_dict.pop(plain)
            if self.surrogate is not None:
                for key, value in self.surrogate.state_dict().items():
                    state_dict[f"{prefix}surrogate.{key}"] = value
            if self.output_mask is not None:
                state_dict[prefix + _MASK] = self.output_mask
            state_dict[prefix + _STATE] = self.get_extra_state()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _restore(self, state: WrapperState) -> None:
        surrogate: Surrogate | None = None
        if state.distillation is not None:
            kind: type[Surrogate] = load("surrogates", state.distillation.surrogate_kind)
            # On the distillation's own maps, so that their numbers arrive with the surrogate's: _own_maps.
            made = kind.build(state.structure, state.distillation.transforms, state.distillation.reduction)
            surrogate = self._placed(made).trainable(state.trainable)
        if state.released:
            self.block = ReleasedBlock()
        self.name, self._mode = state.name, state.mode
        self.surrogate, self._distillation = surrogate, state.distillation
        self._symbolic_outputs = state.symbolic_outputs


def _own_maps(model: nn.Module, _: object) -> None:
    """After loading, give the distillation maps of its own, as it has after a search."""
    assert isinstance(model, SymbolicModel)
    result = model._distillation
    if result is not None:
        model._distillation = replace(
            result,
            transforms=copy.deepcopy(result.transforms),
            reduction=copy.deepcopy(result.reduction).cpu(),
        )


def wrap(model: nn.Module, path: str, name: str | None = None) -> SymbolicModel:
    """Replace a submodule by a :class:`SymbolicModel` around it, in place, and return that.

    A module that sits in several places of the model is replaced in all of them.

    Args:
        model: the model that holds the block.
        path: dotted path of the block, as in ``model.named_modules()``.
        name: what to call it; the path by default.

    Raises:
        CaptureError: the model has no such submodule; the message lists close ones.
        SwitchError: it is wrapped already.
    """
    block = find_block(model, path)
    if path == "":
        raise SwitchError(
            "the model itself cannot be replaced in place: use SymbolicModel(model) and call that"
        )
    if isinstance(block, SymbolicModel):
        raise SwitchError(f"{path!r} is wrapped already")
    if any(isinstance(module, SymbolicModel) and module.block is block for module in model.modules()):
        raise SwitchError(f"{path!r} is wrapped already: leave out the last part of the path for its wrapper")
    places = [(parent, key) for parent in model.modules() for key, m in parent._modules.items() if m is block]
    wrapper = SymbolicModel(block, name or path)
    for parent, key in places:
        setattr(parent, key, wrapper)
    return wrapper
