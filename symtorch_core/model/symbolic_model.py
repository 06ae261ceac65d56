"""The wrapper in a block's place, which runs either the block or its equations."""

from __future__ import annotations

import copy
import dataclasses
import html
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from torch import nn

from symtorch_core.activations.batches import peek_batch, prepare_batch
from symtorch_core.activations.hooks import find_block
from symtorch_core.activations.state_guard import take_turns
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import check_callbacks, check_flag, find_columns, find_position
from symtorch_core.errors import SwitchError
from symtorch_core.model.adding import add, check_addition, name_outputs
from symtorch_core.model.block_wrapper import BlockWrapper
from symtorch_core.model.checks import check_switch, check_widths, warn_of_losses
from symtorch_core.model.hooks import list_hooks
from symtorch_core.model.placeholders import ReleasedBlock
from symtorch_core.model.refinement import Refinement, refine
from symtorch_core.model.surroundings import (
    Calls,
    Surroundings,
    call_after_capture,
    count_calls,
    inspect_model,
    inspect_source,
)
from symtorch_core.pipeline.distill import distill
from symtorch_core.pipeline.measures import add_model_fidelity
from symtorch_core.pipeline.request import check_metric
from symtorch_core.results.choosing import Picks
from symtorch_core.results.distillation import Distillation, MetricChange
from symtorch_core.search.front import ParetoFront
from symtorch_core.surrogates.running import move_to_block
from symtorch_core.surrogates.surrogate import Surrogate
from symtorch_core.verification.whole_model import BATCH_ROWS

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it


