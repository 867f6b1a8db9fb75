"""Makes one shard: ``Dataset.map`` over contiguous items, Arrow tables in and Arrow tables out.

One thread embeds, another runs ``map``, which writes; the device does not wait for the disk. Rows are converted into
a few buffers that are used again and again, and written from there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain, islice, tee
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bend_hf.embedders.cache.dtypes import COLUMN_OF, NUMPY_OF, store_into
from bend_hf.embedders.cache.shards import Follower, ShardFiles, ShardPlan, batch_items
from bend_hf.errors import CacheError
from bend_hf.types import Ints, StoredDtype

if TYPE_CHECKING:
    import datasets
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._spec import TokenEmbeddings

LENGTH_COLUMN: Final = "token_bp"
_BUFFERS: Final = 3  # one is written, one waits, one is filled
_LOOK_S: Final = 0.2
Written = Callable[[int, int], None]  # told the nucleotides and the bytes of each record batch


def stored_features(features: datasets.Features, width: int, dtype: StoredDtype) -> datasets.Features:
    """Columns of a shard: all of the dataset's but the letters, token rows, and the nucleotides of each row.

    Raises:
        CacheError: The dataset has a column of such a name already.
    """
    import datasets

    kept = {name: feature for name, feature in features.items() if name != "sequence"}
    number = {"float16": "float16", "float32": "float32", "bfloat16": "uint16"}[dtype]
    made = {
        COLUMN_OF[dtype]: datasets.LargeList(datasets.List(datasets.Value(number), length=width)),
        LENGTH_COLUMN: datasets.LargeList(datasets.Value("int32")),
    }
    taken = sorted(set(kept) & {LENGTH_COLUMN, *COLUMN_OF.values()})
    if taken:
        raise CacheError(f"the dataset has a column {taken[0]!r} already; rename it, embeddings are stored under it")
    return datasets.Features(kept | made)


class TokenColumns:
    """Turns sequences into the two columns of token rows.

    Args:
        embedder: What embeds.
        dtype: How rows are stored.
        rows_per_bp: Rows a nucleotide, about; memory for them is laid out at once.
    """

    def __init__(self, embedder: Embedder, dtype: StoredDtype, rows_per_bp: float = 1.0) -> None:
        self._embedder = embedder
        self._dtype = dtype
        self._rows_per_bp = rows_per_bp
        self._width = embedder.width
        self._buffers: deque[NDArray[Any]] = deque(np.empty((0, self._width), NUMPY_OF[dtype]) for _ in range(_BUFFERS))

    def of(self, batches: Iterable[list[str]]) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Rows and lengths of each batch; the rows are good until two more have been asked for.

        The embedder sees one stream of sequences and groups them as it likes, across the batches.
        """
        batches, sizes = tee(batches)
        embedded = self._embedded(chain.from_iterable(batches))
        for sequences in sizes:
            yield self._columns(islice(embedded, len(sequences)), n_bp=sum(map(len, sequences)))

    def _embedded(self, sequences: Iterator[str]) -> Iterator[TokenEmbeddings]:
        """The rows of each sequence.

        Where the device's memory is too small for a batch, it is tried again with half as many tokens in one.
        """
        import torch

        begun: deque[str] = deque()  # handed to the embedder, whose rows are still to come

        def next_ones() -> Iterator[str]:
            for sequence in sequences:
                begun.append(sequence)
                yield sequence

        while True:
            try:
                for item in self._embedder.iter_tokens(chain(tuple(begun), next_ones())):
                    self._check(item, begun.popleft())
                    yield item
                return
            except torch.cuda.OutOfMemoryError:
                if not self._embedder.runner().halve():
                    raise
                torch.cuda.empty_cache()

    def _columns(self, items: Iterable[TokenEmbeddings], *, n_bp: int) -> tuple[pa.Array, pa.Array]:
        counts: list[int] = []
        lengths: list[Ints] = []
        end = 0
        self._buffers.rotate()
        self._grow(0, int(1.05 * self._rows_per_bp * n_bp))
        for item in items:
            begin, end = end, end + len(item.embedding_bp)
            self._grow(begin, end)
            store_into(self._buffers[0][begin:end], item.values, self._dtype)
            counts.append(len(item.embedding_bp))
            lengths.append(item.embedding_bp)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        flat = pa.array(self._buffers[0][:end].reshape(-1))
        rows = pa.FixedSizeListArray.from_arrays(flat, self._width)
        token_bp = pa.array(np.concatenate([np.zeros(0, np.int32), *lengths]).astype(np.int32))
        return pa.LargeListArray.from_arrays(offsets, rows), pa.LargeListArray.from_arrays(offsets, token_bp)

    def _check(self, item: TokenEmbeddings, sequence: str) -> None:
        if item.values.shape != (len(item.embedding_bp), self._width) or int(item.embedding_bp.sum()) != len(sequence):
            raise CacheError(
                f"{self._embedder.name} gave rows of shape {item.values.shape} for "
                f"{int(item.embedding_bp.sum())} nucleotides, where the sequence has {len(sequence)} and the width is {self._width}"
            )

    def _grow(self, filled: int, needed: int) -> None:
        buffer = self._buffers[0]
        if needed > len(buffer):
            self._buffers[0] = np.empty((max(needed, len(buffer) * 3 // 2), self._width), buffer.dtype)
            self._buffers[0][:filled] = buffer[:filled]


class Feed:
    """Hands embedded batches from the thread that embeds to the thread that writes, one at a time over all shards.

    One waits at most, so that of three buffers one is written, one waits and one is filled.
    """

    def __init__(self) -> None:
        self._queue: Queue[tuple[int, pa.Array, pa.Array] | None] = Queue(maxsize=1)

    def put(self, number: int, columns: tuple[pa.Array, pa.Array], check: Callable[[], None]) -> None:
        """Hands a batch over.

        Args:
            number: Of its shard.
            columns: Of ``TokenColumns``.
            check: Raises where the writer has failed and will never take it.
        """
        while True:
            check()
            with contextlib.suppress(Full):
                self._queue.put((number, *columns), timeout=_LOOK_S)
                return

    def stop(self, writing: Future[None]) -> None:
        """Says that no more will come, though more were due; returns at once where nobody is writing any more."""
        while not writing.done():
            with contextlib.suppress(Full):
                self._queue.put(None, timeout=_LOOK_S)
                return

    def get(self, number: int) -> tuple[pa.Array, pa.Array]:
        """Takes the next batch of a shard.

        Raises:
            CacheError: There will be none: embedding has failed, or the writing of the shard before; its own error
                says why.
        """
        given = self._queue.get()
        if given is None or given[0] != number:
            raise CacheError(f"work stopped before shard {number} was whole")
        return given[1], given[2]


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Makes shards of one entry.

    Attributes:
        plan: The entry's.
        dataset: All its items.
        lengths_bp: Nucleotides of each item, shape (items,).
    """

    plan: ShardPlan
    dataset: Dataset
    lengths_bp: Ints

    def items(self, files: ShardFiles) -> slice:
        """Which items stand in a shard."""
        return slice(self.plan.shard_starts[files.number], self.plan.shard_starts[files.number + 1])

    def nucleotides(self, files: ShardFiles) -> int:
        """How many a shard has."""
        return int(self.lengths_bp[self.items(files)].sum())

    def batches(self, files: ShardFiles) -> Iterator[list[str]]:
        """The sequences of each record batch of a shard."""
        for table in self._part(files).select_columns(["sequence"]).iter(self._batch_items(files)):
            yield table["sequence"].to_pylist()

    def write(self, files: ShardFiles, token: str, feed: Feed, written: Written) -> None:
        """Writes a shard under a temporary name and finishes it.

        Args:
            files: Which one.
            token: The lease's, which tells this process's work from any other's.
            feed: Gives the token rows of each of ``batches``.
            written: Told of each record batch.

        Raises:
            OSError: The disk is full, or gone; nothing is left of the work.
        """
        workplace = files.workplace(token)
        workplace.mkdir()
        made, items = workplace / "made.arrow", self.items(files)
        try:
            with Follower(workplace) as follower:
                n_rows = self._map(files, made, feed, follower, written)
                digest = follower.finish(made)
            files.finish(
                made,
                digest=digest,
                items=items.stop - items.start,
                rows=n_rows,
                nucleotides=self.nucleotides(files),
            )
        finally:
            shutil.rmtree(workplace, ignore_errors=True)

    def _part(self, files: ShardFiles) -> Dataset:
        items = self.items(files)
        return self.dataset.select(range(items.start, items.stop)).with_format("arrow")

    def _batch_items(self, files: ShardFiles) -> int:
        return batch_items(self.plan, self.lengths_bp[self.items(files)])

    def _map(self, files: ShardFiles, path: Path, feed: Feed, follower: Follower, written: Written) -> int:
        features = stored_features(self.dataset.features, self.plan.width, self.plan.dtype)
        schema = features.arrow_schema
        n_items = self._batch_items(files)
        n_rows = 0

        def embedded(table: pa.Table) -> pa.Table:
            nonlocal n_rows
            follower.look()  # the batches before this one are written
            rows, token_bp = feed.get(files.number)
            n_rows += len(token_bp.values)
            made = {name: table[name] for name in table.column_names}
            made |= {COLUMN_OF[self.plan.dtype]: rows, LENGTH_COLUMN: token_bp}
            whole = pa.table([made[name] for name in schema.names], names=schema.names).cast(schema)
            written(pc.sum(token_bp.values).as_py() or 0, whole.nbytes)
            return whole

        self._part(files).map(
            embedded,
            batched=True,
            batch_size=n_items,
            writer_batch_size=n_items,
            features=features,
            cache_file_name=str(path),
            new_fingerprint=f"{self.plan.key}-{files.number:05d}",
            load_from_cache_file=False,
        )
        return n_rows


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """One bar stands over the whole cache; `datasets` would add one for each shard."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
