"""Derived variables."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch

from symtorch_core.errors import FileFormatError, SearchError
from symtorch_core.storage.documents import decode
from symtorch_core.surrogates.transforms import Transforms, TransformsRecord

NAMES = ["x1", "y1", "x2", "y2"]
DISTANCE = "sqrt((x1 - x2)**2 + (y1 - y2)**2)"


def read_json(data: dict[str, object]) -> Transforms:
    return Transforms.from_record(decode(json.loads(json.dumps(data)), TransformsRecord, "the transforms"))


def test_without_transforms_the_inputs_are_the_variables() -> None:
    none = Transforms.none(NAMES)
    x = torch.rand(3, 4)
    assert none(x) is x
    assert none.variable_names == tuple(NAMES)


def test_only_the_derived_variables_come_out_in_their_order() -> None:
    transforms = Transforms(NAMES, {"r": DISTANCE, "x1": "x1", "half": "0.5*y2"})
    assert transforms.variable_names == ("r", "x1", "half")
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 3.0]])
    assert transforms(x).tolist() == [[5.0, 3.0, 0.0], [2.0, 1.0, 1.5]]


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_leading_shape_and_precision(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.rand(shape, dtype=dtype)
    y = Transforms(NAMES, {"r": DISTANCE, "c": "sin(2.0)", "s": "x1 + 0.1"})(x)
    assert y.shape == (*shape[:-1], 3)
    assert y.dtype == dtype
    torch.testing.assert_close(y[..., 2], x[..., 0] + 0.1)
    torch.testing.assert_close(y[..., 1], torch.full(shape[:-1], 2.0, dtype=dtype).sin())


def test_functions_and_expressions_mix() -> None:
    transforms = Transforms(["a", "b"], {"d": lambda x: x[..., 0] - x[..., 1], "p": "a*b", "m": first})
    assert transforms(torch.tensor([[5.0, 2.0]])).tolist() == [[3.0, 10.0, 5.0]]


def first(x: torch.Tensor) -> torch.Tensor:
    return x[..., 0]


def test_gradients_flow_and_it_compiles() -> None:
    transforms = Transforms(NAMES, {"r": DISTANCE, "s": "x1*y1"})
    x = torch.rand(4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transforms, (x,))
    compiled = torch.compile(transforms, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), transforms(x))


@pytest.mark.parametrize(
    ("definitions", "message"),
    [
        ({"r": "x1 + z"}, "transform 'r': unknown variable 'z'.*Known variables: x1, x2, y1, y2"),
        ({"r": "x1 +"}, "transform 'r': cannot read"),
        ({"r": "sine(x1)"}, "transform 'r': unknown operator 'sine'. Did you mean 'sin'"),
        ({"r 12": "x1"}, "'r 12' cannot name a variable"),
        ({"r": 3}, "transform 'r' must be an expression or a function"),
        ({"r": "__import__('os').system('true')"}, "transform 'r': cannot read"),
    ],
)
def test_what_is_no_transform_is_refused_at_once(definitions: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        Transforms(NAMES, definitions)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [lambda x: x, lambda x: x.sum(), lambda x: 1.0])
def test_a_function_of_the_wrong_shape_says_which_is_right(function: object) -> None:
    with pytest.raises(
        SearchError, match=r"transform 'f' must map a tensor \(..., 4\) to one of shape \(...\)"
    ):
        Transforms(NAMES, {"f": function})(torch.rand(3, 4))  # type: ignore[dict-item]


def test_json_round_trip() -> None:
    x = torch.rand(5, 4)
    for original in (Transforms(NAMES, {"r": DISTANCE, "s": "0.1*x1^2"}), Transforms.none(NAMES)):
        read = read_json(original.to_json())
        assert read.variable_names == original.variable_names
        assert torch.equal(read(x), original(x))


def test_of_a_function_the_name_is_saved_and_a_call_is_refused() -> None:
    transforms = Transforms(NAMES, {"r": DISTANCE, "f": first})
    with pytest.raises(FileFormatError, match="transform 'f' is a Python function.*expression in x1, y1"):
        transforms.expressions()
    read = read_json(transforms.to_json())
    assert (read.variable_names, read.lost()) == (("r", "f"), ("f",))
    assert read.texts()["f"] == "first(...)"
    x = torch.rand(3, 4)
    with pytest.raises(FileFormatError, match="transform 'f' was the Python function 'first'"):
        read(x)
    assert torch.equal(read.with_functions({"f": first})(x), transforms(x))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"input_names": ["x"]},
        {"input_names": "x", "definitions": {}},
        {"input_names": ["x"], "definitions": ["r"]},
        {"input_names": ["x"], "definitions": {"r": 3}},
        {"input_names": ["x"], "definitions": {"r": {"function": 3}}},
        {"input_names": ["x"], "definitions": {"r": {"function": "f", "code": "exit()"}}},
        {"input_names": ["x"], "definitions": {"r": "x + q"}},
        {"input_names": ["x"], "definitions": {"r": "open('f')"}},
    ],
)
def test_files_that_hold_something_else(data: dict[str, object]) -> None:
    with pytest.raises(FileFormatError):
        read_json(data)


def test_copies() -> None:
    transforms = Transforms(NAMES, {"r": DISTANCE})
    x = torch.rand(5, 4)
    for copied in (copy.deepcopy(transforms), pickle.loads(pickle.dumps(transforms))):
        assert torch.equal(copied(x), transforms(x))


def test_two_transforms_share_nothing() -> None:
    definitions = {"r": "x1"}
    one = Transforms(NAMES, definitions)
    definitions["q"] = "x2"
    assert one.variable_names == ("r",)
