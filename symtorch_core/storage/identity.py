"""Identification of values across processes: settings by value, functions by code, objects by state."""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import inspect
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Set
from operator import attrgetter
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NoReturn, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.errors import SearchError

_FLAGS: Final = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
"""Flags of code that change what it does, unlike where it stands."""
_NOT_CODE: Final = frozenset(
    {"__dict__", "__weakref__", "__module__", "__doc__", "_abc_impl", "__static_attributes__"}
    | {"__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"}
    | {"__dataclass_fields__", "__dataclass_params__"}
)
"""Attributes of a class that do not change what its methods do."""


def identify(value: Any, name: str = "the value") -> Any:
    """Return JSON data that are the same for the same value in every process, and others for any other value.

    Plain data stand for themselves, arrays for their bytes. A function stands for its code, with the values of its
    constants, defaults and closure and of the globals that it names; only functions of installed packages stand for
    their names. Any other object stands for its type and for the state that pickle would write. Names of functions,
    files and lines do not count.

    Args:
        value: anything.
        name: what it is, for the message.

    Raises:
        SearchError: it holds something that exists in this process only, like a lock or an open file.

    >>> identify({"seed": 0, "sizes": (1, 2)})
    {'seed': 0, 'sizes': [1, 2]}
    >>> identify(lambda x: x + 1) == identify(lambda x: x + 2)
    False
    """
    return _Identifier().identify(value, name)


