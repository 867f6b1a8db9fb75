"""Reads cached embeddings: shards mapped into memory, any items in any order, at the speed of memory.

Nothing is read when a cache is opened but the index. ``item`` gives views into the mapped file without a copy;
``rows`` copies a batch once, into memory that is used again as soon as nobody holds the batch before.

Memory for batches that is used again: filling fresh memory is several times slower than copying into used memory.

>>> recycler = Recycler()
>>> first = recycler.empty((4,), np.dtype(np.float32))
>>> address = first.ctypes.data
>>> del first; recycler.empty((2,), np.dtype(np.float16)).ctypes.data == address
True

Batches on their way to a device: gathered ahead in pinned memory, or the whole split held there where it fits.

For training: while the device works on a batch, a thread gathers the next ones and their copies run. Any
``EmbeddingSource`` will do.

    for batch in device_batches(source, batches, device):
        logits = head(batch.x_BTD, batch.token_of_BL)

>>> from bend_hf.embedders.token_embeddings import TokenBatch
>>> class Source:
...     width = 1
...     def __len__(self): return 3
...     def rows(self, rows): return TokenBatch(
...         x_BTD=rows.reshape(-1, 1, 1).astype(np.float32), token_of_BL=np.zeros((len(rows), 2), np.int64))
>>> import torch
>>> [batch.x_BTD.flatten().tolist() for batch in device_batches(Source(), [[2, 0], [1]], torch.device("cpu"))]
[[2.0, 0.0], [1.0]]
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bend_hf.embedders.cache.dtypes import COLUMN_OF, NUMPY_OF, itemsize, readable
from bend_hf.embedders.cache.shards import ShardFiles
from bend_hf.embedders.cache.writer import LENGTH_COLUMN
from bend_hf.embedders.token_embeddings import EmbeddingSource, TokenBatch
from bend_hf.errors import CacheError
from bend_hf.types import Ints, StoredDtype

if TYPE_CHECKING:
    from datasets import Dataset

_KEPT: Final = 8  # batches that may be on their way at once; more are served from fresh memory


def _references(buffers: list[NDArray[np.uint8]], place: int) -> int:
    """How often a buffer is referred to, this list included."""
    return sys.getrefcount(buffers[place])


_UNUSED: Final = _references([np.empty(0, np.uint8)], 0)  # what Python counts for a buffer that nobody else has


class Recycler:
    """Gives arrays; takes their memory back when no array or tensor refers to it any more."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array with arbitrary content."""
        n_bytes = prod(shape) * dtype.itemsize
        return self._buffer(n_bytes)[:n_bytes].view(dtype).reshape(shape)

    def _buffer(self, n_bytes: int) -> NDArray[np.uint8]:
        small = None
        for place in range(len(self._buffers)):
            if _references(self._buffers, place) == _UNUSED:
                if len(self._buffers[place]) >= n_bytes:
                    return self._buffers[place]
                small = place
        fresh = np.empty(n_bytes + n_bytes // 4, np.uint8)
        if small is not None:
            self._buffers[small] = fresh
        elif len(self._buffers) < _KEPT:
            self._buffers.append(fresh)
        return fresh


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

    def rows(self, rows: Ints) -> TokenBatch:
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
        return TokenBatch(x_BTD=readable(x_BTD, self.dtype), token_of_BL=_token_of(bp_BT))

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


_SHARE: Final = 0.5  # of a device's free memory that a held split may take; the rest is the head's
_CHUNK_ROWS: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class DeviceEmbeddings:
    """One batch on the device; the same as ``TokenBatch``, x_BTD in float32."""

    x_BTD: Tensor
    token_of_BL: Tensor


def device_batches(
    source: EmbeddingSource, batches: Iterable[Ints], device: torch.device, *, ahead: int = 2
) -> Iterator[DeviceEmbeddings]:
    """The embeddings of batches, in order.

    Args:
        source: Where they come from.
        batches: Item numbers of each batch.
        device: Where they are wanted.
        ahead: Batches gathered in advance; 0 gathers each when it is asked for.
    """
    if ahead < 1:
        for rows in batches:
            yield _landed(_sent(source, np.asarray(rows), device), device)
        return
    waiting: deque[Future[_OnTheWay]] = deque()
    left = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="embeddings") as gatherer:
        try:
            for rows in islice(left, ahead):
                waiting.append(gatherer.submit(_sent, source, np.asarray(rows), device))
            while waiting:
                sent = waiting.popleft().result()
                for rows in islice(left, 1):
                    waiting.append(gatherer.submit(_sent, source, np.asarray(rows), device))
                yield _landed(sent, device)
        finally:
            for future in waiting:  # the reader stopped early, or a batch could not be made
                future.cancel()


