"""Checkpoints of models with wrapped blocks, restored into fresh plain models."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from symtorch_core.activations.hooks import find_block
from symtorch_core.components.calls import explain_calls
from symtorch_core.components.checks import check_path
from symtorch_core.errors import FileFormatError, SwitchError, SymTorchError
from symtorch_core.model.loading import STATE, check_tensors, read_setting
from symtorch_core.model.setting import Setting
from symtorch_core.model.state import WrapperState
from symtorch_core.model.symbolic_model import SymbolicModel, wrap

_M = TypeVar("_M", bound=nn.Module)
_FILES: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SHOWN: Final = 5


@explain_calls()
def restore(model: nn.Module, source: Mapping[str, Any] | Path | str) -> dict[str, SymbolicModel]:
    """Wrap the blocks of a plain model that a checkpoint has wrapped, load it, and return the wrappers by path.

    Mode, equations and all weights are those of the model that was saved. The model is as it was after an error.

    Args:
        model: of the class and sizes of the saved model; blocks may be wrapped already.
        source: a state_dict, a file of one (``.pt``, ``.safetensors``), or a folder as ``save_pretrained`` writes it.
            Nothing in it is executed.

    >>> saved = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    >>> _ = wrap(saved, "0")
    >>> fresh = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    >>> restore(fresh, saved.state_dict())["0"].mode
    'block'

    Raises:
        FileFormatError: the checkpoint has no wrapped block, is damaged, or is of another model; the message lists the
            differences.
        UnknownComponentError, MissingDependencyError: a reducer or surrogate in it is not installed.
    """
    if not isinstance(model, nn.Module):
        raise SwitchError(f"model must be the plain model, as a module, not a {type(model).__name__}")
    tensors = read_checkpoint(source)
    paths = find_wrapped(tensors)
    if not paths:
        raise FileFormatError(
            "the checkpoint holds no wrapped block: model.load_state_dict(...) or from_pretrained of its class loads it"
        )
    if "" in paths:
        raise FileFormatError(
            "the checkpoint is of a SymbolicModel itself: SymbolicModel(model).load_state_dict(...)"
        )
    before = [(parent, dict(parent._modules)) for parent in model.modules()]
    try:
        for path in paths:  # outer ones first, since an inner one has its path in them
            block = dict(model.named_modules(remove_duplicate=False)).get(path)
            if block is None:
                raise FileFormatError(f"the checkpoint is of another model: this one has no {path}")
            if not isinstance(block, SymbolicModel):
                wrap(model, path)
        wrappers = {path: model.get_submodule(path) for path in paths}
        tensors = _check(model, tensors, paths)
        model.load_state_dict(tensors)
    except BaseException as error:
        for parent, children in before:
            parent._modules.update(children)
        if isinstance(error, (RuntimeError, KeyError)) and not isinstance(error, SymTorchError):
            raise FileFormatError(f"the checkpoint does not fit the model: {error}") from error
        raise
    return {path: wrapper for path, wrapper in wrappers.items() if isinstance(wrapper, SymbolicModel)}


@explain_calls()
def from_pretrained(
    kind: type[_M],
    folder: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **config: Any,
) -> _M:
    """Return a Hugging Face model with wrapped blocks, from a folder that ``save_pretrained`` wrote.

    ``from_pretrained`` of the class itself knows no wrapped blocks, and refuses such a folder.

    Args:
        kind: class of the model in transformers (``LlamaForCausalLM``, ``AutoModelForCausalLM``), or one that has
            ``config_class`` like these.
        folder: on disk, with ``config.json`` and the weights.
        dtype: of the weights; by default that of the saved ones.
        device: where the model is to be.
        **config: changes of the configuration, such as ``attn_implementation="eager"``.

    Raises:
        FileFormatError: the folder holds no such model; see :func:`restore`.
        SwitchError: the class cannot be built from a configuration.
    """
    path = check_path("folder", folder, SwitchError, "folder")
    if not (path / "config.json").is_file():
        raise FileFormatError(
            f"{path} has no config.json: give a folder of save_pretrained (of a model on the hub, download it first)"
        )
    tensors = read_checkpoint(path)
    model: _M = _build(kind, path, config)
    if dtype is None:
        weights = (value for key, value in tensors.items() if ".surrogate." not in key)
        dtype = next((value.dtype for value in weights if value.is_floating_point()), None)
    model = model.to(device=device, dtype=dtype)
    restore(model, tensors)
    return model.eval()


def _build(kind: Any, path: Path, changes: Mapping[str, Any]) -> Any:
    """Return a plain model of a class, with random weights, by the configuration in a folder."""
    if not isinstance(kind, type):
        raise SwitchError(f"kind must be a class of transformers, like LlamaForCausalLM, not {kind!r}")
    of_class = getattr(kind, "config_class", None)
    automatic = getattr(kind, "from_config", None)
    if of_class is not None:
        return kind(of_class.from_pretrained(path, **changes))
    if automatic is None:
        raise SwitchError(
            f"{kind.__name__} has neither config_class nor from_config: build the model, and st.restore(model, folder)"
        )
    library = importlib.import_module(kind.__module__.partition(".")[0])
    return automatic(library.AutoConfig.from_pretrained(path, **changes))


def find_wrapped(tensors: Mapping[str, Any]) -> list[str]:
    """Return the paths of the blocks that are wrapped in a checkpoint, outer ones first."""
    ends = [(key, key.removesuffix(STATE)) for key in tensors if key == STATE or key.endswith(f".{STATE}")]
    return sorted(prefix.rstrip(".") for key, prefix in ends if WrapperState.is_in(tensors[key]))


def read_checkpoint(source: Mapping[str, Any] | Path | str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; nothing in it is executed.

    Args:
        source: a state_dict, a file or a folder, as for :func:`restore`.

    Raises:
        FileFormatError: it cannot be read, or holds something else than tensors.
    """
    if isinstance(source, Mapping):
        tensors: Any = source
    else:
        path = check_path("source", source, FileFormatError, "file or folder")
        tensors = _read_folder(path) if path.is_dir() else _read_file(path)
    if not isinstance(tensors, Mapping) or not tensors:
        raise FileFormatError("the checkpoint is no state_dict, which has tensors by name")
    inner = [key for key, value in tensors.items() if isinstance(value, Mapping)]
    if inner and not any(isinstance(value, Tensor) for value in tensors.values()):
        raise FileFormatError(
            f"the checkpoint holds several things: give one of its entries, checkpoint[{inner[0]!r}]"
        )
    return dict(tensors)