def to_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor, behind its precision and shape."""
    rows = tensor.detach().cpu().contiguous()
    line = rows.as_strided((rows.numel(),), (1,))  # reshape keeps any stride of a single number
    return f"{rows.dtype}{tuple(rows.shape)}".encode() + line.view(torch.uint8).numpy().tobytes()


@final
class _Identifier:
    """One reading of a value; remembers the objects it has met, since they may refer to each other."""

    def __init__(self) -> None:
        self._met: dict[
            int, tuple[Any, str]
        ] = {}  # the object too, so that its id is not given to another one

    def identify(self, value: Any, name: str) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return self.identify(value.item(), name)
        if isinstance(value, list | tuple):
            return [self.identify(entry, name) for entry in value]
        if isinstance(value, Mapping):
            return self._identify_mapping(value, name)
        if isinstance(value, Set):
            return {"set": _sort([self.identify(entry, name) for entry in value])}
        return self._identify_object(value, name)

    def _identify_mapping(self, value: Mapping[Any, Any], name: str) -> Any:
        if all(isinstance(key, str) for key in value):
            return {key: self.identify(value[key], f"{key!r} of {name}") for key in sorted(value)}
        return {
            "pairs": _sort([[self.identify(key, name), self.identify(value[key], name)] for key in value])
        }

    def _identify_object(self, value: Any, name: str) -> str:
        """Return a digest of an object, which may lead back to itself."""
        if id(value) not in self._met:
            self._met[id(value)] = value, f"object {len(self._met)}"
            parts = self._describe(value, name)
            self._met[id(value)] = value, hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._met[id(value)][1]

    def _describe(self, value: Any, name: str) -> Any:
        match value:
            case bytes() | bytearray():
                return ["bytes", value.hex()]
            case Tensor() if value.layout == torch.strided and not value.is_meta:
                return ["tensor", hashlib.sha256(to_bytes(value)).hexdigest()]
            case np.ndarray() if type(value) is np.ndarray and not value.dtype.hasobject:
                return ["array", str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
            case ModuleType() if _is_library(value.__name__):
                return ["module", value.__name__]
            case CodeType():
                return self._describe_code(value, name)
            case type() | FunctionType() if _is_installed(value):
                return ["installed", value.__module__, value.__qualname__]
            case type():
                return self._describe_class(value, name)
            case FunctionType():
                return self._describe_function(value, name)
            case MethodType():
                return ["method", *(self.identify(part, name) for part in (value.__func__, value.__self__))]
            case BuiltinFunctionType() if value.__self__ is None or isinstance(value.__self__, ModuleType):
                return ["built in", value.__module__, value.__qualname__]
            case BuiltinFunctionType():
                return ["method", value.__name__, self.identify(value.__self__, name)]
            case staticmethod() | classmethod():
                return [type(value).__name__, self.identify(value.__func__, name)]
            case property():
                return ["property", self.identify([value.fget, value.fset, value.fdel], name)]
            case functools.cached_property():
                return ["property", self.identify(value.func, name)]
        return self._describe_state(value, name)

    def _describe_state(self, value: Any, name: str) -> Any:
        """Describe an object by what pickle would write of it."""
        try:
            registered = copyreg.dispatch_table.get(type(value))
            state = value.__reduce_ex__(4) if registered is None else registered(value)
        except Exception as error:  # whatever an object raises that cannot be written
            _refuse(value, name, str(error))
        if not isinstance(state, str):
            made, args, *rest = state
            rest = [list(entry) if isinstance(entry, Iterator) else entry for entry in rest]
            return ["object", self.identify([made, args, *rest], f"{name}, a {type(value).__name__}")]
        wrapped = getattr(value, "__wrapped__", None)  # of functools.lru_cache, which is pickled by its name
        if wrapped is not None:
            return ["wrapped", type(value).__name__, self.identify(wrapped, name)]
        module = getattr(value, "__module__", None) or type(value).__module__
        if not _is_library(module) or _look_up(module, state) is not value:
            _refuse(value, name, "it is known by its name only")
        return ["installed", module, state]

    def _describe_class(self, value: type, name: str) -> Any:
        members = {key: member for key, member in vars(value).items() if key not in _NOT_CODE}
        return ["class", value.__qualname__, self.identify([value.__bases__, members], f"{name}, a class")]

    def _describe_function(self, value: FunctionType, name: str) -> Any:
        inside = f"{name}, the function {value.__name__!r}"
        code, known = value.__code__, value.__globals__
        used = {key: known[key] for key in _list_globals(code) if key in known}
        used |= {key: sys.modules[key] for key in _list_imports(code) if key in sys.modules}
        used |= {
            key: cell.cell_contents
            for key, cell in zip(code.co_freevars, value.__closure__ or (), strict=True)
            if cell != CellType()  # empty: of a name that is not bound yet
        }
        return [
            "function",
            self._describe_code(code, inside),
            self.identify([value.__defaults__, value.__kwdefaults__, vars(value)], inside),
            self._describe_names(used, _list_names(code), inside),
        ]

    def _describe_names(self, used: Mapping[str, Any], names: Set[str], inside: str) -> Any:
        """Describe what a function uses; a module by what a function with these names in its code may use of it."""
        modules = {key: value for key, value in used.items() if isinstance(value, ModuleType)}
        plain = {key: value for key, value in used.items() if key not in modules}
        described = {
            key: self._describe_module(modules[key], names - {key}, inside) for key in sorted(modules)
        }
        return [self.identify(plain, inside), described]

    def _describe_module(self, module: ModuleType, names: Set[str], inside: str) -> Any:
        if _is_library(module.__name__):
            return module.__name__
        used = {key: vars(module)[key] for key in names if key in vars(module)}
        return [module.__name__, self._describe_names(used, names, inside)]

    def _describe_code(self, code: CodeType, name: str) -> Any:
        return [
            code.co_code.hex(),
            code.co_exceptiontable.hex(),
            [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS],
            [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars],
            self.identify(code.co_consts, name),
        ]


def _refuse(value: Any, name: str, reason: str) -> NoReturn:
    raise SearchError(
        f"{name} holds a {type(value).__name__} that no other process could know again ({reason}), so finished work "
        "could be taken for other work: give plain data, or functions that use only plain data, or keep no files "
        "(leave out resume=)"
    )


def _sort(entries: list[Any]) -> list[Any]:
    return sorted(entries, key=json.dumps)


def _walk(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _walk(constant)


def _list_names(code: CodeType) -> frozenset[str]:
    """Return all names in a code: of globals, attributes and modules."""
    return frozenset(name for part in _walk(code) for name in part.co_names)


def _list_globals(code: CodeType) -> list[str]:
    return _list_arguments(code, {"LOAD_GLOBAL", "LOAD_NAME"})


def _list_imports(code: CodeType) -> list[str]:
    return _list_arguments(code, {"IMPORT_NAME"})


def _list_arguments(code: CodeType, operations: Set[str]) -> list[str]:
    steps = (step for part in _walk(code) for step in dis.get_instructions(part))
    return sorted({step.argval for step in steps if step.opname in operations})


def _is_installed(value: Any) -> bool:
    """Return whether a function or class is what an installed package has under its name."""
    module = value.__module__  # None in code that was made at run time
    return module is not None and _is_library(module) and _look_up(module, value.__qualname__) is value


def _look_up(module: str, name: str) -> Any:
    try:
        return attrgetter(name)(sys.modules.get(module))
    except AttributeError:
        return None


@functools.cache
def _is_library(module: str) -> bool:
    """Return whether a module belongs to Python or to an installed package, and not to the user's own code."""
    if module.partition(".")[0] in sys.builtin_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return file is not None and any(Path(file).is_relative_to(folder) for folder in folders)
