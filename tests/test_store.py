"""Files that are whole or not there, and finished work by a digest of what decides it."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
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
    assert make_key(0, [rows.view(3, 2)[1:2, 0]]) == make_key(0, [torch.tensor([2.0])])
    assert make_key(0, [torch.tensor(2.0)]) != make_key(0, [torch.tensor([2.0])])


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


def test_a_change_of_any_byte_is_noticed(tmp_path: Path) -> None:
    store, tensors = Store(tmp_path), {"one": torch.tensor([[1.5, -2.0]]), "two": torch.tensor([1, 2])}
    store.write_json("a", {"x": [1.5, None, "text"]})
    store.write_tensors("a", tensors, about={"seed": 0})
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for place in range(len(whole)):
            for other in {whole[place] ^ 1, whole[place] ^ 16, ord(" "), ord("0")} - {whole[place]}:
                path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
                try:
                    if path.suffix == ".json":
                        assert store.read_json("a") == {"x": [1.5, None, "text"]}
                        continue
                    found = store.read_tensors("a")
                except FileFormatError as error:
                    assert f"{path} is damaged" in str(error)  # noqa: PT017 - a change of blanks is no damage
                else:
                    assert found is not None
                    assert found[1] == {"seed": 0}
                    assert all(torch.equal(found[0][name], value) for name, value in tensors.items())


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_json("a", 1)
    store.write_tensors("a", {"x": torch.ones(1)})
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_stem("b"))
    for read in (store.read_json, store.read_tensors):
        with pytest.raises(FileFormatError, match="b\\..* is damaged"):
            read("b")


def test_a_full_disk_is_a_warning_and_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    assert store.write_json("a", 1)
    assert store.write_tensors("a", {"x": torch.ones(1)})

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", fail)
        full.setattr(safetensors.torch, "save_file", fail)
        with pytest.warns(RuntimeWarning, match=r"a.json was not written .*No space left"):
            assert not store.write_json("a", 2)
        with pytest.warns(RuntimeWarning, match=r"a.safetensors was not written .*No space left"):
            assert not store.write_tensors("a", {"x": torch.zeros(1)})
    assert store.read_json("a") == 1
    found = store.read_tensors("a")
    assert found is not None
    assert torch.equal(found[0]["x"], torch.ones(1))


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 100])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    for ending, read in (("json", store.read_json), ("safetensors", store.read_tensors)):
        tmp_path.joinpath(f"a.{ending}").write_bytes(content)
        with pytest.raises(FileFormatError, match=f"a.{ending} is damaged"):
            read("a")
