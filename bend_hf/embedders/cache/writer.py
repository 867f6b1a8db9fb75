"""Write one shard: ``Dataset.map`` over contiguous items, Arrow tables in and Arrow tables out.

One thread embeds, another runs ``map``, which writes, so that the device does not wait for the disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bend_hf.embedders._alignment import sums
from bend_hf.embedders._pipeline import Storage, numpy_rows
from bend_hf.embedders.cache.dtypes import (
    COLUMN_OF,
    NUMPY_OF,
    encode,
    encode_into,
    explain_too_small,
    is_storable,
    is_too_small,
    torch_dtype,
)
from bend_hf.embedders.cache.shards import ShardFiles, ShardPlan
from bend_hf.embedders.token_embeddings import item_name
from bend_hf.errors import CacheError
from bend_hf.types import Ints, StoredDtype

if TYPE_CHECKING:
    import datasets
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._pipeline import StoredRows
    from bend_hf.embedders._spec import TokenEmbeddings
    from bend_hf.embedders.cache.pooling import Pooling

LENGTH_COLUMN: Final = "token_bp"
_POLL_S: Final = 0.2
_FLUSH_BYTES: Final = 1 << 26  # flushing less costs the disk more than it saves at the end
OnBatch: TypeAlias = Callable[[int], None]  # called with the nucleotides of each record batch


def stored_features(features: datasets.Features, width: int, dtype: StoredDtype) -> datasets.Features:
    """Name the columns of a shard: those of the dataset except the sequence, embeddings, and nucleotides per token.

    Raises:
        CacheError: The dataset already has a column of such a name.
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
        raise CacheError(f"the dataset already has a column {taken[0]!r}, which stores embeddings; rename it")
    return datasets.Features(kept | made)


class UnstorableError(CacheError):
    """Embeddings of a sequence that cannot be stored.

    Attributes:
        position: Which sequence, counted from the first one that the columns were made of.
    """

    def __init__(self, text: str, position: int = 0) -> None:
        super().__init__(text)
        self.position = position


