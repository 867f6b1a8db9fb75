"""Files appear whole or not at all, and JSON content has one hash."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bend_hf import files
from bend_hf.errors import RecordError
from bend_hf.files import (
    atomic_path,
    cache_folder,
    disk_error,
    explain_write_errors,
    file_sha256,
    json_sha256,
    parse_json,
    write_bytes,
    write_text,
)


@pytest.mark.parametrize(
    "deep", ["[" * 300 + "]" * 300, '{"a":' * 5_000 + "1" + "}" * 5_000, "[" * 100_000 + "]" * 100_000]
)
def test_json_that_is_nested_deeply_is_refused_by_every_python(deep: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(deep.encode())


def test_json_that_is_wide_is_read() -> None:
    wide = '{"a": [' + "[], " * 1_000 + '"[[[["], "b": {"c": 1}}'
    assert parse_json(wide) == {"a": [*([[]] * 1_000), "[[[["], "b": {"c": 1}}


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    with atomic_path(path, durable=True) as part:
        part.write_bytes(b"one")
        assert not path.exists()
        assert part.parent == path.parent
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")

    def stop(part: Path) -> None:
        part.write_text("new, but not whole")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"), atomic_path(path) as part:
        stop(part)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_writer_wins_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(FileExistsError), atomic_path(path, overwrite=False) as part:
        path.write_text(part.write_text("first") and "first")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [False, True])
def test_without_hard_links_the_first_writer_wins_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a.txt"
    if there:
        path.write_text("first")
        with pytest.raises(FileExistsError), atomic_path(path, overwrite=False) as part:
            part.write_text("second")
    else:
        with atomic_path(path, overwrite=False) as part:
            part.write_text("first")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_that_the_first_request_made_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def answered_twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", answered_twice)
    path = tmp_path / "a.txt"
    with atomic_path(path, overwrite=False) as part:
        part.write_text("one")
    assert path.read_text() == "one"


def test_a_file_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"a\.txt cannot be written \(.*\); free some space or give another --out"):
        write_bytes(tmp_path / "file" / "a.txt", b"one")


def test_an_existing_file_is_explained(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "one")
    with (
        pytest.raises(RecordError, match=r"a\.txt exists and is never overwritten; give another --out"),
        explain_write_errors(path),
        atomic_path(path, overwrite=False) as part,
    ):
        part.write_text("two")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "kept"))
    assert cache_folder("models") == tmp_path / "kept" / "models"
    monkeypatch.delenv("BEND_HF_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("models") == tmp_path / ".cache" / "bend_hf" / "models"


def test_the_hash_of_json_does_not_depend_on_the_order_of_keys() -> None:
    assert json_sha256({"a": [1, 2], "b": None}) == json_sha256({"b": None, "a": [1, 2]})
    assert json_sha256({"a": [1, 2]}) != json_sha256({"a": [2, 1]})


def test_the_hash_of_json_refuses_what_json_lacks() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_sha256(float("nan"))


def test_a_file_that_is_replaced_with_its_times_kept_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bend_hf.files._SETTLED_NS", -1)  # remember at once
    path = tmp_path / "labels.hdf5"
    digests = []
    for content in (b"old", b"new"):
        part = tmp_path / content.decode()
        part.write_bytes(content)
        os.utime(part, ns=(0, 10**18))
        part.replace(path)  # as `rsync -t` does
        digests.append(file_sha256(path))
    assert digests == [hashlib.sha256(content).hexdigest() for content in (b"old", b"new")]


def test_a_file_that_is_edited_in_place_with_all_its_times_put_back_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "_SETTLED_NS", -(10**18))
    path, content = tmp_path / "genome.fa", bytearray(b"ACGT" * 50_000)
    path.write_bytes(content)
    stat = path.stat()
    first = file_sha256(path)
    content[:4], content[-4:] = b"TTTT", b"GGGG"
    with path.open("r+b") as file:
        file.write(content)
    monkeypatch.setattr(files.os, "fstat", lambda descriptor: stat)  # as after a clock that was set back
    assert file_sha256(path) == hashlib.sha256(content).hexdigest() != first


def test_a_full_disk_is_found_behind_other_errors_and_a_circle_of_errors_ends() -> None:
    full, outer = OSError(28, "No space left on device"), ValueError("a write failed")
    outer.__cause__ = full
    assert disk_error(outer) is full
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__cause__ = second, first
    assert disk_error(first) is None


def test_a_file_that_only_its_owner_could_read_gets_the_permissions_of_the_umask(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from bend_hf.files import atomic_path\n"
        "os.umask(0o027)\n"
        "with atomic_path(Path(sys.argv[1])) as part:\n"
        "    os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))\n"
        "assert os.umask(0) == 0o027\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.safetensors")], check=True)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640
