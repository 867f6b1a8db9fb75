"""Count duplicates in a built dataset: intervals that occur twice, and sequences that occur in two splits.

Used for the dataset card. A sequence in both the training and the test split makes scores too high, so duplicates are
counted and named; they are never removed silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bend_hf.types import Ints, Json

_EXAMPLES: Final = 5
_INTERVAL_COLUMNS: Final = ("chromosome", "start", "end", "strand", "ref", "alt")


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Duplicate rows of a dataset.

    Attributes:
        n_intervals: Rows with the interval (for variants: position, REF and ALT) of an earlier row.
        interval_items: Items of the first such rows.
        shared: For each pair of splits, the number of rows of the second whose sequence occurs in the first.
        shared_items: For each pair, items of the first such rows.
    """

    n_intervals: int
    interval_items: tuple[int, ...]
    shared: dict[str, int]
    shared_items: dict[str, tuple[int, ...]]

    def as_json(self) -> dict[str, Json]:
        """The duplicates as they are stored in the facts of a build."""
        return {
            "rows_at_a_place_seen_before": self.n_intervals,
            "items_at_a_place_seen_before": list(self.interval_items),
            "rows_with_a_sequence_of_another_split": dict(self.shared),
            "items_with_a_sequence_of_another_split": {name: list(items) for name, items in self.shared_items.items()},
        }


def find_duplicates(subsets: Sequence[tuple[str, Sequence[Path]]]) -> Duplicates:
    """Count duplicates within and between the splits of a dataset.

    Args:
        subsets: Name and Parquet files of each split, or of each subset of folds.
    """
    items, sequences, intervals = [], [], []
    for _, paths in subsets:
        read = [_read(path) for path in paths]
        items.append(np.concatenate([file.items for file in read]))
        sequences.append(np.concatenate([file.sequences for file in read]))
        intervals.append(np.concatenate([file.intervals for file in read]))
    all_items, all_intervals = np.concatenate(items), np.concatenate(intervals)
    _, first = np.unique(all_intervals, return_index=True)
    repeated = np.setdiff1d(np.arange(len(all_items)), first)
    shared, shared_items = {}, {}
    for low in range(len(subsets)):
        for high in range(low + 1, len(subsets)):
            again = items[high][np.isin(sequences[high], sequences[low])]
            if len(again):
                pair = f"{subsets[low][0]}, {subsets[high][0]}"
                shared[pair], shared_items[pair] = len(again), tuple(again[:_EXAMPLES].tolist())
    return Duplicates(
        n_intervals=len(repeated),
        interval_items=tuple(all_items[repeated][:_EXAMPLES].tolist()),
        shared=shared,
        shared_items=shared_items,
    )


@dataclass(frozen=True, kw_only=True)
class _Hashes:
    """Items of one file with 64-bit hashes of their sequences and intervals."""

    items: Ints
    sequences: NDArray[np.uint64]
    intervals: NDArray[np.uint64]


def _read(path: Path) -> _Hashes:
    """Read and hash one file, one row group at a time."""
    from pandas.util import hash_array, hash_pandas_object

    file = pq.ParquetFile(path)
    columns = [name for name in _INTERVAL_COLUMNS if name in file.schema_arrow.names]
    items, sequences, intervals = [], [], []
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["item", "sequence", *columns])
        items.append(table["item"].to_numpy())
        sequences.append(hash_array(table["sequence"].to_numpy(), categorize=False))
        intervals.append(hash_pandas_object(table.select(columns).to_pandas(), index=False).to_numpy())
    return _Hashes(
        items=np.concatenate(items), sequences=np.concatenate(sequences), intervals=np.concatenate(intervals)
    )