@dataclass(frozen=True, kw_only=True)
class _OnTheWay:
    """Tensors that are being copied; ``host`` must live until ``copied``."""

    x_BTD: Tensor
    token_of_BL: Tensor
    host: tuple[Tensor, ...]
    copied: torch.cuda.Event | None


def _sent(source: EmbeddingSource, rows: Ints, device: torch.device) -> _OnTheWay:
    embedded = source.rows(rows)
    x, token_of = torch.from_numpy(embedded.x_BTD), torch.from_numpy(embedded.token_of_BL)
    if device.type != "cuda":
        return _OnTheWay(x_BTD=x.to(device), token_of_BL=token_of.to(device), host=(), copied=None)
    stream = _copy_stream(device)
    host = (x.pin_memory(), token_of.pin_memory())
    with torch.cuda.stream(stream):
        moved = [tensor.to(device, non_blocking=True) for tensor in host]
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(stream)
    return _OnTheWay(x_BTD=moved[0], token_of_BL=moved[1], host=host, copied=copied)


def _landed(sent: _OnTheWay, device: torch.device) -> DeviceEmbeddings:
    if sent.copied is not None:
        current = torch.cuda.current_stream(device)
        current.wait_event(sent.copied)
        for tensor in (sent.x_BTD, sent.token_of_BL):
            tensor.record_stream(current)
    return DeviceEmbeddings(x_BTD=sent.x_BTD.float(), token_of_BL=sent.token_of_BL)


_STREAMS: Final[dict[torch.device, torch.cuda.Stream]] = {}


def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _STREAMS[device]


class HeldEmbeddings:
    """A whole cached split on a device: batches are gathered there, nothing is copied any more.

    Args:
        source: What to hold.
        device: Where.
    """

    def __init__(self, source: CachedEmbeddings, device: torch.device) -> None:
        counts = source.n_rows
        self._starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])).to(device)
        self._lengths_bp = torch.from_numpy(source.lengths_bp).to(device)
        kind = torch.float16 if source.dtype == "float16" else torch.float32
        self._rows = torch.empty((int(counts.sum()) + 1, source.width), dtype=kind, device=device)
        self._row_bp = torch.empty(int(counts.sum()), dtype=torch.int64, device=device)
        self._rows[-1] = 0  # what padded places read
        at = 0
        for rows, row_bp in source.pieces(_CHUNK_ROWS):
            self._rows[at : at + len(rows)] = _tensor(readable(rows, source.dtype)).to(device)
            self._row_bp[at : at + len(rows)] = _tensor(row_bp).to(device)
            at += len(rows)

    @staticmethod
    def fits(source: CachedEmbeddings, device: torch.device) -> bool:
        """Whether a split takes at most half of the free memory of a device; never held on a CPU, which maps it."""
        if device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(device)
        bytes_a_row = source.width * (2 if source.dtype == "float16" else itemsize("float32")) + 8
        return int(source.n_rows.sum()) * bytes_a_row < _SHARE * free

    def rows(self, rows: Ints) -> DeviceEmbeddings:
        """The embeddings of some items, in the order given."""
        items = torch.from_numpy(np.asarray(rows, np.int64)).to(self._starts.device)
        first, counts = self._starts[items], self._starts[items + 1] - self._starts[items]
        place_T = torch.arange(int(counts.max()), device=items.device)
        real_BT = place_T < counts[:, None]
        at_BT = torch.where(real_BT, first[:, None] + place_T, len(self._rows) - 1)
        lengths = self._lengths_bp[items]
        n_bp = int(lengths.max())
        bp_BT = torch.where(real_BT, self._row_bp[at_BT.clamp(max=len(self._row_bp) - 1)], 0)
        bp_BT = torch.cat([bp_BT, (n_bp - lengths)[:, None]], dim=1)
        place_T = torch.cat([place_T, place_T.new_full((1,), -1)])
        token_of = (
            place_T.expand_as(bp_BT).reshape(-1).repeat_interleave(bp_BT.reshape(-1), output_size=n_bp * len(items))
        )
        return DeviceEmbeddings(x_BTD=self._rows[at_BT].float(), token_of_BL=token_of.view(len(items), n_bp))


def _tensor(array: NDArray[Any]) -> Tensor:
    """A tensor of its own; the mapped file is read-only."""
    return torch.from_numpy(array.copy())
