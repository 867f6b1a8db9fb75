"""Finished batches of a long scoring, kept on disk so that an interrupted run resumes.

A batch is named by the hash of everything that affects its content: the model's identity, the settings and the
variants themselves. Changed inputs therefore never find an old batch.

>>> import tempfile
>>> checkpoint = ScoringCheckpoint(Path(tempfile.mkdtemp()))
>>> checkpoint.write("abc", pa.table({"score": [0.5]}))
>>> checkpoint.read("abc")["score"].to_pylist()
[0.5]
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bend_hf.embedders._probe import PROBES
from bend_hf.files import atomic_path, explain_write_errors, json_sha256
from bend_hf.types import Json


class ScoringCheckpoint:
    """A folder of finished batches.

    Args:
        folder: Created when the first batch is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return where the batch of that key is, or will be."""
        return self.folder / f"{key}.parquet"

    def read(self, key: str, columns: list[str] | None = None) -> pa.Table | None:
        """Read the batch of that key; None if it is missing or cannot be read and must be computed again."""
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            return pq.read_table(path, columns=columns, partitioning=None)
        except (OSError, pa.ArrowException):
            return None

    def write(self, key: str, batch: pa.Table) -> None:
        """Write a batch atomically.

        Raises:
            RecordError: The folder cannot be written.
        """
        path = self.path(key)
        with explain_write_errors(path), atomic_path(path) as part:
            pq.write_table(batch, part, compression="zstd")

    def size_bytes(self, keys: list[str]) -> int:
        """Add up the size on disk of the batches that exist."""
        return sum(path.stat().st_size for path in map(self.path, keys) if path.is_file())

    def remove(self, keys: list[str]) -> None:
        """Remove batches, and the folder if nothing else is in it."""
        for key in keys:
            self.path(key).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.glob("*.parquet")):
            shutil.rmtree(self.folder / PROBES, ignore_errors=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


def content_key(affects: Json, table: pa.Table) -> str:
    """Hash settings and a table's columns by name and value, however the table is cut into chunks."""
    digest = hashlib.sha256(json_sha256(affects).encode())
    whole = pa.table({name: _plain(table[name]) for name in sorted(table.column_names)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    digest.update(sink.getvalue())
    return digest.hexdigest()[:32]


def _plain(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    whole = whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
    if pa.types.is_string(whole.type):
        whole = whole.cast(pa.large_string())
    # copied, so that no slice of a larger buffer takes part
    return pa.concat_arrays([whole])
