"""Surrogates in a folder beside the checkpoint of their model, as safetensors, with JSON to read.

Nothing in the files is executed: tensors are read by safetensors, equations by the core's own grammar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from symtorch_core import FileFormatError, SwitchError, SymbolicModel, wrap
from symtorch_core.studies import Store, write_whole

_NAME: Final = "symbolic"
TENSORS: Final = f"{_NAME}.safetensors"
LAYERS: Final = f"{_NAME}.json"
"""For people: it is not read again."""
_SCHEMA: Final = 2
_BLOCK: Final = "block."


def save_surrogates(model: nn.Module, folder: Path | str) -> Path:
    """Save the blocks of a model that run on equations: ``symbolic.safetensors``, and ``symbolic.json`` to read.

    The folder may be that of the model's own checkpoint, whose files are left alone.

    Args:
        model: with wrapped blocks in symbolic mode.
        folder: created if missing.

    Returns:
        The folder.

    Raises:
        SwitchError: nothing in the model runs on equations.
    """
    blocks = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, SymbolicModel) and module.mode == "symbolic"
    }
    if not blocks:
        raise SwitchError(
            "nothing in the model runs on equations, so there is nothing to save: call switch_to_symbolic() first"
        )
    folder = Path(folder)
    tensors = {
        f"{path}.{key}": value
        for path, block in blocks.items()
        for key, value in block.state_dict().items()
        if not key.startswith(_BLOCK)
    }
    layers = [
        {
            "path": path,
            "maps": block.distillation.reduction.summary(),
            "equations": {name: str(equation) for name, equation in block.equations().items()},
        }
        for path, block in blocks.items()
    ]
    Store(folder).write_tensors(_NAME, tensors, about={"schema": _SCHEMA, "paths": list(blocks)})
    with write_whole(folder / LAYERS) as unfinished:
        unfinished.write_text(json.dumps({"layers": layers}, indent=1), encoding="utf-8")
    return folder


def load_surrogates(
    model: nn.Module, folder: Path | str, *, release_block: bool = True
) -> list[SymbolicModel]:
    """Put saved surrogates into a model that was loaded from its own checkpoint.

    Args:
        model: with the architecture of the saved one.
        folder: of :func:`save_surrogates`.
        release_block: free the replaced weights.

    Returns:
        The blocks that now run on equations, in place.

    Raises:
        FileFormatError: the folder holds no surrogates, they are damaged, or belong to another model, which is then
            as it was.
    """
    folder = Path(folder)
    saved = Store(folder).read_tensors(_NAME)
    if saved is None:
        raise FileFormatError(f"{folder} holds no surrogates: there is no {TENSORS}")
    tensors, about = saved
    if not isinstance(about, dict) or about.get("schema") != _SCHEMA:
        raise FileFormatError(f"{folder / TENSORS} is of another version: save the surrogates again")
    paths = [str(path) for path in about["paths"]]
    modules = dict(model.named_modules())
    missing = [path for path in paths if path not in modules]
    if missing or not paths:
        raise FileFormatError(
            f"the surrogates in {folder} belong to another model: it has no {missing or 'layers'}"
        )
    parts = {
        path: {key[len(path) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{path}.")}
        for path in paths
    }
    for path, part in parts.items():  # on wrappers beside the model, so that a damaged part changes nothing
        found = modules[path]
        _load(SymbolicModel(found.block if isinstance(found, SymbolicModel) else found), part, path)
    blocks = []
    for path, part in parts.items():
        found = modules[path]
        block = found if isinstance(found, SymbolicModel) else wrap(model, path)
        _load(block, part, path)
        if release_block and not block.released:
            block.switch_to_symbolic(release_block=True)
        blocks.append(block)
    return blocks


def _load(block: SymbolicModel, part: Mapping[str, Tensor], path: str) -> None:
    try:
        result = block.load_state_dict(part, strict=False)
    except (RuntimeError, KeyError, FileFormatError) as error:
        raise FileFormatError(f"the surrogate of {path} is damaged: {error}") from error
    unknown = [key for key in result.missing_keys if not key.startswith(_BLOCK)] + result.unexpected_keys
    if unknown or block.mode != "symbolic":
        raise FileFormatError(f"the surrogate of {path} is damaged: {', '.join(unknown) or 'no equations'}")
