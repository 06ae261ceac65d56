"""Files are whole or old, whatever stops their writing; documents are believed only as they were written."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal, final

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symtorch_core import FileFormatError
from symtorch_core.results.records import describe_file
from symtorch_core.storage import files
from symtorch_core.storage.documents import Number, decode, encode_number, read_document, write_document
from symtorch_core.storage.files import write_text, write_whole

OLD, SIZE = "old " * 1000, 200_000
IMPORT = f"import runpy; write_text = runpy.run_path({files.__file__!r})['write_text']"  # fast, without torch


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(path: Path, error: type[BaseException]) -> None:
    with write_whole(path) as unfinished:
        unfinished.write_text("half")
        raise error


class TestWriting:
    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "run.pt"
        path.write_text(OLD)
        for error in (RuntimeError, KeyboardInterrupt, OSError):
            with pytest.raises(error):
                write_half(path, error)
        assert path.read_text() == OLD
        assert list_names(tmp_path) == ["run.pt"]

    def test_files_of_the_user_are_left_alone(self, tmp_path: Path) -> None:
        for name in ("run.part", "run.tmp", "run.pt.part", ".run.pt"):
            (tmp_path / name).write_text("mine")
        write_text(tmp_path / "run.pt", "new")
        assert all(path.read_text() == "mine" for path in tmp_path.iterdir() if path.name != "run.pt")
        assert len(list_names(tmp_path)) == 5

    def test_the_temporary_file_has_the_ending_that_writers_go_by(self, tmp_path: Path) -> None:
        with write_whole(tmp_path / "rows.npz") as unfinished:
            np.savez(unfinished, a=np.ones(2))
        assert np.load(tmp_path / "rows.npz")["a"].tolist() == [1, 1]

    def test_writers_in_threads_and_processes_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        code = f"{IMPORT}\nfor i in range(20): write_text({str(path)!r}, 'p' * {SIZE})"
        process = subprocess.Popen([sys.executable, "-c", code])
        failures: list[BaseException] = []

        def write(letter: str) -> None:
            try:
                for _ in range(20):
                    write_text(path, letter * SIZE)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or process.poll() is None:
            if path.exists():
                text = path.read_text()
                assert len(text) == SIZE
                assert len(set(text)) == 1
        assert not failures
        assert process.returncode == 0
        assert list_names(tmp_path) == ["file.txt"]

    @pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
    def test_a_kill_at_any_moment_leaves_a_whole_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        path.write_text("0" * SIZE)
        code = (
            f"import itertools\n{IMPORT}\nprint(flush=True)\n"
            f"for i in itertools.count(1): write_text({str(path)!r}, str(i % 10) * {SIZE})"
        )
        generator = np.random.default_rng(0)
        for _ in range(8):
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(float(generator.uniform(0.0, 0.05)))
                process.send_signal(signal.SIGKILL)
            text = path.read_text()
            assert len(text) == SIZE
            assert len(set(text)) == 1

    @pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
    def test_a_full_disk_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        path.write_text(OLD)
        code = (
            f"import resource\n{IMPORT}\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE // 2}, {SIZE // 2}))\n"
            f"try: write_text({str(path)!r}, 'n' * {SIZE})\n"
            "except OSError: print('refused')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "refused\n"
        assert path.read_text() == OLD
        assert list_names(tmp_path) == ["file.txt"]

    @pytest.mark.skipif(os.name != "posix", reason="needs links and permissions")
    def test_links_and_permissions_stay(self, tmp_path: Path) -> None:
        target, link = tmp_path / "there" / "real.txt", tmp_path / "link.txt"
        target.parent.mkdir()
        target.write_text(OLD)
        target.chmod(0o640)
        link.symlink_to(target)
        write_text(link, "new")
        assert link.is_symlink()
        assert target.read_text() == "new"
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        write_text(tmp_path / "plain.txt", "new")
        (tmp_path / "other.txt").touch()
        modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain.txt", "other.txt")}
        assert len(modes) == 1  # as any new file has

    def test_what_is_no_file_is_not_replaced(self, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError, match="is a folder"):
            write_text(tmp_path, "new")
        write_text(os.devnull, "new")
        assert Path(os.devnull).exists()
        assert not Path(os.devnull).is_file()

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user who is not root")
    def test_a_read_only_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        path.write_text(OLD)
        path.chmod(0o444)
        with pytest.raises(PermissionError, match="read-only"):
            write_text(path, "new")


@final
class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document of the tests."""

    schema: Literal[7]
    losses: list[Number]
    name: str
    sha256: str


