"""Makes one shard: ``Dataset.map`` over contiguous items, Arrow tables in and Arrow tables out.

The rows are converted into one buffer that every record batch uses again, and written from there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from bend_hf.cache.errors import CacheError
from bend_hf.cache.numbers import COLUMN_OF, NUMPY_OF, StoredDtype, store_into
from bend_hf.cache.plan import Plan, batch_items
from bend_hf.cache.shard import ShardFiles, ShardRecord
from bend_hf.shapes import Ints

if TYPE_CHECKING:
    import datasets
    from datasets import Dataset

    from bend_hf.embedders._base import Embedder
    from bend_hf.embedders._options import TokenEmbeddings

LENGTH_COLUMN: Final = "token_bp"
_MADE: Final = "made.arrow"
_LEAST_BATCH_TOKENS: Final = 512
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
        self._buffer: np.ndarray[Any, Any] = np.empty((0, self._width), NUMPY_OF[dtype])

    def of(self, sequences: list[str]) -> tuple[pa.Array, pa.Array]:
        """Rows and lengths; the rows are good until the next call.

        Where the device's memory is too small for a batch, it is tried again with half as many tokens in one.
        """
        import torch

        while True:
            try:
                return self._of(sequences)
            except torch.cuda.OutOfMemoryError:
                runner = self._embedder._ready()
                if runner.usual_tokens <= _LEAST_BATCH_TOKENS:
                    raise
                runner.batch_tokens = runner.usual_tokens // 2
                torch.cuda.empty_cache()

    def _of(self, sequences: list[str]) -> tuple[pa.Array, pa.Array]:
        counts: list[int] = []
        lengths: list[Ints] = []
        end = 0
        self._grow(0, int(1.05 * self._rows_per_bp * sum(map(len, sequences))))
        for item in self._embedder.iter_tokens(sequences):
            self._check(item, sequences[len(counts)])
            begin, end = end, end + len(item.row_bp)
            self._grow(begin, end)
            store_into(self._buffer[begin:end], item.rows, self._dtype)
            counts.append(len(item.row_bp))
            lengths.append(item.row_bp)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        flat = pa.array(self._buffer[:end].reshape(-1))
        rows = pa.FixedSizeListArray.from_arrays(flat, self._width)
        token_bp = pa.array(np.concatenate([np.zeros(0, np.int32), *lengths]).astype(np.int32))
        return pa.LargeListArray.from_arrays(offsets, rows), pa.LargeListArray.from_arrays(offsets, token_bp)

    def _check(self, item: TokenEmbeddings, sequence: str) -> None:
        if item.rows.shape != (len(item.row_bp), self._width) or int(item.row_bp.sum()) != len(sequence):
            raise CacheError(
                f"{self._embedder.name} gave rows of shape {item.rows.shape} for {int(item.row_bp.sum())} nucleotides, "
                f"where the sequence has {len(sequence)} and the width is {self._width}"
            )

    def _grow(self, filled: int, needed: int) -> None:
        if needed > len(self._buffer):
            larger = np.empty((max(needed, len(self._buffer) * 3 // 2), self._width), self._buffer.dtype)
            larger[:filled] = self._buffer[:filled]
            self._buffer = larger


@dataclass(frozen=True, kw_only=True)
class MadeShard:
    """A shard that is written, but has neither its name nor its record.

    Attributes:
        files: Which one.
        workplace: The folder that holds it.
        items: Sequences in it.
        rows: Token rows in it.
        nucleotides: That they stand for.
    """

    files: ShardFiles
    workplace: Path
    items: int
    rows: int
    nucleotides: int

    def finish(self) -> ShardRecord:
        """Gives it its name and its record.

        Raises:
            OSError: The disk is full, or gone; nothing is left of the work.
        """
        try:
            return self.files.finish(
                self.workplace / _MADE, items=self.items, rows=self.rows, nucleotides=self.nucleotides
            )
        finally:
            shutil.rmtree(self.workplace, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Makes shards of one entry.

    Attributes:
        plan: The entry's.
        dataset: All its items.
        lengths_bp: Nucleotides of each item, shape (items,).
        columns: Makes the token rows.
    """

    plan: Plan
    dataset: Dataset
    lengths_bp: Ints
    columns: TokenColumns

    def make(self, files: ShardFiles, token: str, written: Written) -> MadeShard:
        """Makes a shard under a temporary name.

        Args:
            files: Which one.
            token: The lease's, which tells this process's work from any other's.
            written: Told of each record batch.

        Raises:
            OSError: The disk is full, or gone; nothing is left of the work.
            CacheError: A number does not fit.
        """
        first, last = self.plan.shard_starts[files.number], self.plan.shard_starts[files.number + 1]
        workplace = files.workplace(token)
        workplace.mkdir()
        try:
            n_rows = self._map(first, last, workplace / _MADE, f"{self.plan.key}-{files.number:05d}", written)
        except BaseException:
            shutil.rmtree(workplace, ignore_errors=True)
            raise
        return MadeShard(
            files=files,
            workplace=workplace,
            items=last - first,
            rows=n_rows,
            nucleotides=int(self.lengths_bp[first:last].sum()),
        )

    def _map(self, first: int, last: int, path: Path, fingerprint: str, written: Written) -> int:
        features = stored_features(self.dataset.features, self.plan.width, self.plan.dtype)
        schema = features.arrow_schema
        n_items = batch_items(self.plan, self.lengths_bp[first:last])
        n_rows = 0

        def embedded(table: pa.Table) -> pa.Table:
            nonlocal n_rows
            sequences = table["sequence"].to_pylist()
            rows, token_bp = self.columns.of(sequences)
            n_rows += len(token_bp.values)
            made = {**{name: table[name] for name in table.column_names}, COLUMN_OF[self.plan.dtype]: rows}
            made[LENGTH_COLUMN] = token_bp
            whole = pa.table([made[name] for name in schema.names], names=schema.names).cast(schema)
            written(sum(map(len, sequences)), whole.nbytes)
            return whole

        with _no_bars():
            self.dataset.select(range(first, last)).with_format("arrow").map(
                embedded,
                batched=True,
                batch_size=n_items,
                writer_batch_size=n_items,
                features=features,
                cache_file_name=str(path),
                new_fingerprint=fingerprint,
                load_from_cache_file=False,
            )
        return n_rows


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
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
