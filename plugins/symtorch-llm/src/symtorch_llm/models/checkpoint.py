"""Checkpoints: what a folder or a GGUF file holds, read from headers and refused before any weight is read."""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING

from symtorch_core import SearchError
from symtorch_llm.models.gguf import FLOATS, list_tensors

_CONFIG: Final = "config.json"
_TOKENIZER: Final = "tokenizer_config.json"
_WEIGHTS: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""In the order in which transformers looks for them."""
_QUANTISED: Final = ("quantize_config.json", "quant_config.json")
"""Where GPTQ and AWQ once said what they did."""
_TOKENIZERS: Final = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")


@final
@dataclass(frozen=True)
class Checkpoint:
    """A model on this disk that can be loaded, as far as its headers tell.

    Attributes:
        folder: that holds it.
        gguf: the GGUF file, where it is one.
        numbers: in its weights.
        dtype: of the weights, by name; ``"float32"`` where they were quantised.
        quantised: their types, as GGUF names them; none where they are floats.
    """

    folder: Path
    gguf: Path | None
    numbers: int
    dtype: str
    quantised: tuple[str, ...] = ()


def find_checkpoint(path: str) -> Checkpoint:
    """Return the checkpoint at a path: a Hugging Face folder, a GGUF file or the folder of one, or a name on the hub.

    What has a name on the hub is fetched first, or is there from last time.

    Raises:
        SearchError: there is none, or it cannot be loaded: custom code, quantised weights other than GGUF, an adapter,
            missing or damaged files, an unknown architecture.
        MissingDependencyError: a GGUF file needs packages that are not installed.
    """
    try:
        return _find(path)
    except (OSError, ValueError) as error:
        raise SearchError(f"cannot load a model from {path!r}: {error}") from error


def _find(path: str) -> Checkpoint:
    place = Path(path).expanduser()
    if place.is_file():
        if place.suffix != ".gguf":
            raise ValueError("that is a file: give the folder it is in, or a .gguf file")
        return _read_gguf(place)
    if not place.is_dir():
        return _read_folder(_fetch(path))
    if any((place / name).is_file() for name in _WEIGHTS):
        return _read_folder(place)
    files = sorted(place.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"it holds several GGUF files: give the path of one of {names}")
    if not files:
        raise ValueError(
            "it holds no weights: no model.safetensors (or its parts and their index), pytorch_model.bin or .gguf file"
        )
    return _read_gguf(files[0])


def _fetch(name: str) -> Path:
    """Fetch a checkpoint from the hub, its weights only if the rest can be loaded; return its folder."""
    if name.endswith(".gguf") or name.startswith((".", "/", "~")):
        raise ValueError("there is no such file or folder")
    folder = _download(name, _TOKENIZERS)
    _read_config(folder)
    for file in _WEIGHTS:
        wanted = [file]
        if file.endswith(".index.json"):
            wanted = sorted(_read_index(folder / file)) if (folder / file).is_file() else []
        if wanted and (_download(name, wanted) / wanted[0]).is_file():
            break
    return folder


def _download(name: str, patterns: Sequence[str]) -> Path:
    """Fetch files of a name on the hub that are not here yet; return the folder that holds them."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # its own, or those of the network
        raise ValueError(
            f"there is no folder {name!r} here, so it was looked for on the hub: {error}"
        ) from error