@final
class Holder(msgspec.Struct, frozen=True):
    """A document that holds any JSON."""

    schema: Literal[7]
    value: Any
    sha256: str


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(), parts, max_size=4),
    max_leaves=20,
)
NOISE = b"\xff\xfe" * 10**6
CONTENT = {"schema": 7, "losses": [0.1, 1e-300, "inf"], "name": "ä\n"}


def read(text: str | bytes) -> Run:
    return read_document(text, Run, 7, "the run")


class TestDocuments:
    def test_what_was_written_is_read(self) -> None:
        run = read(write_document(CONTENT))
        assert (run.losses, run.name) == ([0.1, 1e-300, "inf"], "ä\n")
        assert encode_number(float("nan")) == "nan"
        assert [float(loss) for loss in run.losses][2] == float("inf")

    def test_spaces_and_line_ends_do_not_matter_but_order_does(self) -> None:
        text = write_document(CONTENT, indent=1)
        fields = json.loads(text)
        compact = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        assert read(text.replace("\n", "\r\n")) == read(compact) == read(write_document(CONTENT).encode())
        with pytest.raises(FileFormatError, match="changed since it was written"):
            read(json.dumps(dict(reversed(fields.items()))))

    def test_every_changed_number_is_noticed(self) -> None:
        text = write_document(CONTENT)
        for at, letter in enumerate(text):
            if letter.isdigit():
                changed = text[:at] + str((int(letter) + 1) % 10) + text[at + 1 :]
                with pytest.raises(FileFormatError):
                    read(changed)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema": 6}, "the run has schema 6, not 7: use the version that wrote it"),
            ({"schema": "x" * 10**6}, "the run has schema 'xxx"),
            ({"losses": [0.1, None]}, r"at `\$.losses\[1\]`"),
            ({"losses": [0.1, "big"]}, "'big'"),
            ({"name": 3}, r"Expected `str`, got `int` - at `\$.name`"),
            ({"more": 1}, "unknown field `more`"),
            ({"name": "b"}, "the run was changed since it was written"),
        ],
    )
    def test_the_fault_is_named(self, change: dict[str, Any], message: str) -> None:
        text = json.dumps({**json.loads(write_document(CONTENT)), **change})
        with pytest.raises(FileFormatError, match=message) as raised:
            read(text)
        assert len(str(raised.value)) < 500

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            "[" * 10**6,
            '{"schema":' * 10**5,
            '{"losses": [NaN]}',
            '{"schema": 7}',
            b"\xff\xfe" * 10**6,
        ],
    )
    def test_what_is_no_document_is_refused_in_a_line(self, text: str | bytes) -> None:
        with pytest.raises(FileFormatError, match="the run is damaged, or is something else") as raised:
            read(text)
        assert len(str(raised.value)) < 500

    @pytest.mark.parametrize("value", [float("nan"), object(), "\ud800", {1, 2}])
    def test_what_json_cannot_hold_is_refused_before_it_is_written(self, value: object) -> None:
        with pytest.raises(FileFormatError, match="cannot be written as JSON"):
            write_document({"schema": 7, "value": value})

    @given(JSON_VALUES)
    def test_any_json_comes_back(self, value: Any) -> None:
        text = write_document({"schema": 7, "value": value})
        assert read_document(text, Holder, 7, "the text").value == value

    @given(st.binary(max_size=200) | st.text(max_size=200))
    def test_no_other_text_is_a_document(self, text: bytes | str) -> None:
        with pytest.raises(FileFormatError):
            read(text)

    def test_data_are_decoded_by_type(self) -> None:
        assert decode({"a": [1, 2]}, dict[str, list[int]], "a test") == {"a": [1, 2]}
        with pytest.raises(FileFormatError, match=r"a test is damaged.*`\$\[...\]\[1\]`"):
            decode({"a": [1, 2.5]}, dict[str, list[int]], "a test")


@pytest.mark.skipif(
    tuple(map(int, msgspec.__version__.split(".")[:2])) < (0, 22),
    reason="older versions of msgspec write the same schema in another way",
)
def test_the_schema_in_the_docs_is_current() -> None:
    text = Path(__file__).parents[1].joinpath("docs", "result.schema.json").read_text(encoding="utf-8")
    assert text == describe_file(), "run `make schema`"
