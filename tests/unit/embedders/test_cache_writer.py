"""Write a shard: its checksum, the flush before it gets its name, and batches that do not fit into memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import xxhash

from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders.cache.shards import State
from bend_hf.embedders.cache.writer import TokenColumns
from bend_hf.errors import CacheError
from tests.cached import Triplets, leftovers, made, random_sequences, small_entry


def test_the_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    for files in made(tmp_path).shards:
        record = files.read_record()
        assert record is not None
        assert record.xxh3_128 == xxhash.xxh3_128_hexdigest(files.arrow.read_bytes())


def test_a_shard_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: dict[int, int] = {}
    fsync, replace = os.fsync, Path.replace

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        flushed[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    def checked(self: Path, target: Path) -> Path:
        if target.suffix == ".arrow":
            named.append(target.name)
            assert flushed[self.stat().st_ino] == self.stat().st_size
        return replace(self, target)

    named: list[str] = []
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", checked)
    entry = made(tmp_path)
    assert named == [files.arrow.name for files in entry.shards]


def test_a_failed_flush_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "made.arrow":
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("what a descriptor stands for is asked of /proc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(CacheError, match="Input/output error"):
            made(tmp_path)
    entry = small_entry(tmp_path)
    assert not any(files.state() is State.GOOD for files in entry.shards)
    assert leftovers(entry) == []
    made(tmp_path)
    assert all(files.state(every_byte=True) is State.GOOD for files in entry.shards)


class Crowded(Triplets):
    """Runs out of memory for a batch of more than 600 tokens, after some sequences."""

    def iter_tokens(self, sequences: Iterable[str]) -> Iterator[TokenEmbeddings]:
        for place, item in enumerate(super().iter_tokens(sequences)):
            if place == 3 and self.runner().default_tokens > 600:
                raise torch.cuda.OutOfMemoryError
            yield item


def test_too_large_batches_are_halved_and_no_embedding_is_lost_or_doubled(tmp_path: Path) -> None:
    crowded = Crowded()
    batches = [random_sequences([7, 30, 1], seed=1), random_sequences([12] * 9, seed=2)]
    found = embeddings_of(TokenColumns(crowded, "float32"), batches)
    assert found == embeddings_of(TokenColumns(Triplets(), "float32"), batches)
    assert [len(rows) for rows in found] == [3, 9]
    assert crowded.runner().default_tokens == 512


def test_memory_too_small_for_the_smallest_batch_raises() -> None:
    crowded = Crowded()
    crowded.runner().batch_tokens = 700
    crowded.runner().halve = lambda: False  # type: ignore[method-assign]  # replaced for the test
    with pytest.raises(torch.cuda.OutOfMemoryError):
        embeddings_of(TokenColumns(crowded, "float32"), [random_sequences([9] * 5)])


def test_the_embedder_sees_one_stream_across_the_batches_of_a_shard(tmp_path: Path) -> None:
    calls: list[int] = []

    class Counting(Triplets):
        def iter_tokens(self, sequences: Iterable[str]) -> Iterator[TokenEmbeddings]:
            calls.append(0)
            for item in super().iter_tokens(sequences):
                calls[-1] += 1
                yield item

    embeddings_of(TokenColumns(Counting(), "float32"), [random_sequences([5] * 4)] * 3)
    assert calls == [12]


def embeddings_of(columns: TokenColumns, batches: list[list[str]]) -> list[list[object]]:
    """Return the embeddings of each sequence of each batch as Python numbers."""
    found: list[list[object]] = []
    made_columns: tuple[pa.Array, pa.Array]
    for made_columns in columns.of(batches):
        found.append(made_columns[0].to_pylist())
    return found
