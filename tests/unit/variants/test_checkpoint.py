"""Finished batches are found by content and never read half written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from bend_hf.errors import RecordError
from bend_hf.variants.checkpoint import ScoringCheckpoint, content_key


def test_key_depends_on_settings_and_values_but_not_on_chunks() -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert content_key({"s": 1}, table) == content_key({"s": 1}, chunked)
    assert content_key({"s": 1}, table.slice(1)) == content_key({"s": 1}, pa.table({"a": [2, 3], "b": ["y", "z"]}))
    others = [content_key({"s": 2}, table), content_key({"s": 1}, table.slice(1))]
    assert content_key({"s": 1}, table) not in others


def test_damaged_batch_counts_as_missing(tmp_path: Path) -> None:
    checkpoint = ScoringCheckpoint(tmp_path)
    checkpoint.write("k", pa.table({"a": [1]}))
    checkpoint.path("k").write_bytes(b"PAR1 cut short")
    assert checkpoint.read("k") is None


def test_folder_that_cannot_be_written_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be written"):
        ScoringCheckpoint(tmp_path / "file" / "checkpoint").write("k", pa.table({"a": [1]}))
