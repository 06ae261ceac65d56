"""A block's attributes and items, as those of the wrapper around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from symtorch_core.components.habits import OF_MODEL, explain_attribute
from symtorch_core.errors import SwitchError
from symtorch_core.model.placeholders import WithheldWeight
from symtorch_core.model.setting import Setting


class BlockAttributes(nn.Module, ABC):
    """Module that has the attributes and items of the block in it.

    Models read, write and iterate over their blocks (a layer's weight, a batch_first flag, the layers of a Sequential).
    They may do so here, but not compute with weights that the equations replace.
    """

    name: str
    """Name of the block in messages."""

    @property
    @abstractmethod
    def _now(self) -> Setting:
        """What runs in this thread."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "block" not in vars(self).get("_modules", {}):
                raise
        now = self._now
        try:
            value = getattr(now.block, name)
        except AttributeError as error:
            block = type(now.block).__name__
            text = explain_attribute(f"{type(self).__name__} {self.name!r} around a {block}", name, OF_MODEL)
            raise AttributeError(text, name=name, obj=self) from error
        if now.mode == "block":
            return value
        result = now.distillation
        if result is not None and now.replaces_block() and name in result.provenance.source.set_attributes:
            raise SwitchError(
                f"{name} is set by {self.name} when it runs, but equations run in its place: switch_to_block(), or "
                "make the block return it"
            )
        return WithheldWeight.of(value) if isinstance(value, Tensor) else value

    def __setattr__(self, name: str, value: Any) -> None:
        if self._owns(name):
            super().__setattr__(name, value)
        else:
            setattr(self._now.block, name, value)

    def __delattr__(self, name: str) -> None:
        if self._owns(name):
            super().__delattr__(name)
        else:
            delattr(self._now.block, name)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        if self._owns(name):
            super().register_buffer(name, tensor, persistent)
        else:
            self._now.block.register_buffer(name, tensor, persistent)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if self._owns(name):
            super().register_parameter(name, param)
        else:
            self._now.block.register_parameter(name, param)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        if self._owns(name):
            super().add_module(name, module)
        else:
            self._now.block.add_module(name, module)

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
        now = self._now
        if now.mode == "symbolic":
            raise SwitchError(
                f"{self.name} runs on equations, and computing with its parts would go round them: switch_to_block(), "
                "or use the wrapper's .block to look at them"
            )
        return now.block