class TokenColumns:
    """Turns sequences into the two columns of token embeddings.

    Args:
        embedder: Embeds the sequences.
        dtype: How embeddings are stored.
        embeddings_per_bp: Estimated stored embeddings per nucleotide, for the first allocation.
        pooling: How token embeddings are averaged before they are stored; None to store them as they are.
    """

    def __init__(
        self,
        embedder: Embedder,
        dtype: StoredDtype,
        embeddings_per_bp: float = 1.0,
        pooling: Pooling | None = None,
    ) -> None:
        self._embedder = embedder
        self._dtype = dtype
        self._embeddings_per_bp = embeddings_per_bp
        self._pooling = pooling
        self._width = embedder.row_width

    def of(self, batches: Iterable[list[str]]) -> Generator[tuple[pa.Array, pa.Array], None, None]:
        """Yield embeddings and token lengths of each batch.

        The embedder sees one stream of sequences and groups them as it likes, across the batches. Embeddings that are
        stored as they are computed are written once: the array wraps the buffer that the embedder wrote to.

        Args:
            batches: Sequences that are stored together; read in another thread, ahead of what is yielded.

        Raises:
            UnstorableError: A number cannot be stored.
        """
        given: deque[list[str]] = deque()  # read, but not yielded so far

        def remember() -> Iterator[list[str]]:
            for sequences in batches:
                given.append(sequences)
                yield sequences

        n_before = 0
        try:
            with closing(self._made(remember(), given)) as made:
                for columns, n in made:
                    n_before += n
                    yield columns
        except UnstorableError as error:
            error.position += n_before
            raise

    def of_layers(self, batches: Iterable[list[str]]) -> Generator[tuple[tuple[pa.Array, pa.Array]], None, None]:
        """Yield the columns of each batch, for the only layer; see ``of``."""
        with closing(self.of(batches)) as made:
            for columns in made:
                yield (columns,)

    def _made(
        self, batches: Iterator[list[str]], given: deque[list[str]]
    ) -> Generator[tuple[tuple[pa.Array, pa.Array], int], None, None]:
        """Yield the columns of each batch, and its number of sequences."""
        if self._embedder.overlaps:
            with closing(self._embedder.iter_stored_layers(batches, self.storage)) as units:
                for (unit,) in units:
                    sequences = given.popleft()
                    yield self.around(unit, sequences), len(sequences)
            return
        embedded = self.embed(chain.from_iterable(batches))
        for first in embedded:
            sequences = given.popleft()
            items = chain([first], islice(embedded, len(sequences) - 1))
            yield self.columns(items, n_bp=sum(map(len, sequences))), len(sequences)

    @property
    def storage(self) -> Storage:
        """How the embedder stores the rows."""
        pooling = self._pooling
        return Storage(
            dtype=torch_dtype(self._rounded_to),
            rows_per_bp=self._embeddings_per_bp,
            pool_bp=None if pooling is None else pooling.pool_bp,
        )

    def around(self, unit: StoredRows, sequences: list[str]) -> tuple[pa.Array, pa.Array]:
        """Return the columns of a batch around the buffer that the embedder filled, after they were checked.

        Raises:
            CacheError: The embedder returned another number of rows or nucleotides.
            UnstorableError: A number cannot be stored.
        """
        values = numpy_rows(unit.values)
        n_bp = sums(unit.bp, unit.starts)
        wrong = np.flatnonzero(n_bp != np.array([len(one) for one in sequences]))
        if len(wrong) or values.shape != (len(unit.bp), self._width):
            first = int(wrong[0]) if len(wrong) else 0
            raise self._misshapen(values.shape, int(n_bp[first]), sequences[first])
        if not is_storable(values, self._dtype):
            self._explain(values, unit, sequences)
        if len(values) and is_too_small(values, self._dtype, self._rounded_to):
            (item,) = self._embedder.embed_tokens(sequences[:1])
            self._refuse_small(float(np.abs(item.values).max()))
        return _columns(values, unit.starts, unit.bp)

    @property
    def _rounded_to(self) -> StoredDtype:
        return self._dtype if self._pooling is None else self._pooling.rounded_to

    def _refuse_small(self, largest: float) -> None:
        """Raise an UnstorableError for a batch that rounding left few digits, unless the embeddings are zero anyway."""
        if largest:
            raise UnstorableError(explain_too_small(largest, self._rounded_to), position=0)

    def _explain(self, values: NDArray[Any], unit: StoredRows, sequences: list[str]) -> None:
        """Raise an UnstorableError for the first sequence with a number that cannot be stored."""
        for position, (first, last) in enumerate(pairwise(unit.starts.tolist())):
            if not is_storable(values[first:last], self._dtype):
                (item,) = self._embedder.embed_tokens([sequences[position]])  # the numbers before they were rounded
                try:
                    if self._pooling is not None:
                        item = self._pooling.of(item)
                    encode(item.values, self._dtype)
                except CacheError as error:
                    text = _with_remedy(str(error), self._embedder)
                    raise UnstorableError(text, position=position) from error
                text = _with_remedy("the embedder returned a number that is not finite", self._embedder)
                raise UnstorableError(text, position=position)

    def embed(self, sequences: Iterator[str]) -> Iterator[TokenEmbeddings]:
        """Embed each sequence; if a batch does not fit into the device's memory, halve the batch size and retry."""
        import torch

        begun: deque[str] = deque()  # given to the embedder, without a result so far

        def remember() -> Iterator[str]:
            for sequence in sequences:
                begun.append(sequence)
                yield sequence

        while True:
            try:
                for item in self._embedder.iter_tokens(chain(tuple(begun), remember())):
                    self._check(item, begun.popleft())
                    yield item
                return
            except torch.cuda.OutOfMemoryError:
                if not self._embedder.runner().halve():
                    raise
                torch.cuda.empty_cache()

    def columns(self, items: Iterable[TokenEmbeddings], *, n_bp: int) -> tuple[pa.Array, pa.Array]:
        """Return embeddings and token lengths of the sequences of a batch, which hold ``n_bp`` nucleotides.

        Raises:
            UnstorableError: A number cannot be stored.
        """
        counts: list[int] = []
        lengths: list[Ints] = []
        end, largest = 0, 0.0
        stored: NDArray[Any] = np.empty(
            (int(1.05 * self._embeddings_per_bp * n_bp), self._width), NUMPY_OF[self._dtype]
        )
        for original in items:
            try:
                item = original if self._pooling is None else self._pooling.of(original)
                begin, end = end, end + len(item.embedding_bp)
                if end > len(stored):
                    stored = _grown(stored, filled=begin, needed=end)
                encode_into(stored[begin:end], item.values, self._dtype)
                if is_too_small(stored[begin:end], self._dtype, self._rounded_to):
                    largest = max(largest, float(np.abs(original.values).max(initial=0)))
            except CacheError as error:
                raise UnstorableError(_with_remedy(str(error), self._embedder), position=len(counts)) from error
            counts.append(len(item.embedding_bp))
            lengths.append(item.embedding_bp)
        if is_too_small(stored[:end], self._dtype, self._rounded_to):
            self._refuse_small(largest)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return _columns(stored[:end], starts, np.concatenate([np.zeros(0, np.int32), *lengths]))

    def _check(self, item: TokenEmbeddings, sequence: str) -> None:
        n_bp = int(item.embedding_bp.sum())
        if item.values.shape != (len(item.embedding_bp), self._width) or n_bp != len(sequence):
            raise self._misshapen(item.values.shape, n_bp, sequence)

    def _misshapen(self, shape: tuple[int, ...], n_bp: int, sequence: str) -> CacheError:
        return CacheError(
            f"{self._embedder.name} returned embeddings of shape {shape} for {n_bp} nucleotides; "
            f"expected width {self._width} for a sequence of {len(sequence)} nucleotides"
        )


