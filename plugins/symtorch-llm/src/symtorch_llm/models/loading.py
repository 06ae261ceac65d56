"""Loading: transformers and their tokenizers, from a folder, a GGUF file or the hub. No code of a checkpoint is run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
)

from symtorch_core import SearchError, check_choice
from symtorch_llm.models.checkpoint import Checkpoint, find_checkpoint
from symtorch_llm.models.memory import get_free_memory, write_bytes
from symtorch_llm.models.transformer import count_parameters, fold_mlps

DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "float64": torch.float64,
    }
)
_AUTO: Final = "auto"
_CLASSES: Final = MappingProxyType(
    {
        "causal": (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
        "encoder": (AutoModel, MODEL_MAPPING),
    }
)
_UNUSED: Final = "pooler."
"""Weights of a layer that no score here uses, and that checkpoints of encoders may lack."""
_MOST_LISTED: Final = 5


@final
@dataclass(frozen=True)
class About:
    """What was loaded, for reports.

    Attributes:
        parameters: their number; shared ones count once.
        dtype: of the model, by name.
        made_float: which weights were quantised in the file and are floats now; empty where none were, and where
            the checkpoint does not tell.
    """

    parameters: int
    dtype: str
    made_float: str = ""

    def __str__(self) -> str:
        """Return the same in words.

        >>> str(About(1000, "float32", describe_quantised(["Q4_K", "Q8_0"])))
        '1,000 parameters, float32, weights of 4 and 8 bits made float again (GGUF Q4_K, Q8_0)'
        """
        return ", ".join(filter(None, [f"{self.parameters:,} parameters", self.dtype, self.made_float]))


@final
@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, without gradients; its tokenizer; and what they are."""

    model: nn.Module
    tokenizer: Any
    about: About


def load_causal(path: str, *, dtype: str = _AUTO, device: str = "cpu") -> tuple[nn.Module, Any]:
    """Load a causal language model and its tokenizer; see :func:`load_model`."""
    loaded = load_model(path, "causal", dtype=dtype, device=device)
    return loaded.model, loaded.tokenizer


def load_encoder(path: str, *, dtype: str = _AUTO, device: str = "cpu") -> tuple[nn.Module, Any]:
    """Load an encoder and its tokenizer; see :func:`load_model`."""
    loaded = load_model(path, "encoder", dtype=dtype, device=device)
    return loaded.model, loaded.tokenizer


def load_model(path: str, kind: str = "causal", *, dtype: str = _AUTO, device: str = "cpu") -> Loaded:
    """Load a model in evaluation mode and its tokenizer, from a folder, a GGUF file or the hub.

    Quantised weights of a GGUF file are made float. MLPs spread over several modules are folded (:func:`fold_mlps`).
    Only tensors are read, never code: neither that of a checkpoint nor that of a pickled file.

    Args:
        path: a Hugging Face folder (one file of weights, or parts with an index), a folder with one GGUF file, a GGUF
            file, or a name on the hub.
        kind: ``"causal"`` for next tokens, ``"encoder"`` for embeddings.
        dtype: ``"auto"`` for the checkpoint's own (float32 where weights were quantised), or the name of one.
        device: of the model.

    Raises:
        SearchError: there is no such model, dtype or device, or it cannot be loaded; the message says why, and what to
            do. What headers tell is found before any weight is read.
        MissingDependencyError: a GGUF file needs packages that are not installed.
    """
    check_choice("kind", kind, _CLASSES)
    check_choice("dtype", str(dtype), [_AUTO, *DTYPES])
    _check_device(device)
    checkpoint = find_checkpoint(path)
    _check_memory(path, checkpoint, dtype)
    options: dict[str, Any] = {"trust_remote_code": False}
    if checkpoint.gguf is not None:
        options["gguf_file"] = str(checkpoint.gguf)
    try:
        # What reads little comes first. Damaged files raise anything in there.
        config = AutoConfig.from_pretrained(checkpoint.folder, **options)
        tokenizer = _read_tokenizer(checkpoint, options)
        model = _read_model(checkpoint, config, kind, dtype, options).to(device)
    except Exception as error:
        said = str(error) if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}"
        raise SearchError(f"cannot load a model from {path!r}: {said}") from error
    model = fold_mlps(model.eval().requires_grad_(False))
    about = About(
        count_parameters(model),
        str(next(model.parameters()).dtype).removeprefix("torch."),
        describe_quantised(checkpoint.quantised),
    )
    return Loaded(model, tokenizer, about)


