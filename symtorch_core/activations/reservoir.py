"""A uniform sample of fixed size of the rows of one block."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.activations.block_function import CONVOLUTION
from symtorch_core.activations.rows import (
    Activations,
    Source,
    as_feature_rows,
    as_real_tensor,
    find_finite_rows,
)
from symtorch_core.activations.side_effects import list_changed, share_memory
from symtorch_core.activations.tensor_paths import (
    Selector,
    flatten_tensors,
    pick_inputs,
    pick_tensor,
    to_paths,
)
from symtorch_core.errors import CaptureError


@final
class Reservoir:
    """Uniform sample of the rows of one block, of fixed size however long the data are.

    Every row draws a random key, and the rows with the smallest keys are kept. This gives a uniform sample, the
    same for any cut into batches.

    Args:
        name: name of the block, for messages.
        select_input: the input tensors of a call.
        select_output: the output tensor of the result.
        on_nonfinite: ``"raise"`` or ``"drop"``.
        max_rows: size of the sample.
        seed: seed of the sample.
        aliases: position of each argument by its name, and back.

    Attributes:
        arrays: whether a call had a numpy array among its arguments.
    """

    def __init__(
        self,
        name: str,
        select_input: Selector,
        select_output: Selector,
        on_nonfinite: str,
        max_rows: int,
        seed: int,
        aliases: Mapping[str, str],
    ) -> None:
        self._name = name
        self._aliases = aliases
        self.arrays = False
        self._on_nonfinite = on_nonfinite
        self._most = max_rows
        self._generator = np.random.default_rng(seed)
        self._keys = np.empty(0)
        self._order = np.empty(0, dtype=np.int64)
        self._inputs: Tensor | None = None
        self._outputs: Tensor | None = None
        self._seen = self._calls = 0
        self._scalar_output = self._labels = False
        self._input_paths = to_paths(select_input)
        self._select_output = select_output
        self._output_path: str | None = None
        self._overwrites: str | None = None
        self._changed_inputs: dict[str, None] = {}  # in order

    def add(
        self, tensors: Mapping[str, Tensor], result: Any, mask: Tensor | None, after: Mapping[str, Tensor]
    ) -> None:
        """Add the rows of one call.

        Args:
            tensors: tensors of the call, by path, copied before it.
            result: result of the call.
            after: the same tensors, as the call left them.
            mask: True for the rows to keep, of the leading shape or flat; None for all.

        Raises:
            CaptureError: the selected tensors are missing, or inputs and outputs do not match row by row.
        """
        inputs, self._input_paths = pick_inputs(tensors, self._input_paths, self._name, self._aliases)
        self._output_path, output = pick_tensor(
            flatten_tensors(result), self._select_output, f"the result of {self._name}"
        )
        self._calls += 1
        for path in list_changed(after, tensors):
            if share_memory(after[path], output):
                self._overwrites = path
            else:
                self._changed_inputs[path] = None
        if inputs.ndim > 0 and output.shape == inputs.shape[:-1]:
            self._scalar_output = True
            output = output[..., None]
        if inputs.ndim == 0 or inputs.shape[:-1] != output.shape[:-1]:
            raise CaptureError(
                f"{self._name} maps {tuple(inputs.shape)} to {tuple(output.shape)}: all but the last "
                "dimension must agree, so that outputs belong to inputs row by row (choose other tensors with "
                f"select_input= or select_output=){_advise(inputs, output)}"
            )
        self._labels |= not (output.is_floating_point() or output.is_complex()) and inputs.is_floating_point()
        rows_in, rows_out = as_feature_rows(inputs), as_feature_rows(output)
        if mask is not None:
            chosen = self._flatten_mask(mask, tuple(inputs.shape[:-1])).to(rows_in.device)
            rows_in, rows_out = rows_in[chosen], rows_out[chosen]
        self._keep(rows_in, rows_out)

    def _flatten_mask(self, mask: Tensor, leading: tuple[int, ...]) -> Tensor:
        # A block may see the rows flat, but never in another order: a (batch, tokens) mask does not fit
        # (tokens, batch) rows although the numbers agree.
        if tuple(mask.shape) != leading and (mask.numel(),) != leading:
            raise CaptureError(
                f"the row mask has shape {tuple(mask.shape)}, but {self._name} sees rows of shape {leading}: "
                "give row_mask= a function of the batch, None to count every row, or a mask for each block: "
                f"{{{self._name!r}: None}}"
            )
        return mask.reshape(-1)

    def _keep(self, rows_in: Tensor, rows_out: Tensor) -> None:
        count = len(rows_in)
        keys = self._generator.random(count)
        order = np.arange(self._seen, self._seen + count)
        self._seen += count
        most = self._most
        if len(self._keys) == most:
            # Rows that cannot enter the sample stay on their device.
            entering = np.flatnonzero(keys < self._keys.max())
            index = torch.from_numpy(entering).to(rows_in.device)
            rows_in, rows_out, keys, order = rows_in[index], rows_out[index], keys[entering], order[entering]
        # Copies, because the model may later change these tensors in place.
        inputs = as_real_tensor(rows_in, "inputs").clone()
        outputs = as_real_tensor(rows_out, "outputs").clone()
        if self._inputs is not None and self._outputs is not None:
            self._check_widths(inputs, outputs, self._inputs, self._outputs)
            inputs, outputs = torch.cat([self._inputs, inputs]), torch.cat([self._outputs, outputs])
        self._inputs, self._outputs = inputs, outputs
        self._keys, self._order = np.concatenate([self._keys, keys]), np.concatenate([self._order, order])
        if len(self._keys) > most:
            kept = np.argpartition(self._keys, most)[:most]
            index = torch.from_numpy(kept)
            self._inputs, self._outputs = inputs[index], outputs[index]
            self._keys, self._order = self._keys[kept], self._order[kept]

    def _check_widths(self, inputs: Tensor, outputs: Tensor, known_in: Tensor, known_out: Tensor) -> None:
        now, before = (inputs.shape[1], outputs.shape[1]), (known_in.shape[1], known_out.shape[1])
        if now != before:
            raise CaptureError(
                f"{self._name} maps {now[0]} features to {now[1]} in one call and {before[0]} to {before[1]} "
                "in another: a block must always see rows of one width"
            )

    def finish(self, set_attributes: tuple[str, ...]) -> Activations:
        """Return the sample, in the order of the rows.

        Args:
            set_attributes: names of attributes that the block set while it was captured.

        Raises:
            CaptureError: there are no rows, or they are not finite.
        """
        if self._calls == 0 or self._inputs is None or self._outputs is None:
            raise CaptureError(
                f"{self._name} was never called: check that the model runs it on these data, and pass the "
                "model that calls it (parent=) if the data are the model's inputs. A model that calls the block's "
                "forward() or other methods, not the block itself, goes round every hook; and calls in threads that "
                "the model starts (as DataParallel does: give its .module) do not count"
            )
        if len(self._inputs) == 0:
            raise CaptureError(
                f"{self._name} gave no rows: the data are empty, or the row mask drops all of them"
            )
        if self._labels:
            warnings.warn(
                f"the outputs of {self._name} are whole numbers: if they are labels of classes, distill what they are "
                "chosen by (logits or probabilities), since equations are smooth",
                RuntimeWarning,
                stacklevel=2,
            )
        order = torch.from_numpy(np.argsort(self._order))
        inputs, outputs = self._inputs[order], self._outputs[order]
        finite = find_finite_rows(inputs, outputs, self._on_nonfinite)
        if not bool(finite.any()):
            raise CaptureError(f"every row of {self._name} holds NaN or infinite values")
        source = Source(
            block=self._name,
            rows_seen=self._seen,
            rows_dropped=int((~finite).sum()),
            calls=self._calls,
            scalar_output=self._scalar_output,
            select_input=self._input_paths,
            select_output=self._output_path,
            overwrites=self._overwrites,
            changed_inputs=tuple(self._changed_inputs),
            set_attributes=set_attributes,
            arrays=self.arrays,
        )
        return Activations(inputs[finite], outputs[finite], source=source)


def _advise(inputs: Tensor, output: Tensor) -> str:
    """Return how images and their like become rows, if these tensors look like some."""
    if inputs.ndim < 3 or inputs.shape[:1] != output.shape[:1]:
        return ""
    if output.ndim == inputs.ndim:
        return CONVOLUTION
    shape = ", ".join(map(str, inputs.shape[1:]))
    return (
        f". If a whole ({shape}) is one row, give a function of flat rows: "
        f"st.distill(lambda rows: block(rows.reshape(-1, {shape})), x.flatten(1))"
    )