def _columns(values: NDArray[Any], starts: Ints, bp: Ints) -> tuple[pa.Array, pa.Array]:
    """Wrap stored embeddings, shape (R, D), and their nucleotides as lists of each sequence, without a copy of them."""
    offsets = pa.array(starts)
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    token_bp = pa.array(bp.astype(np.int32))
    return pa.LargeListArray.from_arrays(offsets, embeddings), pa.LargeListArray.from_arrays(offsets, token_bp)


def _with_remedy(text: str, embedder: Embedder) -> str:
    return text if "too large" in text else f"{text}; {embedder.finite_remedy}"


def _grown(stored: NDArray[Any], *, filled: int, needed: int) -> NDArray[Any]:
    larger = np.empty((max(needed, len(stored) * 3 // 2), stored.shape[1]), stored.dtype)
    larger[:filled] = stored[:filled]
    return larger


class Feed:
    """Hands batches from the thread that embeds to the thread that writes; at most one waits."""

    def __init__(self) -> None:
        self._queue: Queue[tuple[int, pa.Array, pa.Array] | None] = Queue(maxsize=1)

    def put(self, number: int, columns: tuple[pa.Array, pa.Array], check: Callable[[], None]) -> None:
        """Hand over a batch.

        Args:
            number: Number of its shard.
            columns: From ``TokenColumns``.
            check: Raises if the writer has failed and will never take the batch.
        """
        while True:
            check()
            with contextlib.suppress(Full):
                self._queue.put((number, *columns), timeout=_POLL_S)
                return

    def stop(self, writing: Future[None]) -> None:
        """Tell the writer that embedding has failed; return at once if the writer has ended."""
        while not writing.done():
            with contextlib.suppress(Full):
                self._queue.put(None, timeout=_POLL_S)
                return

    def get(self, number: int) -> tuple[pa.Array, pa.Array]:
        """Take the next batch of a shard.

        Raises:
            CacheError: Embedding failed, or writing the previous shard did; that error says why.
        """
        given = self._queue.get()
        if given is None or given[0] != number:
            raise CacheError(f"embedding stopped before shard {number} was finished")
        return given[1], given[2]


class EarlyFlush:
    """Flushes a growing file to the disk while it is written, so that its writer waits less when it is whole.

    Args:
        folder: Folder that holds the file, under any name, or will hold it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flush early")
        self._flush: Future[None] | None = None
        self._n_flushed = 0

    def __enter__(self) -> EarlyFlush:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None and self._flush is not None:
            self._flush.result()

    def start(self) -> None:
        """Flush what has been written, in a thread, if that is enough and the last flush is over.

        Raises:
            OSError: The last flush did not reach the disk. The kernel reports such an error only once.
        """
        if self._flush is not None:
            if not self._flush.done():
                return
            self._flush.result()
        for path in self._folder.iterdir():
            n_written = path.stat().st_size
            if n_written - self._n_flushed >= _FLUSH_BYTES:
                self._n_flushed = n_written
                self._flush = self._thread.submit(_flush, path.open("rb"))


def _flush(opened: BinaryIO) -> None:
    with opened:  # under its temporary name, which it may lose before the thread comes to it
        os.fsync(opened.fileno())


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Writes the shards of one dataset.

    Attributes:
        plan: How the dataset is cut.
        dataset: The dataset.
        lengths_bp: Nucleotides of each item, shape (items,).
    """

    plan: ShardPlan
    dataset: Dataset
    lengths_bp: Ints

    def n_bp(self, files: ShardFiles) -> int:
        """Count the nucleotides of a shard."""
        return int(self.lengths_bp[self._items(files)].sum())

    def item_name(self, files: ShardFiles, position: int) -> str:
        """Name a sequence of a shard in messages."""
        return item_name(self.dataset, self._items(files).start + position)

    def batches(self, files: ShardFiles) -> Iterator[list[str]]:
        """Yield the sequences of each record batch of a shard."""
        for table in self._shard(files).select_columns(["sequence"]).iter(self._items_per_batch(files)):
            yield table["sequence"].to_pylist()

    def write(self, files: ShardFiles, token: str, feed: Feed, on_batch: OnBatch) -> None:
        """Write a shard in a work folder and finish it.

        Args:
            files: Which shard.
            token: Token of the lease, which names this process's work folder.
            feed: Gives the columns of each of ``batches``.
            on_batch: Called for each record batch.

        Raises:
            OSError: The file cannot be written; nothing of the work is left.
        """
        work_folder = files.work_folder(token)
        work_folder.mkdir()
        written, items = work_folder / "made.arrow", self._items(files)
        try:
            with EarlyFlush(work_folder) as early:

                def flush_too(n_bp: int) -> None:
                    early.start()
                    on_batch(n_bp)

                n_embeddings = self._map(files, written, feed, flush_too)
            files.finish(written, items=items.stop - items.start, rows=n_embeddings, nucleotides=self.n_bp(files))
        finally:
            shutil.rmtree(work_folder, ignore_errors=True)

    def _items(self, files: ShardFiles) -> slice:
        return slice(self.plan.shard_starts[files.number], self.plan.shard_starts[files.number + 1])

    def _shard(self, files: ShardFiles) -> Dataset:
        items = self._items(files)
        return self.dataset.select(range(items.start, items.stop)).with_format("arrow")

    def _items_per_batch(self, files: ShardFiles) -> int:
        return self.plan.items_per_batch(self.lengths_bp[self._items(files)])

    def _map(self, files: ShardFiles, path: Path, feed: Feed, on_batch: OnBatch) -> int:
        """Write the Arrow file and return its number of embeddings."""
        features = stored_features(self.dataset.features, self.plan.width, self.plan.dtype)
        schema = features.arrow_schema
        n_items = self._items_per_batch(files)
        n_embeddings = 0

        def embedded(table: pa.Table) -> pa.Table:
            nonlocal n_embeddings
            embeddings, token_bp = feed.get(files.number)
            n_embeddings += len(token_bp.values)
            columns = {name: table[name] for name in table.column_names}
            columns |= {COLUMN_OF[self.plan.dtype]: embeddings, LENGTH_COLUMN: token_bp}
            whole = pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)
            on_batch(pc.sum(token_bp.values).as_py() or 0)
            return whole

        self._shard(files).map(
            embedded,
            batched=True,
            batch_size=n_items,
            writer_batch_size=n_items,
            features=features,
            cache_file_name=str(path),
            new_fingerprint=f"{self.plan.key}-{files.number:05d}",
            load_from_cache_file=False,
        )
        return n_embeddings


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Hide the bar that `datasets` draws for each shard; one bar shows the whole cache."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