def _read_tokenizer(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Any:
    """Read a tokenizer.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **options)
        special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        if set(tokenizer.get_vocab()) <= special:  # so transformers makes them where there are no files
            raise ValueError("it would know no words")
    except Exception as error:
        raise ValueError(
            f"no tokenizer can be read from it: copy tokenizer.json (or the other files of the tokenizer) of the same "
            f"model into the folder. {error}"
        ) from error
    return tokenizer


def _read_model(
    checkpoint: Checkpoint, config: Any, kind: str, dtype: str, options: Mapping[str, Any]
) -> nn.Module:
    """Read the weights into a model.

    Raises:
        ValueError: the model is of another kind, or the weights are not all there.
    """
    loader, known = _CLASSES[kind]
    if type(config) not in known:
        others = [f"kind={name!r}" for name, (_, types) in _CLASSES.items() if type(config) in types]
        advice = " or ".join(others) or "another model"
        raise ValueError(f"transformers has no {kind} model of type {config.model_type!r}: try {advice}")
    if checkpoint.gguf is not None:
        options = {**options, "quantization_config": GgufConfig(dequantize=True)}
        dtype = checkpoint.dtype if dtype == _AUTO else dtype
    model, found = loader.from_pretrained(
        checkpoint.folder,
        config=config,
        dtype=dtype,
        weights_only=True,
        ignore_mismatched_sizes=True,  # they are reported, and refused below
        output_loading_info=True,
        **options,
    )
    # Random numbers are in their places.
    lacking = sorted(name for name in found["missing_keys"] if not name.startswith(_UNUSED))
    others = sorted(name for name, *_ in found["mismatched_keys"])
    for names, said in ((lacking, "lack"), (others, "have other sizes than the configuration says for")):
        if names:
            more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
            raise ValueError(
                f"its weights {said} {', '.join(names[:_MOST_LISTED])}{more}: the files are not those of a whole "
                f"{type(model).__name__}"
            )
    return model


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
        there = torch.device(device).type != "meta"
        reason = "it holds no numbers"
    except (RuntimeError, AssertionError) as error:  # an assertion where torch was built without it
        there, reason = False, re.split(r"\n|\. ", str(error))[0]
    if not there:
        raise SearchError(f"device={device!r} cannot be used here: {reason}. Give cpu, or one that is there")


def _check_memory(path: str, checkpoint: Checkpoint, dtype: str) -> None:
    """Refuse a model that does not fit into the memory that is free."""
    chosen = checkpoint.dtype if dtype == _AUTO else dtype
    needed, free = _estimate_bytes(checkpoint, chosen), get_free_memory()
    if needed <= free:
        return
    less = _estimate_bytes(checkpoint, "bfloat16")
    advice = (
        f"give dtype bfloat16 (--dtype bfloat16), which needs {write_bytes(less)}" if less < needed else
        "free some, or take a smaller model"
    )  # fmt: skip
    raise SearchError(
        f"the model in {path!r} needs {write_bytes(needed)} of memory in {chosen}, and {write_bytes(free)} are free: "
        f"{advice}"
    )


def _estimate_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """Return the memory that loading takes at most: a GGUF file's weights are made float32 first."""
    size = DTYPES.get(dtype, torch.float32).itemsize
    first = 0 if checkpoint.gguf is None else torch.float32.itemsize
    return checkpoint.numbers * (size + first)


def describe_quantised(types: Sequence[str]) -> str:
    """Return in words which weights of a GGUF file were made float; nothing where none were.

    >>> describe_quantised(["Q4_K", "Q5_0", "Q8_0"])
    'weights of 4, 5 and 8 bits made float again (GGUF Q4_K, Q5_0, Q8_0)'
    """
    if not types:
        return ""
    bits = sorted({int(found.group()) for name in types if (found := re.search(r"\d+", name))})
    *first, last = map(str, bits)
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"weights of {listed} bits made float again (GGUF {', '.join(types)})"


def computes_bfloat16_fast(device: str = "cpu") -> bool:
    """Whether a device multiplies matrices of bfloat16 faster than of float32.

    Of a processor, that is what it says of itself: it has AMX or AVX-512 for bfloat16, and torch has oneDNN, which uses
    them. False where torch cannot tell.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    try:
        found = torch.cpu.get_capabilities()
    except AttributeError:  # torch before 2.11
        return False
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
