"""The registry of components: it lists what installed plugins offer, and imports a component on request.

Listing must stay cheap, so records are collected without importing their targets. One broken plugin must not take
the others down, so each is loaded separately, and its failure is kept for error messages and ``symtorch doctor``.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, final

import pluggy

from symtorch_core.components import builtins, hookspecs
from symtorch_core.components.hookspecs import PROJECT, Component
from symtorch_core.errors import (
    DuplicateComponentError,
    MissingDependencyError,
    SymTorchError,
    UnknownComponentError,
    find_close,
)

KINDS: Final = ("captures", "reducers", "regressors", "surrogates", "studies")
CORE_DISTRIBUTION: Final = "symtorch-core"
DISABLE_VARIABLE: Final = "SYMTORCH_DISABLE_PLUGINS"

# The distribution of each first-party name, for the installation advice in messages about unknown names.
FIRST_PARTY: Final[Mapping[tuple[str, str], str]] = {
    ("regressors", "pysr"): "symtorch-pysr",
    ("regressors", "gplearn"): "symtorch-gplearn",
    ("regressors", "operon"): "symtorch-operon",
    ("regressors", "torchgp"): "symtorch-torchgp",
    ("regressors", "sparse"): "symtorch-sparse",
    ("reducers", "pca"): "symtorch-pca",
    ("reducers", "projection"): "symtorch-projection",
    ("captures", "slime"): "symtorch-slime",
    ("studies", "pinn"): "symtorch-pinn",
    ("studies", "gnn"): "symtorch-gnn",
    ("studies", "llm"): "symtorch-llm",
    ("studies", "arithmetic"): "symtorch-arithmetic",
}

# A plugin may fail in any way, and a module that calls sys.exit() must not end the user's program either.
_PLUGIN_ERRORS: Final = (Exception, SystemExit)


@final
@dataclass(frozen=True)
class Available:
    """A component with its kind and origin."""

    component: Component
    kind: str
    distribution: str
    version: str
    plugin: str

    @property
    def name(self) -> str:
        """Name of the component."""
        return self.component.name

    @property
    def origin(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}".strip()


@final
@dataclass(frozen=True)
class Failure:
    """A plugin that failed, completely or in part, with the reason."""

    plugin: str
    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {f'{self.distribution} {self.version}'.strip()}: {self.reason}"


@final
class Registry:
    """The components of the core and of the plugins named by some entry points.

    Most users need only :func:`available` and :func:`load`, which share one registry of everything installed.

    >>> Registry(entry_points=()).available("reducers")[0].name
    'identity'
    """

    def __init__(self, entry_points: Iterable[metadata.EntryPoint], *, disabled: Iterable[str] = ()) -> None:
        self.disabled: Final = frozenset(disabled)
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._sources: dict[str, tuple[str, str, str]] = {}
        self._failures: list[Failure] = []

        self._add("core", CORE_DISTRIBUTION, _get_core_version(), lambda: builtins)
        for entry_point in sorted(entry_points, key=lambda point: (_get_source(point), point.name)):
            self._add(entry_point.name, *_get_source(entry_point), entry_point.load)
        self._records = {kind: tuple(self._collect(kind)) for kind in KINDS}

    def available(self, kind: str) -> tuple[Available, ...]:
        """Return every component of a kind, imported or not; a name that two plugins offer is listed twice."""
        if kind not in KINDS:
            raise UnknownComponentError(f"There is no kind {kind!r}; the kinds are {', '.join(KINDS)}.")
        return self._records[kind]

    def load(self, kind: str, name: str) -> Any:
        """Import the component of this kind and name, and return the object its target names."""
        matches = [record for record in self.available(kind) if record.name == name]
        if not matches:
            raise UnknownComponentError(self._explain_unknown(kind, name))
        if len(matches) > 1:
            offers = "; ".join(f"{m.origin} (plugin {m.plugin!r}, {m.component.target})" for m in matches)
            raise DuplicateComponentError(
                f"{len(matches)} {kind} are named {name!r}: {offers}. Uninstall one of the distributions, or "
                f"set {DISABLE_VARIABLE} to the name of the plugin or distribution to leave out."
            )
        return _import_target(matches[0])

    def failures(self) -> tuple[Failure, ...]:
        """Return every plugin that failed to load, or had a hook or record that failed."""
        return tuple(self._failures)

    def _add(self, name: str, distribution: str, version: str, load: Callable[[], object]) -> None:
        """Register one plugin; on failure, record the reason and leave the others alone.

        pluggy's own entry-point loader silently skips a second plugin of the same name, so each plugin gets a key
        that includes its distribution.
        """
        # By either name: two plugins of one name differ only in their distributions.
        if not self.disabled.isdisjoint((name, distribution)):
            return
        key = f"{distribution}:{name}"
        self._sources[key] = (name, distribution, version)
        try:
            plugin = load()
            self._manager.register(plugin, name=key)
        except _PLUGIN_ERRORS as error:
            if self._manager.has_plugin(key):  # older pluggy registers first and validates afterwards
                self._manager.unregister(name=key)
            self._fail(key, f"{type(error).__name__}: {error}")
            return
        callers = self._manager.get_hookcallers(plugin) or []
        if not callers:
            self._fail(key, "it defines no hook; mark its functions with @hookimpl")
        for caller in callers:
            mine = [item for item in caller.get_hookimpls() if item.plugin_name == key]
            if not caller.has_spec() and not all(item.optionalhook for item in mine):
                known = [f"{PROJECT}_{kind}" for kind in KINDS]
                close = find_close(caller.name, known, cutoff=0.0)
                self._fail(key, f"there is no hook {caller.name!r}; did you mean {close[0]!r}?")

    def _collect(self, kind: str) -> Iterable[Available]:
        # One by one, not through the hook, to know who yielded what and to keep a failure with its owner.
        for implementation in getattr(self._manager.hook, f"{PROJECT}_{kind}").get_hookimpls():
            key = implementation.plugin_name
            plugin, distribution, version = self._sources[key]
            try:
                for component in implementation.function():
                    if isinstance(component, Component):
                        yield Available(component, kind, distribution, version, plugin)
                    else:
                        self._fail(key, f"{PROJECT}_{kind} gave {component!r}, which is not a Component")
            except _PLUGIN_ERRORS as error:
                self._fail(key, f"{PROJECT}_{kind} raised {type(error).__name__}: {error}")

    def _fail(self, key: str, reason: str) -> None:
        self._failures.append(Failure(*self._sources[key], reason))

    def _explain_unknown(self, kind: str, name: str) -> str:
        names = sorted({record.name for record in self._records[kind]})
        lines = [
            f"There is no component {name!r} among the {kind}; installed: {', '.join(names) or 'none'}.",
        ]
        known = {first for of_kind, first in FIRST_PARTY if of_kind == kind}
        candidates = {candidate.lower(): candidate for candidate in sorted(known.union(names))}
        close = find_close(name.lower(), candidates)
        match = name if name in known else (candidates[close[0]] if close else None)
        if match is not None and match != name:
            lines.append(f"Did you mean {match!r}?")
        if match is not None and match in known.difference(names):
            lines.append(f"For {match!r}, run `pip install {FIRST_PARTY[kind, match]}`.")
        if self._failures:
            lines.append("Failed to load: " + "; ".join(map(str, self._failures)) + ".")
        if self.disabled:
            lines.append(f"Disabled by {DISABLE_VARIABLE}: {', '.join(sorted(self.disabled))}.")
        return " ".join(lines)


def _import_target(record: Available) -> object:
    component = record.component
    what = f"{component.name!r} ({record.kind}, from {record.origin})"
    advice = f" Try: {component.hint}" if component.hint else ""
    blame = f"Please tell the authors of {record.distribution}."
    own_package = component.module.partition(".")[0] + "."
    try:
        module = importlib.import_module(component.module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name:
            if error.name.startswith(own_package):
                raise SymTorchError(f"{what} is broken: it has no module {error.name!r}. {blame}") from error
            reason = f"{what} needs the module {error.name!r}, which is not installed."
        else:
            reason = f"{what} needs something that cannot be imported: {error}."
        raise MissingDependencyError(reason + advice, name=error.name, path=error.path) from error
    except _PLUGIN_ERRORS as error:
        raise SymTorchError(
            f"{what} is broken: importing {component.module} raised {type(error).__name__}: {error}. {blame}"
        ) from error
    try:
        return getattr(module, component.attribute)
    except AttributeError as error:
        raise SymTorchError(
            f"{what} is broken: {component.module} has no attribute {component.attribute!r}. {blame}"
        ) from error


def _get_source(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    distribution = entry_point.dist
    if distribution is None:
        return "unknown", ""
    return distribution.name or "unknown", distribution.version or ""


def _get_core_version() -> str:
    try:
        return metadata.version(CORE_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from a source tree
        return ""


@functools.cache
def registry() -> Registry:
    """Return the registry of everything installed, built on first use."""
    disabled = os.environ.get(DISABLE_VARIABLE, "").split(",")
    return Registry(
        metadata.entry_points(group=PROJECT),
        disabled=[name.strip() for name in disabled if name.strip()],
    )


def available(kind: str) -> tuple[Available, ...]:
    """Return the components of a kind: captures, reducers, regressors, surrogates or studies.

    Nothing that a component needs is imported.

    >>> [record.name for record in available("reducers") if record.distribution == "symtorch-core"]
    ['identity']
    """
    return registry().available(kind)


def load(kind: str, name: str) -> Any:
    """Import the class of a component by kind and name.

    >>> load("reducers", "identity").__name__
    'IdentityReducer'
    """
    return registry().load(kind, name)


def list_failures() -> tuple[Failure, ...]:
    """Return the plugins that failed to load, with their reasons."""
    return registry().failures()