@final
class SymbolicModel(BlockWrapper):
    """Module in place of a block: bit-exact in block mode, the equations in symbolic mode.

    Args:
        block: a module, a function of tensors, arrays or data frames, or a fitted regressor of scikit-learn.
        name: name in messages and reports; the block's type by default.

    >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> block = wrap(model, "2")
    >>> block.mode
    'block'
    """

    # -- distilling ---------------------------------------------------------------------

    @explain_calls(extra="The block itself gives the outputs; measured data: st.distill((X, Y)).")
    def distill(
        self,
        data: Any,
        *,
        parent: Callable[..., Any] | None = None,
        metric: Callable[[Any], float] | None = None,
        replace: bool = False,
        **options: Any,
    ) -> Distillation:
        """Fit equations to the block; see :func:`symtorch_core.distill` for the options.

        The result stays here for :meth:`switch_to_symbolic`; until then, the block itself runs. A search for some
        outputs (``outputs=["alpha"]``) adds to the equations that are here for others, which stay with their names,
        choices and fidelity (a log at level INFO names them); those for the same output are replaced. If the search
        fails, mode and equations stay as they were. What fails after it, as the metric may, is left out of the result,
        with a warning. Several threads may distill blocks of one model: their captures take turns
        (see :func:`symtorch_core.capture`), their searches run side by side.

        Args:
            data: data for the block (or ``parent``).
            parent: the model that calls the block.
            metric: a figure of merit of ``parent`` (or of this module), measured on the block and on the
                equations; it must run the model in this thread.
            replace: drop the equations that are here for other outputs.
            **options: options of :func:`symtorch_core.distill`.

        Raises:
            SwitchError: the block was released, an output is pruned, or equations here for other outputs cannot run
                beside the new ones, as with a reducer that mixes outputs or a variable with another definition.
        """
        if self.released:
            raise SwitchError(f"{self.name} was released: there is no block left to distill")
        check_metric(metric)
        check_flag("replace", replace, SwitchError)
        before = self._now.distillation
        old = None if replace else before
        options = self._leave_out_pruned(name_outputs(options, old))
        check_addition(self.name, old, options, self.pruned_outputs)
        with self.running("block"):
            found, batch, calls = self._search(data, parent, dict(options))
            found = _name_block(found, self.name)
            added = found if replace else self._add(found, options)
            if added is None:
                return found
            result = added
            surrogate: Surrogate | None = None
            surroundings = Surroundings(
                remark="it is unknown whether its model needs more than the equations compute, since this was not "
                "found out after the search"
            )
            try:
                surrogate = move_to_block(result.surrogate(), self.block)
                if result is not found and found.model_fidelity is not None:
                    result = add_model_fidelity(result, result.surrogate, self.block, parent, batch)
                surroundings = self._inspect(result, surrogate, parent, batch, calls)
                if metric is not None:
                    change = self._measure(metric, self if parent is None else parent, result, surrogate)
                    result = dataclasses.replace(result, task_metric=change)
            except (Exception, KeyboardInterrupt) as error:  # which must not lose the search
                warnings.warn(
                    f"the equations of {self.name} are found, but not all is measured: {error!r}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                stopped = isinstance(error, KeyboardInterrupt)
                result = dataclasses.replace(result, interrupted=result.interrupted or stopped)
        if surrogate is None:
            return result
        with self._switch.holding():
            if (
                not replace and self._now.distillation is not before
            ):  # another thread's search ended meanwhile
                added = self._add(result, options)
                if added is None:
                    return result
                result, surrogate = added, move_to_block(added.surrogate(), self.block)
            return self._install(result, surrogate, surroundings)

    def _add(self, found: Distillation, options: Mapping[str, Any]) -> Distillation | None:
        """Return a result with the equations here for other outputs; None, with a warning, if they cannot be one."""
        try:
            return add(self.name, self._now, found, options, self.pruned_outputs)
        except SwitchError as error:
            warnings.warn(
                f"the new equations are returned, but not used: {error}", RuntimeWarning, stacklevel=3
            )
            return None

    def _search(
        self, data: Any, parent: Callable[..., Any] | None, options: dict[str, Any]
    ) -> tuple[Distillation, Any, Calls]:
        """Return the distillation, a batch for the parent, and the parent's calls while the block was captured."""
        if parent is None:
            return distill(self.block, data, **options), None, Calls()
        callbacks = check_callbacks(options.pop("callbacks", ()))
        batch, data = peek_batch(data, BATCH_ROWS)
        with ExitStack() as counting:
            counting.enter_context(take_turns())
            calls = counting.enter_context(count_calls(self, self.block))
            # Later stages run the block on their own.
            watching = [*callbacks, call_after_capture(counting.close)]
            return distill(self.block, data, parent=parent, callbacks=watching, **options), batch, calls

    def _inspect(
        self,
        result: Distillation,
        surrogate: Surrogate,
        parent: Callable[..., Any] | None,
        batch: Any,
        calls: Calls,
    ) -> Surroundings:
        if parent is None:
            return inspect_source(result.provenance.source)
        comparable = batch is not None and result.model_fidelity is not None
        prepared = prepare_batch(batch, parent, None) if comparable else None
        on_equations = self._trying(result, surrogate)
        replacement = result.replacement(surrogate)
        return inspect_model(parent, self.block, calls, on_equations, replacement, prepared)

    def _measure(
        self,
        metric: Callable[[Any], float],
        model: Callable[..., Any],
        result: Distillation,
        surrogate: Surrogate,
    ) -> MetricChange:
        """Return a metric of a model on the block and on the equations."""
        with_block = float(metric(model))
        with self._trying(result, surrogate):
            return MetricChange(with_block, float(metric(model)))

    def _trying(self, result: Distillation, surrogate: Surrogate) -> AbstractContextManager[None]:
        """Return a context in which this thread runs on these equations."""
        return self._switch.trying(
            mode="symbolic",
            surrogate=surrogate,
            distillation=result,
            symbolic_outputs=tuple(sorted(result.outputs)),
            included_hooks=list_hooks(self.block),
        )

    def adopt(self, result: Distillation) -> SymbolicModel:
        """Use equations found elsewhere: from one pass over several blocks, or from a file.

        As after :meth:`distill`, the block itself runs until :meth:`switch_to_symbolic` is called.

        >>> from symtorch_core import capture
        >>> net = nn.Sequential(nn.Linear(2, 1))
        >>> rows = capture(net, ["0"], torch.randn(100, 2))["0"]  # doctest: +SKIP
        >>> found = distill(rows, regressor="sparse", progress=False)  # doctest: +SKIP
        >>> SymbolicModel(net[0]).adopt(found).switch_to_symbolic()  # doctest: +SKIP

        Args:
            result: a distillation of this block's inputs and outputs.

        Returns:
            The module itself.

        Raises:
            SwitchError: the block was released, so nothing could run until the switch; or the result is not of this
                block: it has other numbers of inputs or outputs. (The numbers of a block are known if it is linear,
                a Sequential that begins and ends so, was distilled before, or is pruned.)
        """
        if self.released:
            raise SwitchError(f"{self.name} was released: adopt equations before the block is freed")
        check_widths(self.name, self._now, self.output_mask, result)
        surrogate = move_to_block(result.surrogate(), self.block)
        self._install(result, surrogate, inspect_source(result.provenance.source))
        return self

    @explain_calls()
    def refine(self, data: Any, *, parent: Callable[..., Any] | None = None, **options: Any) -> Refinement:
        """Fine-tune the constants of the equations in use by gradients; see :func:`symtorch_core.refine`.

        :meth:`equations` then has the new constants; fronts and fidelity of the distillation are those of the search.
        """
        return refine(self, data, parent=parent, **options)

    def _install(self, result: Distillation, surrogate: Surrogate, found: Surroundings) -> Distillation:
        self._change(
            mode="block",
            surrogate=surrogate,
            distillation=result,
            symbolic_outputs=(),
            included_hooks=list_hooks(self.block),
            surroundings=found,
        )
        return result

    def _leave_out_pruned(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a distillation without pruned outputs."""
        pruned, columns = set(self.pruned_outputs), options.get("outputs")
        if self.output_mask is None or not pruned:
            return options
        if columns is not None and pruned & set(columns):
            raise SwitchError(
                f"output {min(pruned & set(columns))} of {self.name} is pruned: leave it out, since it is always zero"
            )
        active = [column for column in range(len(self.output_mask)) if column not in pruned]
        return {**options, "outputs": active if columns is None else columns}

    # -- equations -----------------------------------------------------------------------

    def front(self, equation: int | str | None = None) -> ParetoFront:
        """Return the Pareto front of one equation, by name or number; see :meth:`Distillation.front`."""
        return self.distillation.front(equation)

    def equations(self) -> dict[str, sp.Expr]:
        """Return the equations in use (or that would be, in block mode), by name, with their current constants."""
        result, surrogate = self._get_equations(self._now)
        return dict(zip(result.equation_names, surrogate.equations(), strict=True))

    @explain_calls()
    def get_symbolic_function(
        self, output: int | str | None = None, complexity: Picks | None = None
    ) -> Callable[[Any], Any]:
        """Return one of the block's outputs, computed by its equation, as a function (..., d_in) -> (...).

        The function gives a tensor for a tensor, and an array for an array.

        Args:
            output: column of the block's output, or its name; by default the first that has an equation.
            complexity: the equation of this complexity, instead of the one in use; with a reducer that mixes outputs,
                see :meth:`Distillation.choose`.

        Raises:
            SwitchError: the output has no equation.
            SelectionError: there is no equation of this complexity.
        """
        result, surrogate = self._get_equations(self._now)
        position = 0
        if output is not None:
            position = find_position("output", output, result.outputs, result.output_names, SwitchError)
        if complexity is not None:
            single = result.reduction.keeps_outputs and not isinstance(complexity, Mapping)
            picks: Any = {result.outputs[position]: complexity} if single else complexity
            chosen = [candidate.expression for candidate in result.chosen(complexity=picks)]
            # Equations in use keep their present constants.
            in_use = list(surrogate.structure())
            same = (
                chosen[position] == in_use[position] if result.reduction.keeps_outputs else chosen == in_use
            )
            surrogate = surrogate if same else move_to_block(result.surrogate(complexity=picks), self.block)

        def compute(x: Any) -> Any:
            return (surrogate.predict(x) if isinstance(x, np.ndarray) else surrogate(x))[..., position]

        return compute

    def export(self, path: Path | str) -> Path:
        """Write the equations in use, with their current constants; see :meth:`Distillation.export`."""
        result, surrogate = self._get_equations(self._now)
        return result.export(path, copy.deepcopy(surrogate))

    # -- switching ---------------------------------------------------------------------

    @explain_calls()
    def switch_to_symbolic(
        self,
        complexity: Picks | None = None,
        select: Picks | None = None,
        outputs: Sequence[int | str] | None = None,
        trainable: bool = False,
        release_block: bool = False,
    ) -> SymbolicModel:
        """Run on equations from now on.

        Equations that stay chosen keep their present constants, also trained ones.

        Args:
            complexity: choose the equations of this complexity: a number, a list with one for each equation, or a
                dictionary for some, by name or number; the others are those of ``select``.
            select: a rule, or what else :meth:`Distillation.choose` takes; by default, the distillation's choice.
            outputs: output columns of the block that become symbolic, by number or name, while the others stay neural;
                by default all distilled ones.
            trainable: let the equations' constants receive gradients.
            release_block: free the block's weights; to go back, build the model again and load its checkpoint.
                Every output must be symbolic. Tensors that the block returned beside the distilled one become
                None.

        Returns:
            The module itself.

        Raises:
            SwitchError, SelectionError: the switch is impossible, and nothing has changed.
        """
        now = self._now
        result, surrogate = self._get_equations(now)
        columns = result.outputs
        if outputs is not None:
            columns = find_columns("outputs", outputs, result.outputs, result.output_names, SwitchError)
        check_flag("trainable", trainable, SwitchError)
        check_flag("release_block", release_block, SwitchError)
        check_switch(self.name, now, result, columns, release_block)
        chosen = tuple(candidate.expression for candidate in result.chosen(select, complexity))
        if surrogate.structure() != chosen:
            surrogate = move_to_block(result.surrogate(select, complexity), now.block)
        warn_of_losses(self.name, now, release_block)
        surrogate.trainable(trainable)
        self._change(
            mode="symbolic",
            surrogate=surrogate,
            distillation=result,
            symbolic_outputs=tuple(sorted(columns)),
            block=ReleasedBlock() if release_block else now.block,
        )
        return self

    def switch_to_block(self) -> SymbolicModel:
        """Run on the block again, keep the equations for later, and return the module itself.

        Raises:
            SwitchError: the block was released.
        """
        if self.released:
            raise SwitchError(f"{self.name} was released: there is no block to switch back to")
        self._change(mode="block")
        return self

    # -- notebooks ---------------------------------------------------------------------

    def _repr_html_(self) -> str:
        now = self._now
        rows = "" if now.distillation is None else now.distillation._repr_html_()
        return f"<p>SymbolicModel <b>{html.escape(self.name)}</b>, running on its {now.mode}</p>{rows}"

    def _repr_latex_(self) -> str:
        result = self._now.distillation
        return "" if result is None else result._repr_latex_()


def _name_block(result: Distillation, name: str) -> Distillation:
    """Return a result under the wrapper's name, not that of the block inside the wrapper."""
    source = dataclasses.replace(result.provenance.source, block=name)
    return dataclasses.replace(result, provenance=dataclasses.replace(result.provenance, source=source))


@explain_calls()
def wrap(model: nn.Module, path: str, name: str | None = None) -> SymbolicModel:
    """Replace a submodule by a :class:`SymbolicModel` around it, in place, and return the wrapper.

    A module that sits in several places of the model is replaced in all of them.

    Args:
        model: the model that holds the block.
        path: dotted path of the block, as in ``model.named_modules()``.
        name: name of the wrapper; the path by default.

    Raises:
        CaptureError: the model has no such submodule; the message lists close ones.
        SwitchError: the submodule is wrapped already.
    """
    block = find_block(model, path)
    if path == "":
        raise SwitchError(
            "the model itself cannot be replaced in place: use SymbolicModel(model) and call that"
        )
    if isinstance(block, SymbolicModel):
        raise SwitchError(f"{path!r} is wrapped already: st.find_block(model, {path!r}) is its wrapper")
    if any(isinstance(module, SymbolicModel) and module.block is block for module in model.modules()):
        raise SwitchError(f"{path!r} is wrapped already: leave out the last part of the path for its wrapper")
    positions = [
        (parent, key) for parent in model.modules() for key, m in parent._modules.items() if m is block
    ]
    wrapper = SymbolicModel(block, path if name is None else name)
    for parent, key in positions:
        setattr(parent, key, wrapper)
    return wrapper
