"""Reads cached embeddings: shards mapped into memory, any items in any order, at the speed of memory.

Nothing is read when a cache is opened but the index. ``item`` gives views into the mapped file without a copy;
``rows`` copies a batch once, into memory that is used again as soon as nobody holds the batch before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.embedders.batches import EmbeddedRows
from bend_hf.embedders.cache.numbers import COLUMN_OF, NUMPY_OF, StoredDtype, readable
from bend_hf.embedders.cache.recycling import Recycler
from bend_hf.embedders.cache.shard import ShardFiles
from bend_hf.embedders.cache.writer import LENGTH_COLUMN
from bend_hf.errors import CacheError
from bend_hf.shapes import Ints

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class ItemView:
    """One item, as it lies in the file.

    Attributes:
        rows: Token rows, read-only, float16 or float32, or the bits of bfloat16 as uint16; shape (R, D).
        row_bp: Nucleotides of each row, shape (R,).
    """

    rows: NDArray[Any]
    row_bp: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One record batch: numpy views into the mapped file."""

    rows: NDArray[Any]
    row_bp: NDArray[np.int32]
    row_starts: Ints


class CachedEmbeddings:
    """The token embeddings of a split, or of several read as one; an ``EmbeddingSource``.

    Args:
        tables: The shards' tables, mapped, in the order of the items.
        dtype: How rows are stored.
        files: What the tables are mapped from.
    """

    def __init__(self, tables: Sequence[pa.Table], *, dtype: StoredDtype, files: Sequence[Path] = ()) -> None:
        self.dtype: StoredDtype = dtype
        self.files = tuple(files)
        self._tables = tables
        self._blocks = [_block(batch, dtype) for table in tables for batch in table.to_batches()]
        counts = np.array([len(block.row_starts) - 1 for block in self._blocks], np.int64)
        self._block_starts = np.concatenate([[0], np.cumsum(counts)])
        self._block_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._first_row = np.concatenate([np.zeros(0, np.int64), *(block.row_starts[:-1] for block in self._blocks)])
        ends = np.concatenate([np.zeros(0, np.int64), *(block.row_starts[1:] for block in self._blocks)])
        self.n_rows: Ints = ends - self._first_row
        self.lengths_bp: Ints = np.concatenate([np.zeros(0, np.int64), *(_lengths(block) for block in self._blocks)])
        self._recycler = Recycler()

    @classmethod
    def of(cls, shards: Sequence[ShardFiles], *, dtype: StoredDtype) -> CachedEmbeddings:
        """Maps finished shards.

        Raises:
            CacheError: One of them cannot be read.
        """
        return cls([_mapped(files) for files in shards], dtype=dtype, files=[files.arrow for files in shards])

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return int(self._blocks[0].rows.shape[1])

    def __len__(self) -> int:
        return len(self._first_row)

    def item(self, item: int) -> ItemView:
        """One item without a copy, good as long as it is held."""
        block = self._blocks[self._block_of[item]]
        part = slice(self._first_row[item], self._first_row[item] + self.n_rows[item])
        return ItemView(rows=block.rows[part], row_bp=block.row_bp[part])

    def rows(self, rows: Ints) -> EmbeddedRows:
        """The embeddings of some items, in the order given.

        ``x_BTD`` is float16 where that is stored, else float32. Its memory is used again when nothing refers to it
        any more, so that a batch can be kept for as long as wanted.
        """
        counts, lengths_bp = self.n_rows[rows], self.lengths_bp[rows]
        n_tokens, n_bp = int(counts.max(initial=0)), int(lengths_bp.max(initial=0))
        x_BTD = self._recycler.empty((len(rows), n_tokens, self.width), np.dtype(NUMPY_OF[self.dtype]))
        bp_BT = np.zeros((len(rows), n_tokens + 1), np.int32)
        views = zip(self._block_of[rows].tolist(), self._first_row[rows].tolist(), counts.tolist(), strict=True)
        for place, (block_number, first, count) in enumerate(views):
            block = self._blocks[block_number]
            x_BTD[place, :count] = block.rows[first : first + count]
            x_BTD[place, count:] = 0
            bp_BT[place, :count] = block.row_bp[first : first + count]
        bp_BT[:, -1] = n_bp - lengths_bp
        return EmbeddedRows(x_BTD=readable(x_BTD, self.dtype), token_of_BL=_token_of(bp_BT))

    def pieces(self, most_rows: int) -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]:
        """All token rows as they are stored, and their lengths, in the order of the items, some at a time."""
        for block in self._blocks:
            first, last = int(block.row_starts[0]), int(block.row_starts[-1])
            for start in range(first, last, most_rows):
                end = min(start + most_rows, last)
                yield block.rows[start:end], block.row_bp[start:end]

    def dataset(self) -> Dataset:
        """The same as a dataset: token rows and lengths beside coordinates and labels."""
        import datasets

        return datasets.concatenate_datasets([datasets.Dataset(table) for table in self._tables])


def _token_of(bp_BT: NDArray[np.int32]) -> Ints:
    """For each nucleotide the row of its token; the last column counts the padding, which is -1."""
    n_batch, n_columns = bp_BT.shape
    place_T = np.arange(n_columns)
    place_T[-1] = -1
    token_of: Ints = np.repeat(np.broadcast_to(place_T, bp_BT.shape).reshape(-1), bp_BT.reshape(-1))
    return token_of.reshape(n_batch, -1) if n_batch else token_of.reshape(0, 0)


def _mapped(files: ShardFiles) -> pa.Table:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(files.arrow))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise CacheError(
            f"{files.arrow} cannot be read ({error}), though it is as it was written; 'bend-hf cache verify' checks "
            "every byte, and what it removes is made again"
        ) from error


def _block(batch: pa.RecordBatch, dtype: StoredDtype) -> _Block:
    rows, row_bp = batch.column(COLUMN_OF[dtype]), batch.column(LENGTH_COLUMN)
    starts = _offsets(rows)
    width = rows.type.value_type.list_size
    flat = np.frombuffer(rows.values.values.buffers()[1] or b"", NUMPY_OF[dtype])
    flat = flat[rows.values.offset * width :][: int(starts[-1]) * width]
    lengths = np.frombuffer(row_bp.values.buffers()[1] or b"", np.int32)[row_bp.values.offset :][: int(starts[-1])]
    return _Block(rows=flat.reshape(-1, width), row_bp=lengths, row_starts=starts)


def _offsets(column: pa.Array) -> Ints:
    return np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]


def _lengths(block: _Block) -> Ints:
    """Nucleotides of each item of a record batch."""
    ends = np.concatenate([[0], np.cumsum(block.row_bp, dtype=np.int64)])
    lengths: Ints = np.diff(ends[block.row_starts])
    return lengths
