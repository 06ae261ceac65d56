"""The documented examples do what the documentation says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_pruned_bottleneck_composes_to_the_law() -> None:
    with torch.random.fork_rng():
        assert example("pruning").main(steps=3000) < 0.05


@pytest.mark.slow
def test_the_logit_between_two_rings_falls_with_the_radius(capsys: pytest.CaptureFixture[str]) -> None:
    near, often = example("slime").main()
    assert "y1 = " in capsys.readouterr().out
    assert near.local_r2[0] > 0.98
    slopes = near.gradient[0]
    assert slopes[0] < 0 < slopes[1]
    assert often.variables == (("u", "v"),)
    assert often.variables_share == (1.0,)
