"""Finding and replacing tensors in what a block is called with and gives."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch

from symtorch_core.activations.tensor_paths import (
    collect_call_tensors,
    flatten_tensors,
    pick_inputs,
    pick_tensor,
    replace_tensor,
    to_paths,
)
from symtorch_core.errors import CaptureError

A, B, C = torch.ones(2, 3), torch.zeros(2, 1), torch.arange(2)
Pair = namedtuple("Pair", ["left", "right"])


def test_nested_results_become_paths() -> None:
    found = flatten_tensors((A, {"h": B, "deep": [C, None, "text"]}, Pair(A, 3)))
    assert list(found) == ["0", "1.h", "1.deep.0", "2.0"]
    assert found["1.h"] is B
    assert list(flatten_tensors(A)) == [""]
    assert flatten_tensors("nothing") == {}


def test_arrays_count_as_tensors() -> None:
    assert flatten_tensors(np.ones(3))[""].dtype == torch.float64
    assert flatten_tensors({"loss": np.float32(2.0)})["loss"] == 2.0


def test_arguments_by_position_and_keyword() -> None:
    assert list(collect_call_tensors((A, [B]), {"mask": C, "flag": True})) == ["0", "1.0", "mask"]


@pytest.mark.parametrize(
    ("selector", "paths"),
    [(None, None), (0, ("0",)), ("h.x", ("h.x",)), ([0, "mask"], ("0", "mask")), ((1,), ("1",))],
)
def test_selectors(selector: object, paths: object) -> None:
    assert to_paths(selector) == paths  # type: ignore[arg-type]


def test_the_only_floating_point_tensor_is_the_input() -> None:
    chosen, paths = pick_inputs({"0": C, "x": A}, None, "block")
    assert chosen is A
    assert paths == ("x",)


def test_one_tensor_passed_twice_is_one_candidate() -> None:
    # Self-attention is called with (x, x, x).
    chosen, paths = pick_inputs({"0": A, "1": A, "2": A}, None, "attention")
    assert chosen is A
    assert paths == ("0",)


def test_whole_numbers_alone_are_the_input() -> None:
    assert pick_inputs({"0": C}, None, "embedding")[0] is C


def test_several_candidates_ask_for_a_choice() -> None:
    with pytest.raises(
        CaptureError,
        match=r"2 floating-point tensors.*select_input=.*Seen: 0: \(2, 3\) float32, memory: \(2, 1\) float32",
    ):
        pick_inputs({"0": A, "memory": B}, None, "decoder")
    with pytest.raises(CaptureError, match="0 floating-point tensors.*Seen: no tensor"):
        pick_inputs({}, None, "decoder")


def test_selected_inputs_are_concatenated() -> None:
    chosen, paths = pick_inputs({"0": A, "memory": B}, ("memory", "0"), "decoder")
    assert torch.equal(chosen, torch.cat([B, A], dim=-1))
    assert paths == ("memory", "0")
    one_for_all = torch.tensor([[7.0]])
    chosen, _ = pick_inputs({"0": A, "t": one_for_all}, ("0", "t"), "decoder")
    assert chosen.tolist() == [[1.0, 1.0, 1.0, 7.0]] * 2


def test_a_missing_tensor_lists_what_was_seen() -> None:
    with pytest.raises(CaptureError, match=r"the call of f has no tensor 'q'. Seen: 0: \(2, 3\) float32"):
        pick_inputs({"0": A}, ("q",), "f")
    with pytest.raises(CaptureError, match=r"the result has no tensor '5'. Seen: itself: \(2,\) int64"):
        pick_tensor({"": C}, 5, "the result")
    with pytest.raises(CaptureError, match="the result holds no tensor"):
        pick_tensor({}, None, "the result")


def test_the_first_floating_point_tensor_is_the_output() -> None:
    assert pick_tensor({"0": C, "1": A, "2": B}, None, "the result") == ("1", A)
    assert pick_tensor({"0": C}, None, "the result") == ("0", C)
    assert pick_tensor({"0": C, "1": A}, 0, "the result")[1] is C


NEW = torch.full((2, 3), 9.0)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (A, ""),
        ((A, B), "0"),
        ([A, (B, A)], "1.1"),
        ({"h": {"x": A}, "other": B}, "h.x"),
        ({0: A, 1: B}, "0"),
        ({"a.b": A, "a": B}, "a.b"),
        (Pair(B, A), "1"),
        ((Pair(A, B), C), "0.0"),
        (OrderedDict(first=A, second=B), "first"),
        (torch.max(torch.rand(2, 3), dim=1), "0"),
    ],
)
def test_one_tensor_is_replaced_and_the_rest_kept(value: object, path: str) -> None:
    before = flatten_tensors(value)
    result = replace_tensor(value, path, NEW)
    after = flatten_tensors(result)
    assert type(result) is type(value)
    assert list(after) == list(before)
    assert after[path] is NEW
    assert all(after[key] is before[key] for key in before if key != path)


def test_what_is_no_tensor_stays() -> None:
    assert replace_tensor((A, None, "text", {"n": 3}), "0", NEW)[1:] == (None, "text", {"n": 3})
