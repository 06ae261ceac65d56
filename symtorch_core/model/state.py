"""The state of a wrapped block in a checkpoint: its mode and equations, as text in a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor

from symtorch_core.errors import ExpressionError, FileFormatError
from symtorch_core.expressions import Expression, parse
from symtorch_core.results.distillation import Distillation
from symtorch_core.results.files import decode_distillation, encode_distillation, reuse_functions
from symtorch_core.results.records import SCHEMA, WrapperRecord
from symtorch_core.results.restoring import check_parts, restore_reduction
from symtorch_core.storage.documents import read_document, summarize, write_document

Mode = Literal["block", "symbolic"]
_OPENING = b'{"schema":'


@final
@dataclass(frozen=True)
class WrapperState:
    """State of a wrapped block besides its tensors.

    Attributes:
        name: name of the block in messages.
        mode: the current mode.
        distillation: the last one, or None; its reducer's tensors are saved with the surrogate.
        structure: equations that the surrogate was built with.
        symbolic_outputs: the block's output columns that run on equations in symbolic mode.
        trainable: whether the surrogate's constants receive gradients.
        released: whether the block's weights were freed.
    """

    name: str
    mode: Mode = "block"
    distillation: Distillation | None = None
    structure: tuple[Expression, ...] = ()
    symbolic_outputs: tuple[int, ...] = ()
    trainable: bool = False
    released: bool = False

    def to_tensor(self) -> Tensor:
        """Return the state as UTF-8 JSON in a byte tensor, which any checkpoint format can hold.

        A transform or a loss that is a Python function is left out, and a warning names it.
        """
        content = {
            "schema": SCHEMA,
            "name": self.name,
            "mode": self.mode,
            "distillation": None if self.distillation is None else encode_distillation(self.distillation),
            "structure": [str(expression) for expression in self.structure],
            "symbolic_outputs": list(self.symbolic_outputs),
            "trainable": self.trainable,
            "released": self.released,
        }
        return torch.frombuffer(bytearray(write_document(content).encode()), dtype=torch.uint8)

    @classmethod
    def is_in(cls, value: Any) -> bool:
        """Return whether an extra state is of this class, and not of a block with an extra state of its own."""
        if not isinstance(value, Tensor) or value.ndim != 1:
            return False
        return _to_bytes(value[: len(_OPENING)]) == _OPENING

    @classmethod
    def from_tensor(cls, tensor: Tensor, tensors: Mapping[str, Tensor], prefix: str = "") -> WrapperState:
        """Build the state from what :meth:`to_tensor` returned. Nothing in it is executed.

        Args:
            tensor: the state.
            tensors: those of the checkpoint.
            prefix: beginning of the names of the reducer's maps among them.

        Raises:
            FileFormatError: the state is damaged, of another version, or does not fit the tensors.
            UnknownComponentError, MissingDependencyError: its reducer or surrogate is not installed.
        """
        what = "the saved state of a wrapped block"
        record = read_document(_to_bytes(tensor), WrapperRecord, SCHEMA, what)
        distillation: Distillation | None = None
        variables: tuple[str, ...] = ()
        try:
            if record.distillation is not None:
                saved = record.distillation
                reduction = restore_reduction(saved.provenance.reducer, saved.reduction, tensors, prefix)
                distillation, variables = decode_distillation(saved, reduction), reduction.variable_names
                check_parts(distillation)
            state = cls(
                name=record.name,
                mode=record.mode,
                distillation=distillation,
                structure=tuple(parse(text, variables) for text in record.structure),
                symbolic_outputs=tuple(record.symbolic_outputs),
                trainable=record.trainable,
                released=record.released,
            )
        except (FileFormatError, ExpressionError) as error:
            raise FileFormatError(f"{what} ({record.name!r}) is damaged: {summarize(error)}") from error
        state._check()
        return state

    def reuse_functions(self, own: Distillation | None) -> WrapperState:
        """Return the state with the wrapper's own Python functions in place of those that a file cannot hold."""
        if self.distillation is None:
            return self
        return replace(self, distillation=reuse_functions(self.distillation, own))

    def _check(self) -> None:
        outputs = () if self.distillation is None else self.distillation.outputs
        equations = 0 if self.distillation is None else len(self.distillation.fronts)
        consistent = (
            len(self.structure) == equations
            and set(self.symbolic_outputs) <= set(outputs)
            and (self.mode == "block" or bool(self.symbolic_outputs))
        )
        if not consistent:
            raise FileFormatError(
                "the saved state of a wrapped block is damaged: mode, equations and outputs do not fit"
            )


def _to_bytes(tensor: Tensor) -> bytes:
    """Return the bytes in a tensor, also of a checkpoint that was cast: every float type holds 0 to 255 exactly."""
    values = tensor.detach().cpu().double()
    whole = bool(((values >= 0) & (values <= 255) & (values == values.round())).all())
    return bytes(values.to(torch.uint8).tolist()) if whole else b""
