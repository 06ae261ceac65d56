"""Presets of the study: what ``symtorch run llm --preset NAME`` starts from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

_PAPER: Final[Mapping[str, Any]] = MappingProxyType(
    {"layers": "7,14,21", "k_in": 32, "k_out": 8, "length": 1048, "blank_lines": False}
)

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # SymTorch paper, 4.1 and D, and the authors' repository astroautomata/LLM_PCA (experiments 4, 5 and 7).
        "paper": {
            **_PAPER,
            "tokens": 178_000,
            "others": "fit",
            "recipe": "paper",
            "regressor": "pysr",
            "timeout": 0.0,
            "rows": 6_000,
            "epochs": 0,
            "passes": 100,
        },
        # For two cores and a model of 1.5 billion parameters, where the processor computes in bfloat16.
        "laptop": {
            **_PAPER,
            "tokens": 20_000,
            "recipe": "all",
            "rows": 20_000,
            "epochs": 1,
            "step": 262,
            "learning_rate": 0.1,
            "passes": 3,
            "sweep": False,
            "dtype": "fast",
        },
        # For a GPU.
        "full": {
            **_PAPER,
            "tokens": 178_000,
            "others": "fit",
            "recipe": "all",
            "rows": 178_000,
            "epochs": 3,
            "passes": 100,
            "device": "cuda",
            "dtype": "bfloat16",
        },
    }
)
