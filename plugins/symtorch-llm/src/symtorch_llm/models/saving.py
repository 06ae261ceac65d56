"""Surrogates in a folder beside the checkpoint of their model, as safetensors and JSON.

Nothing in the files is executed: tensors are read by safetensors, equations by the core's own grammar.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from symtorch_core import FileFormatError, SwitchError, SymbolicModel, wrap

TENSORS: Final = "symbolic.safetensors"
LAYERS: Final = "symbolic.json"
_SCHEMA: Final = 1
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
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{path}.{key}": value.detach().cpu().contiguous()
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
    save_file(tensors, folder / TENSORS)
    text = json.dumps({"schema": _SCHEMA, "layers": layers}, indent=1)
    folder.joinpath(LAYERS).write_text(text, encoding="utf-8")
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
        FileFormatError: the folder holds no surrogates, they are damaged, or belong to another model.
    """
    folder = Path(folder)
    try:
        saved = json.loads(folder.joinpath(LAYERS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise FileFormatError(f"{folder} holds no readable surrogates: {error}") from error
    if not isinstance(saved, dict) or saved.get("schema") != _SCHEMA:
        raise FileFormatError(
            f"{folder / LAYERS} is of another version, or damaged: save the surrogates again"
        )
    paths = [str(layer.get("path")) for layer in saved.get("layers", []) if isinstance(layer, dict)]
    modules = dict(model.named_modules())
    missing = [path for path in paths if path not in modules]
    if missing or not paths:
        raise FileFormatError(
            f"the surrogates in {folder} belong to another model: it has no {missing or 'layers'}"
        )
    blocks = []
    for path in paths:
        own = {key[len(path) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{path}.")}
        found = modules[path]
        block = found if isinstance(found, SymbolicModel) else wrap(model, path)
        try:
            result = block.load_state_dict(own, strict=False)
        except (RuntimeError, KeyError) as error:
            raise FileFormatError(f"the surrogate of {path} is damaged: {error}") from error
        unknown = [key for key in result.missing_keys if not key.startswith(_BLOCK)] + result.unexpected_keys
        if unknown or block.mode != "symbolic":
            raise FileFormatError(
                f"the surrogate of {path} is damaged: {', '.join(unknown) or 'no equations'}"
            )
        if release_block and not block.released:
            block.switch_to_symbolic(release_block=True)
        blocks.append(block)
    return blocks
