"""Read cached embeddings: shards mapped into memory, or a whole split held on the device.

Opening reads nothing but the index. ``CachedEmbeddings.item`` returns views into the mapped file without a copy;
``CachedEmbeddings.rows`` copies a batch of any items in any order. ``DeviceEmbeddings`` gathers batches on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bend_hf.embedders.cache.dtypes import COLUMN_OF, NUMPY_OF, decode, itemsize
from bend_hf.embedders.cache.shards import ShardFiles
from bend_hf.embedders.cache.writer import LENGTH_COLUMN
from bend_hf.embedders.token_embeddings import DeviceTokenBatch, TokenBatch
from bend_hf.errors import CacheError
from bend_hf.types import Ints, StoredDtype

if TYPE_CHECKING:
    from datasets import Dataset

_DEVICE_FRACTION: Final = 0.5  # of a device's free memory that a held split may take; the rest is for the head
_COPIED_TOKENS: Final = 1 << 16  # copied to the device at a time


@dataclass(frozen=True, kw_only=True)
class ItemView:
    """The embeddings of one item, as they are in the file.

    Attributes:
        values: Token embeddings, read-only, float16 or float32, or the bits of bfloat16 as uint16; shape (T, D).
        embedding_bp: Nucleotides that each embedding covers, shape (T,).
    """

    values: NDArray[Any]
    embedding_bp: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class _RecordBatch:
    """Numpy views into one record batch of a mapped file; ``starts`` are those of its items, shape (items + 1,)."""

    values: NDArray[Any]
    embedding_bp: NDArray[np.int32]
    starts: Ints

    @classmethod
    def of(cls, batch: pa.RecordBatch, dtype: StoredDtype) -> _RecordBatch:
        embeddings, token_bp = batch.column(COLUMN_OF[dtype]), batch.column(LENGTH_COLUMN)
        starts = np.frombuffer(embeddings.buffers()[1], np.int64)
        starts = starts[embeddings.offset : embeddings.offset + len(embeddings) + 1]
        width, n_tokens = embeddings.type.value_type.list_size, int(starts[-1])
        flat = np.frombuffer(embeddings.values.values.buffers()[1] or b"", NUMPY_OF[dtype])
        flat = flat[embeddings.values.offset * width :][: n_tokens * width]
        lengths = np.frombuffer(token_bp.values.buffers()[1] or b"", np.int32)[token_bp.values.offset :][:n_tokens]
        return cls(values=flat.reshape(-1, width), embedding_bp=lengths, starts=starts)

    def lengths_bp(self) -> Ints:
        """Count the nucleotides of each item."""
        ends = np.concatenate([[0], np.cumsum(self.embedding_bp, dtype=np.int64)])
        lengths: Ints = np.diff(ends[self.starts])
        return lengths


class CachedEmbeddings:
    """The cached embeddings of a split, or of several splits read as one; an ``EmbeddingSource``.

    Args:
        tables: The mapped tables of the shards, in the order of the items.
        dtype: How embeddings are stored.
        files: The files that the tables are mapped from.
    """

    def __init__(self, tables: Sequence[pa.Table], *, dtype: StoredDtype, files: Sequence[Path] = ()) -> None:
        self.dtype: StoredDtype = dtype
        self.files = tuple(files)
        self._tables = tables
        self._batches = [_RecordBatch.of(batch, dtype) for table in tables for batch in table.to_batches()]
        counts = np.array([len(batch.starts) - 1 for batch in self._batches], np.int64)
        self._batch_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._first = _concatenated([batch.starts[:-1] for batch in self._batches])
        self.n_tokens: Ints = _concatenated([batch.starts[1:] for batch in self._batches]) - self._first
        self.lengths_bp: Ints = _concatenated([batch.lengths_bp() for batch in self._batches])

    @classmethod
    def of(cls, shards: Sequence[ShardFiles], *, dtype: StoredDtype) -> CachedEmbeddings:
        """Map finished shards.

        Raises:
            CacheError: A shard cannot be read.
        """
        return cls([_mapped(files) for files in shards], dtype=dtype, files=[files.arrow for files in shards])

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return int(self._batches[0].values.shape[1])

    def __len__(self) -> int:
        return len(self._first)

    def item(self, item: int) -> ItemView:
        """Return one item without a copy."""
        batch = self._batches[self._batch_of[item]]
        tokens = slice(self._first[item], self._first[item] + self.n_tokens[item])
        return ItemView(values=batch.values[tokens], embedding_bp=batch.embedding_bp[tokens])

    def rows(self, rows: Ints) -> TokenBatch:
        """Copy the embeddings of some items.

        Args:
            rows: Item numbers, in any order, shape (B,).

        Returns:
            ``x_BTD`` is float16 if that is stored, otherwise float32.
        """
        counts, lengths_bp = self.n_tokens[rows], self.lengths_bp[rows]
        n_tokens, n_bp = int(counts.max(initial=0)), int(lengths_bp.max(initial=0))
        x_BTD = np.empty((len(rows), n_tokens, self.width), NUMPY_OF[self.dtype])
        bp_BT = np.zeros((len(rows), n_tokens + 1), np.int32)
        places = zip(self._batch_of[rows].tolist(), self._first[rows].tolist(), counts.tolist(), strict=True)
        for place, (batch_number, first, count) in enumerate(places):
            batch = self._batches[batch_number]
            x_BTD[place, :count] = batch.values[first : first + count]
            x_BTD[place, count:] = 0
            bp_BT[place, :count] = batch.embedding_bp[first : first + count]
        bp_BT[:, -1] = n_bp - lengths_bp
        return TokenBatch(x_BTD=decode(x_BTD, self.dtype), token_of_BL=_token_of(bp_BT))

    def slices(self, most_tokens: int) -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]:
        """Yield all stored token embeddings and their nucleotides in the order of the items, some at a time."""
        for batch in self._batches:
            first, last = int(batch.starts[0]), int(batch.starts[-1])
            for start in range(first, last, most_tokens):
                end = min(start + most_tokens, last)
                yield batch.values[start:end], batch.embedding_bp[start:end]

    def dataset(self) -> Dataset:
        """Return the cached columns as a dataset: embeddings, nucleotides per token, coordinates and labels."""
        import datasets

        return datasets.concatenate_datasets([datasets.Dataset(table) for table in self._tables])


def _concatenated(values: list[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *values])


def _token_of(bp_BT: NDArray[np.int32]) -> Ints:
    """Return the token of each nucleotide; the last column counts the padding, whose token is -1."""
    n_batch, n_columns = bp_BT.shape
    token_T = np.arange(n_columns)
    token_T[-1] = -1
    token_of: Ints = np.repeat(np.broadcast_to(token_T, bp_BT.shape).reshape(-1), bp_BT.reshape(-1))
    return token_of.reshape(n_batch, -1) if n_batch else token_of.reshape(0, 0)


def _mapped(files: ShardFiles) -> pa.Table:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(files.arrow))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise CacheError(
            f"{files.arrow} cannot be read ({error}) although its size and time are right. 'bend-hf cache verify' "
            "checks every byte and removes wrong shards, which are computed again."
        ) from error


def fits_on_device(n_bytes: int, device: torch.device) -> bool:
    """Check whether something takes at most half of a GPU's free memory; the rest is for the head."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return n_bytes < _DEVICE_FRACTION * free