def _read_folder(folder: Path) -> Checkpoint:
    config = _read_config(folder)
    named = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if named is None:
        raise ValueError("it holds no weights: no model.safetensors, nor its parts and their index")
    files = [named]
    if named.suffix == ".json":
        files = [folder / name for name in sorted(_read_index(named))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise ValueError(
                f"{', '.join(missing)} is missing, which {named.name} names: copy or download it again"
            )
    found = [_count_numbers(file) for file in files]
    dtypes = [dtype for _, dtype in found if dtype is not None]
    said = [part.get("dtype") or part.get("torch_dtype") for part in _list_parts(config)]
    dtype = next((name for name in [*said, *dtypes] if isinstance(name, str)), "float32")
    return Checkpoint(folder, None, sum(numbers for numbers, _ in found), dtype)


def _read_config(folder: Path) -> Mapping[str, Any]:
    """Return the configuration of a model that may be loaded.

    Raises:
        ValueError: there is none, or it asks for what is refused.
    """
    config = _read_json(folder / _CONFIG)
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            "it holds an adapter (adapter_config.json): merge it into its model (merge_and_unload of peft), save "
            "that, and give its folder"
        )
    if any((folder / name).is_file() for name in _QUANTISED):
        raise ValueError(_refuse_quantised("gptq or awq"))
    kind = str(config.get("model_type"))
    tokenizer = _read_json(folder / _TOKENIZER) if (folder / _TOKENIZER).is_file() else {}
    for file, part in ((_CONFIG, config), (_TOKENIZER, tokenizer)):
        if part.get("auto_map"):
            advice = f"If transformers' own {kind!r} is meant, delete auto_map from {file}"
            raise ValueError(
                f"its {file} asks for code of its own (auto_map), which is never run here. "
                f"{advice if kind in CONFIG_MAPPING else 'Take a model that transformers has itself'}"
            )
    for part in _list_parts(config):
        quantised = part.get("quantization_config") or part.get("compression_config")
        if quantised:
            method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
            raise ValueError(_refuse_quantised(method))
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"transformers does not know its architecture, model_type {kind!r}. A newer one may: pip install -U "
            "transformers"
        )
    return config


def _refuse_quantised(method: str) -> str:
    return (
        f"its weights are quantised ({method}): give the checkpoint with float weights, or a GGUF file, whose weights "
        "are made float again"
    )


def _list_parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a configuration and that of its text model, if it has several."""
    text = config.get("text_config")
    return [config, text] if isinstance(text, dict) else [config]


def _read_index(file: Path) -> set[str]:
    """Return the names of the files that an index of weights lists."""
    places = _read_json(file).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{file.name} is damaged, it has no weight_map: copy or download it again")
    return {str(name) for name in places.values()}


def _read_json(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise ValueError(f"there is no {file.name} in it")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is damaged ({error}): copy or download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} is damaged, it is no JSON object: copy or download it again")
    return found


def _count_numbers(file: Path) -> tuple[int, str | None]:
    """Return how many numbers a file of weights holds, and the dtype of its first floats."""
    if file.suffix != ".safetensors":
        return _count_pickled(file)
    try:
        with safe_open(file, framework="pt") as opened:
            slices = [opened.get_slice(key) for key in opened.keys()]  # noqa: SIM118 - it is no mapping
            dtypes = [FLOATS.get(one.get_dtype()) for one in slices]
            return sum(math.prod(one.get_shape()) for one in slices), _choose_first(dtypes)
    except SafetensorError as error:
        raise ValueError(
            f"{file.name} is damaged or cut short ({error}): copy or download it again"
        ) from error


def _count_pickled(file: Path) -> tuple[int, str | None]:
    try:  # mapped, so that nothing but the names and sizes is read
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"{file.name} does not hold tensors alone, or is damaged. Anything else in it could run code, so it is not "
            "read: give a checkpoint with safetensors"
        ) from error
    values = found.values() if isinstance(found, dict) else ()
    tensors = [value for value in values if isinstance(value, Tensor)]
    dtypes = [str(one.dtype).removeprefix("torch.") for one in tensors if one.is_floating_point()]
    return sum(one.numel() for one in tensors), _choose_first(dtypes)


def _choose_first(names: Sequence[str | None]) -> str | None:
    return next((name for name in names if name is not None), None)


def _read_gguf(file: Path) -> Checkpoint:
    tensors = list_tensors(file)
    dtypes = {name for tensor in tensors if (name := tensor.float_dtype) is not None}
    quantised = sorted({tensor.type for tensor in tensors if tensor.float_dtype is None})
    # Norms are float32 in any file: with them, the half type is the model's.
    half = sorted(dtypes - {"float32"})
    dtype = half[0] if half and not quantised else "float32"
    return Checkpoint(
        file.parent, file.resolve(), sum(one.numbers for one in tensors), dtype, tuple(quantised)
    )
