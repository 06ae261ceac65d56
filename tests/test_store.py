"""Files that are whole or not there, and finished work by a digest of what decides it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from symtorch_core import FileFormatError
from symtorch_core.studies import Store, make_key


def test_settings_and_data_make_the_key() -> None:
    rows = torch.arange(6.0)
    key = make_key({"a": 1, "b": [2, 3]}, [rows, None])
    assert key == make_key({"b": [2, 3], "a": 1}, [rows.clone(), None])
    others = [
        make_key({"a": 1, "b": [2, 4]}, [rows, None]),
        make_key({"a": 1, "b": [2, 3]}, [rows + 1, None]),
        make_key({"a": 1, "b": [2, 3]}, [rows.reshape(2, 3), None]),
        make_key({"a": 1, "b": [2, 3]}, [rows.double(), None]),
    ]
    assert len({key, *others}) == 5
    halves = [make_key(0, [torch.tensor(value, dtype=torch.bfloat16)]) for value in (1.0, 2.0)]
    assert len(set(halves)) == 2
    assert make_key(0, [rows[::2]]) == make_key(0, [rows[::2].contiguous()])


def test_json_and_tensors_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    assert store.read_json("a") is None
    assert store.read_tensors("a") is None
    store.write_json("a", {"x": [1.5, None]})
    tensors = {"one": torch.randn(3, 2).T, "two": torch.tensor([1, 2])}
    store.write_tensors("a", tensors, about={"seed": 0})
    assert store.read_json("a") == {"x": [1.5, None]}
    found = store.read_tensors("a")
    assert found is not None
    assert found[1] == {"seed": 0}
    assert all(torch.equal(found[0][name], value) for name, value in tensors.items())
    assert {path.name for path in store.folder.iterdir()} == {"a.json", "a.safetensors"}


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 100])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    for ending, read in (("json", store.read_json), ("safetensors", store.read_tensors)):
        tmp_path.joinpath(f"a.{ending}").write_bytes(content)
        with pytest.raises(FileFormatError, match=f"a.{ending} is damaged"):
            read("a")