class DeviceEmbeddings:
    """A whole cached split on a device, where batches are gathered without any copy from the host.

    Args:
        source: The cached split.
        device: Where it is held.
    """

    def __init__(self, source: CachedEmbeddings, device: torch.device) -> None:
        counts = source.n_tokens
        self.n_tokens, self.lengths_bp = counts, source.lengths_bp  # on the host, for the sizes of a batch
        self._starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])).to(device)
        self._lengths_bp = torch.from_numpy(source.lengths_bp).to(device)
        dtype = torch.float16 if source.dtype == "float16" else torch.float32
        self._values = torch.empty((int(counts.sum()) + 1, source.width), dtype=dtype, device=device)
        self._embedding_bp = torch.empty(int(counts.sum()), dtype=torch.int64, device=device)
        self._values[-1] = 0  # what padding reads
        at = 0
        for values, embedding_bp in source.slices(_COPIED_TOKENS):
            self._values[at : at + len(values)] = _tensor(decode(values, source.dtype)).to(device)
            self._embedding_bp[at : at + len(values)] = _tensor(embedding_bp).to(device)
            at += len(values)

    @staticmethod
    def fits(source: CachedEmbeddings, device: torch.device) -> bool:
        """Check whether a split takes at most half of a GPU's free memory; a CPU reads the mapped file instead."""
        bytes_per_token = source.width * (2 if source.dtype == "float16" else itemsize("float32")) + 8
        return fits_on_device(int(source.n_tokens.sum()) * bytes_per_token, device)

    def rows(self, rows: Ints) -> DeviceTokenBatch:
        """Gather the embeddings of some items.

        Args:
            rows: Item numbers, in any order, shape (B,).
        """
        items = torch.from_numpy(np.asarray(rows, np.int64)).to(self._starts.device)
        return self.gather(items, n_tokens=int(self.n_tokens[rows].max()), n_bp=int(self.lengths_bp[rows].max()))

    def gather(self, items: Tensor, *, n_tokens: int, n_bp: int) -> DeviceTokenBatch:
        """Gather the embeddings of items whose numbers are on the device. Nothing waits for it, and nothing is copied.

        Args:
            items: Item numbers, in any order, int64, shape (B,).
            n_tokens: Token embeddings of the longest of them.
            n_bp: Nucleotides of the longest of them.
        """
        first, counts = self._starts[items], self._starts[items + 1] - self._starts[items]
        token_T = torch.arange(n_tokens, device=items.device)
        real_BT = token_T < counts[:, None]
        at_BT = torch.where(real_BT, first[:, None] + token_T, len(self._values) - 1)
        bp_BT = torch.where(real_BT, self._embedding_bp[at_BT.clamp(max=len(self._embedding_bp) - 1)], 0)
        bp_BT = torch.cat([bp_BT, (n_bp - self._lengths_bp[items])[:, None]], dim=1)
        token_T = torch.cat([token_T, token_T.new_full((1,), -1)])
        token_of = (
            token_T.expand_as(bp_BT).reshape(-1).repeat_interleave(bp_BT.reshape(-1), output_size=n_bp * len(items))
        )
        return DeviceTokenBatch(x_BTD=self._values[at_BT].float(), token_of_BL=token_of.view(len(items), n_bp))


def _tensor(array: NDArray[Any]) -> Tensor:
    """Copy an array into a tensor, because the mapped file is read-only."""
    return torch.from_numpy(array.copy())
