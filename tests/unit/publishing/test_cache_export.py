"""Cached embeddings for everybody: ``datasets`` reads an entry as it is, and an export as Parquet with a card."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import datasets
import numpy as np
import pytest

from bend_hf.cli._main import main
from bend_hf.embedders.cache import CacheSettings, as_dataset
from bend_hf.embedders.cache.as_dataset import STATE
from bend_hf.embedders.cache.manage import list_entries
from bend_hf.embedders.cache.open import find_entry
from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.errors import CacheError, RecordError
from bend_hf.publishing import cache_export
from tests.cached import SHARD_BYTES, Triplets, made, small_dataset, small_entry


def test_datasets_reads_a_finished_entry_from_the_disk(tmp_path: Path) -> None:
    entry = made(tmp_path)
    assert len(entry.shards) > 1
    loaded = datasets.load_from_disk(entry.folder)
    expected = CachedEmbeddings.of(entry.shards, dtype="float16")
    assert isinstance(loaded, datasets.Dataset)
    assert loaded.features == expected.dataset().features
    assert list(loaded["item"]) == list(small_dataset()["item"])
    for row in (0, len(loaded) - 1):
        np.testing.assert_array_equal(loaded.with_format("numpy")[row]["token_rows"], expected.item(row).values)
    one = datasets.Dataset.from_file(str(entry.shards[1].arrow))
    assert one[0] == loaded[entry.plan.shard_starts[1]]


def test_an_entry_is_a_dataset_only_while_all_its_shards_are_there(tmp_path: Path) -> None:
    entry = small_entry(tmp_path)
    entry.fill([0])
    assert not (entry.folder / STATE).exists()
    entry.fill()
    assert (entry.folder / STATE).is_file()
    entry.shards[0].remove()
    assert not (entry.folder / STATE).exists()
    entry.fill()
    assert len(datasets.load_from_disk(entry.folder)) == len(small_dataset())


def test_an_entry_of_an_earlier_release_becomes_a_dataset_when_it_is_used(tmp_path: Path) -> None:
    entry = made(tmp_path)
    (entry.folder / STATE).unlink()
    assert small_entry(tmp_path).fill() == 0
    assert (entry.folder / STATE).is_file()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_full_disk_is_said_and_a_read_only_one_is_not(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = made(tmp_path)
    (entry.folder / STATE).unlink()

    def fails(path: Path) -> NoReturn:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(as_dataset, "atomic_path", fails)
        if number in (errno.ENOSPC, errno.EIO):
            with pytest.raises(CacheError, match=r"cannot write .*dataset_info.json .* finished and kept\. Free some"):
                small_entry(tmp_path).fill()
        else:
            assert small_entry(tmp_path).fill() == 0
    assert small_entry(tmp_path).fill() == 0
    assert (entry.folder / STATE).is_file()


def fill(folder: Path, split: str, seed: int) -> None:
    settings = CacheSettings(folder=folder, shard_bytes=SHARD_BYTES, show_progress=False)
    find_entry(small_dataset(9, seed), Triplets(), settings, label=f"small {split}").fill()


def test_an_export_is_a_dataset_with_the_splits_of_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "bend" / "small_triplets"
    for seed, split in enumerate(("test", "train", "validation")):
        fill(cache, split, seed)
    for _ in range(2):  # a second export replaces the first
        assert main(["cache", "export", "small", "Triplets", "--cache", str(cache), "--to", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "datasets"))
    assert list(loaded) == ["train", "validation", "test"]
    (entry,) = (one for one in list_entries(cache) if one.plan and one.plan.label == "small test")
    expected = datasets.load_from_disk(entry.path)
    assert loaded["test"].features == expected.features
    assert loaded["test"][3] == expected[3]
    card = (out / "README.md").read_text()
    assert "| validation | 9 |" in card
    assert "Token embeddings of" in card


def test_an_export_that_fails_keeps_the_earlier_one_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    for seed, split in enumerate(("test", "train")):
        fill(cache, split, seed)
    argv = ["cache", "export", "small", "Triplets", "--cache", str(cache), "--to", str(out)]
    write, calls = cache_export._write_shard, [0]

    def full(arrow: Path, path: Path) -> str:
        calls[0] += 1
        if calls[0] % 2 == 0:
            raise RecordError(f"{path} cannot be written (No space left on device)")
        return write(arrow, path)

    def files() -> dict[str, bytes]:
        return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    with monkeypatch.context() as patched:
        patched.setattr(cache_export, "_write_shard", full)
        assert main(argv) == 1
        assert files() == {}
    (out / ".data.part4194305").mkdir()  # of a process that was killed; Linux's highest process id and one
    assert main(argv) == 0
    whole = files()
    assert [name for name in whole if name.endswith(".md")]
    with monkeypatch.context() as patched:
        patched.setattr(cache_export, "_write_shard", full)
        assert main(argv) == 1
    assert files() == whole
    assert not list(out.glob(".data.*"))


def test_what_is_no_dataset_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "cache"

    def refused(*words: str) -> str:
        assert main(["cache", "export", *words, "--cache", str(cache), "--to", str(tmp_path / "out")]) != 0
        return capsys.readouterr().err

    assert "no cached embeddings are selected" in refused()
    fill(cache, "train", 0)
    fill(cache, "train", 1)
    assert "are both a split 'train'" in refused()
    assert "no cached embeddings are selected" in refused("small", "dnabert2")
    entry = small_entry(cache, small_dataset(30, 2))
    entry.fill([0])
    assert "is not finished" in refused(entry.folder.name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    whole = next(one for one in list_entries(cache) if one.is_whole)
    assert "holds other files; give an empty folder" in refused(whole.path.name)
    assert "--to is a folder, not a repository" in refused("--public")
