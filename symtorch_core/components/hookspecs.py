"""The hooks of a plugin, in one file.

A plugin is a module, installed by any distribution and named by an entry point of the group ``symtorch``:

    [project.entry-points.symtorch]
    gplearn = "symtorch_gplearn.plugin"

The module defines one or more of the hooks below, each marked ``@hookimpl``. A hook yields :class:`Component`
records: a short description and a dotted path. The plugin module must import nothing heavy, since it is imported
whenever components are listed; the path is imported only when the component is loaded by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

import pluggy

from symtorch_core.errors import SymTorchError

PROJECT: Final = "symtorch"

hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


@final
@dataclass(frozen=True)
class Component:
    """One component that a plugin offers.

    ``name`` is what users type, ``target`` is the location of the class ("package.module:Attribute"), ``summary``
    is one line for listings, and ``hint`` says how to install a missing dependency of the target.

    >>> Component(name="pca", target="symtorch_pca.reducer:PCAReducer", summary="Principal components").name
    'pca'
    """

    name: str
    target: str
    summary: str
    hint: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "target", "summary", "hint"):
            value = getattr(self, field)
            if not isinstance(value, str):
                raise SymTorchError(f"Component.{field} must be a text; it is {value!r}.")
        if not self.name or any(character.isspace() for character in self.name):
            raise SymTorchError(
                f"Component.name is {self.name!r}; give it at least one character and no whitespace: "
                "it is what users type."
            )
        module, colon, attribute = self.target.partition(":")
        if not (colon and attribute.isidentifier() and all(map(str.isidentifier, module.split(".")))):
            raise SymTorchError(
                f"Component.target of {self.name!r} is {self.target!r}; write 'package.module:Attribute', "
                "the absolute module and one attribute of it."
            )

    @property
    def module(self) -> str:
        """Module part of the target."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """Attribute part of the target."""
        return self.target.partition(":")[2]


@hookspec
def symtorch_captures() -> Iterable[Component]:
    """Offer ways to collect the activations of a running block.

    The target is a subclass of :class:`symtorch_core.Capture`.

    >>> from symtorch_core import Component, hookimpl
    >>> @hookimpl
    ... def symtorch_captures():
    ...     yield Component(
    ...         name="replay",
    ...         target="my_package.replay:ReplayCapture",
    ...         summary="Reads activations that an earlier run wrote to disk",
    ...     )
    """
    return ()


@hookspec
def symtorch_reducers() -> Iterable[Component]:
    """Offer maps that make a wide block narrow enough for a search.

    The target is a subclass of :class:`symtorch_core.Reducer`. A complete package with this hook is
    in ``docs/examples/symtorch-example-reducer``.

    >>> from symtorch_core import Component, hookimpl
    >>> @hookimpl
    ... def symtorch_reducers():
    ...     yield Component(
    ...         name="variance",
    ...         target="my_package.variance:VarianceReducer",
    ...         summary="Keeps the k columns of largest variance",
    ...     )
    """
    return ()


@hookspec
def symtorch_regressors() -> Iterable[Component]:
    """Offer searches that find fronts of equations for rows of data.

    The target is a subclass of :class:`symtorch_core.Regressor`.

    >>> from symtorch_core import Component, hookimpl
    >>> @hookimpl
    ... def symtorch_regressors():
    ...     yield Component(
    ...         name="enumerate",
    ...         target="my_package.enumerate:EnumerateRegressor",
    ...         summary="Tries every small expression",
    ...         hint="pip install my-package[enumerate]",
    ...     )
    """
    return ()


@hookspec
def symtorch_surrogates() -> Iterable[Component]:
    """Offer modules that run equations in place of a block.

    The target is an :class:`torch.nn.Module` class with the constructor of
    :class:`symtorch_core.TorchSurrogate`.

    >>> from symtorch_core import Component, hookimpl
    >>> @hookimpl
    ... def symtorch_surrogates():
    ...     yield Component(
    ...         name="table",
    ...         target="my_package.table:TableSurrogate",
    ...         summary="Looks values up in a precomputed grid",
    ...     )
    """
    return ()


@hookspec
def symtorch_studies() -> Iterable[Component]:
    """Offer experiments that a user starts by name (``symtorch run NAME``), with published figures to compare with.

    The target is a subclass of :class:`symtorch_core.studies.Study`.

    >>> from symtorch_core import Component, hookimpl
    >>> @hookimpl
    ... def symtorch_studies():
    ...     yield Component(
    ...         name="pendulum",
    ...         target="my_package.pendulum:PendulumStudy",
    ...         summary="Rediscovers the small-angle law from a trained network",
    ...     )
    """
    return ()
