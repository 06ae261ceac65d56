"""What tells one setting from another: the same value has one key in every process, another value another one."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symtorch_core import SearchError
from symtorch_core.studies import make_key

SHARE = 0.3


@final
@dataclass
class Pinball:
    share: float

    def __call__(self, r: Tensor) -> Tensor:
        return torch.maximum(self.share * r, (self.share - 1) * r)


@final
class Slotted:
    __slots__ = ("power",)

    def __init__(self, power: float) -> None:
        self.power = power


def make_power(power: float) -> Callable[[Tensor], Tensor]:
    return lambda r: r.abs() ** power


def make_by_default(power: float) -> Callable[..., Tensor]:
    return lambda r, power=power: r.abs() ** power


def make_by_keyword(power: float) -> Callable[..., Tensor]:
    def loss(r: Tensor, *, power: float = power) -> Tensor:
        return r.abs() ** power

    return loss


def make_global(share: float) -> Callable[[Tensor], Tensor]:
    names: dict[str, Any] = {"SHARE": share, "torch": torch}
    return FunctionType((lambda r: r * SHARE).__code__, names)


def make_called(share: float) -> Callable[[Tensor], Tensor]:
    inner = make_global(share)
    return lambda r: inner(r)


def make_cached(power: float) -> Callable[..., Any]:
    return functools.lru_cache(make_power(power))


def make_module(slope: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, slope)
    return layer


MAKERS: list[Callable[[float], Any]] = [
    make_power,
    make_by_default,
    make_by_keyword,
    make_global,
    make_called,
    make_cached,
    make_module,
    Pinball,
    Slotted,
    lambda power: Pinball(power).__call__,
    lambda power: functools.partial(torch.pow, exponent=power),
    lambda power: np.array([1.0, power]),
    lambda power: np.array([1.0, power], dtype=object),
    lambda power: torch.tensor(power),
    lambda power: {1: power},
    lambda power: {power, "a", "b"},
    lambda power: re.compile(f"a{power}"),
    lambda power: Path(f"/a/{power}"),
    lambda power: np.random.default_rng(int(power)),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_value_has_the_key_of_its_contents(make: Callable[[float], Any]) -> None:
    assert make_key(make(2.0)) == make_key(make(2.0))
    assert make_key(make(2.0)) != make_key(make(3.0))


def test_functions_with_other_code_have_other_keys() -> None:
    functions: list[Callable[..., Any]] = [
        lambda r: r.abs(),
        lambda r: r.square(),
        lambda r: r + 1,
        lambda r: r - 1,
        lambda r: r + 2,
        lambda r: r + 1.0,
        lambda r: (lambda s: s + 3)(r),
        lambda r: (lambda s: s + 4)(r),
        lambda r: r if r in {1, 2} else 0,
        lambda r: r if r in {1, 3} else 0,
        torch.abs,
        torch.square,
        torch.Tensor.abs,
        math.sin,
        np.sin,
        nn.functional.huber_loss,
        nn.functional.softplus,
    ]
    assert len({make_key(function) for function in functions}) == len(functions)


def test_name_and_place_of_a_function_do_not_matter() -> None:
    def first(r: Tensor) -> Tensor:
        return r.abs() * SHARE

    def second(r: Tensor) -> Tensor:
        return r.abs() * SHARE

    assert make_key(first) == make_key(second)


def test_functions_may_call_each_other() -> None:
    def ping(n: int) -> int:
        return pong(n - 1) if n else 0

    def pong(n: int) -> int:
        return ping(n - 1) if n else 1

    assert make_key(ping) == make_key(ping)
    assert make_key(ping) != make_key(pong)


HELPERS = """
FACTOR = {factor}
def loss(r):
    return inner(r)
def inner(r):
    return FACTOR * r.abs()
class Loss:
    def __init__(self, power):
        self.power = power
    def __call__(self, r):
        return r ** self.power + {offset}
"""


def call_helpers(r: Tensor) -> Tensor:
    return helpers.loss(r)  # type: ignore[name-defined, no-any-return]  # noqa: F821 - a global of another function


def load_helpers(folder: Path, **numbers: int) -> ModuleType:
    path = folder / f"helpers{len(list(folder.iterdir()))}.py"
    path.write_text(HELPERS.format(**{"factor": 1, "offset": 0, **numbers}))
    spec = importlib.util.spec_from_file_location("helpers", path)
    assert spec is not None
    assert spec.loader is not None
    helpers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helpers)
    return helpers


def test_code_that_a_function_reaches_through_modules_counts(tmp_path: Path) -> None:
    def make(**numbers: int) -> str:
        helpers = load_helpers(tmp_path, **numbers)
        return make_key([lambda r: helpers.loss(r), helpers.Loss(2)])

    assert make() == make()
    assert len({make(), make(factor=3), make(offset=5)}) == 3
    helpers = load_helpers(tmp_path)
    names = {"helpers": helpers}

    caller = FunctionType(call_helpers.__code__, names)
    first = make_key(caller)
    helpers.FACTOR = 7
    assert make_key(caller) != first


SCRIPT = """
import sys
from symtorch_core.studies import make_key
sys.stdout.write(make_key([lambda r: r if r in {1, 2, "b", "c"} else r.abs(), {"b", "a", "c"}]))
"""


def test_another_process_makes_the_same_key() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == make_key([lambda r: r if r in {1, 2, "b", "c"} else r.abs(), {"b", "a", "c"}])


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), (number for number in range(3)), sys.__stdout__, np.frompyfunc(abs, 1, 1)],
    ids=["lock", "generator", "file", "ufunc"],
)
def test_what_exists_in_this_process_only_is_refused(value: Any) -> None:
    with pytest.raises(SearchError, match=r"'loss' of a setting.*no other process.*leave out resume="):
        make_key({"loss": lambda r: value})


def test_no_data_have_a_place_among_data() -> None:
    rows = torch.ones(2)
    assert make_key(0, [rows, None]) != make_key(0, [None, rows])
    assert make_key({"n": np.int64(3), "x": np.float64(0.5)}) == make_key({"n": 3, "x": 0.5})
