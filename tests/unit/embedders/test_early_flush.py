"""The flush of a shard that begins while the shard is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bend_hf.embedders.cache import writer
from bend_hf.embedders.cache.writer import EarlyFlush


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make every fourth byte a reason to flush, and note the size of the file at each flush."""
    sizes: list[int] = []
    monkeypatch.setattr(writer, "_FLUSH_BYTES", 4)
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    return sizes


def test_flushes_once_enough_is_written(tmp_path: Path, flushed: list[int]) -> None:
    with EarlyFlush(tmp_path) as early:
        early.start()
        with (tmp_path / "growing").open("wb", buffering=0) as file:
            for _ in range(4):
                file.write(b"ACG")
                early.start()
    assert flushed
    assert min(flushed) >= 4
    assert len(flushed) <= 2


def test_failed_flush_stops_the_writer(tmp_path: Path, flushed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "growing").write_bytes(b"ACGTA")
    with pytest.raises(OSError, match="input/output error"), EarlyFlush(tmp_path) as early:
        early.start()
    assert not flushed