def _read_file(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        ValueError,
        RuntimeError,
        EOFError,
        safetensors.SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        raise FileFormatError(f"{path} cannot be read: {str(error).partition(chr(10))[0]}") from error


def _read_folder(folder: Path) -> dict[str, Any]:
    found = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if found is None:
        raise FileFormatError(f"{folder} holds no weights: there is none of {', '.join(_FILES)}")
    if found.suffix != ".json":
        return dict(_read_file(found))
    try:
        names = set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise FileFormatError(f"{found} is no list of files: {error!r}") from error
    tensors: dict[str, Any] = {}
    for name in sorted(names):
        if not isinstance(name, str) or Path(name).name != name:
            raise FileFormatError(f"{found} names {name!r}, which is no file of this folder")
        tensors.update(_read_file(folder / name))
    return tensors


def _check(model: nn.Module, tensors: dict[str, Tensor], paths: list[str]) -> dict[str, Tensor]:
    """Return the tensors with tied ones that were left out; refuse, before anything loads, what does not fit.

    Raises:
        FileFormatError: names or shapes differ, or the state of a wrapped block is damaged.
    """
    states = {
        path: WrapperState.from_tensor(tensors[f"{path}.{STATE}"], tensors, f"{path}.surrogate.reduction.")
        for path in paths
    }
    for path, state in states.items():
        setting = Setting(find_block(model, f"{path}.block"))
        check_tensors(tensors, f"{path}.", read_setting(state, setting), None)

    def is_checked(key: str) -> bool:  # wrappers check their own numbers
        owner = max((path for path in paths if key.startswith(f"{path}.")), key=len, default=None)
        return owner is None or (key.startswith(f"{owner}.block.") and not states[owner].released)

    own = {key: value for key, value in model.state_dict(keep_vars=True).items() if is_checked(key)}
    names = {id(value): key for key, value in own.items() if key in tensors}
    tied = {
        key: tensors[names[id(value)]]
        for key, value in own.items()
        if key not in tensors and id(value) in names
    }
    tensors = {**tensors, **tied}
    problems = [f"{key} is missing" for key in own if key not in tensors]
    problems += [f"{key} is unknown" for key in tensors if key not in own and is_checked(key)]
    problems += [
        f"{key} has shape {_get_shape(tensors[key])}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in tensors and isinstance(value, Tensor) and _get_shape(tensors[key]) != tuple(value.shape)
    ]
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise FileFormatError(f"the checkpoint does not fit the model: {', '.join(problems[:_SHOWN])}{more}")
    return tensors


def _get_shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
