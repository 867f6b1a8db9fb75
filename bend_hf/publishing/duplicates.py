"""Count what is repeated in a built dataset: rows at one place, and sequences that two splits share.

The dataset card reports the counts. A sequence that is both trained on and tested on makes a score too good; it is
counted and named, never removed silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bend_hf.types import Ints, Json

_EXAMPLES: Final = 5
_PLACE: Final = ("chromosome", "start", "end", "strand", "ref", "alt")
Hashes: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How much of a dataset is repeated.

    Attributes:
        places: Number of rows at the place of an earlier row (for variants: place, REF and ALT).
        place_items: Items of the first such rows.
        shared: For each pair of splits, number of rows of the second whose sequence is in the first.
        shared_items: For each pair, items of the first such rows.
    """

    places: int
    place_items: tuple[int, ...]
    shared: dict[str, int]
    shared_items: dict[str, tuple[int, ...]]

    def as_json(self) -> dict[str, Json]:
        """Return the counts as JSON."""
        return {
            "rows_at_a_place_seen_before": self.places,
            "items_at_a_place_seen_before": list(self.place_items),
            "rows_with_a_sequence_of_another_split": dict(self.shared),
            "items_with_a_sequence_of_another_split": {name: list(items) for name, items in self.shared_items.items()},
        }


def repetitions(subsets: Sequence[tuple[str, Sequence[Path]]]) -> Repetition:
    """Count what is repeated in and between the subsets of a dataset.

    Args:
        subsets: Name and Parquet files of each split, or of each subset that folds are made of.
    """
    items, hashes, places = [], [], []
    for _, paths in subsets:
        read = [_read(path) for path in paths]
        items.append(np.concatenate([one[0] for one in read]))
        hashes.append(np.concatenate([one[1] for one in read]))
        places.append(np.concatenate([one[2] for one in read]))
    all_items, all_places = np.concatenate(items), np.concatenate(places)
    _, first = np.unique(all_places, return_index=True)
    repeated = np.setdiff1d(np.arange(len(all_items)), first)
    shared, shared_items = {}, {}
    for low in range(len(subsets)):
        for high in range(low + 1, len(subsets)):
            again = items[high][np.isin(hashes[high], hashes[low])]
            if len(again):
                pair = f"{subsets[low][0]}, {subsets[high][0]}"
                shared[pair], shared_items[pair] = len(again), tuple(again[:_EXAMPLES].tolist())
    return Repetition(
        places=len(repeated),
        place_items=tuple(all_items[repeated][:_EXAMPLES].tolist()),
        shared=shared,
        shared_items=shared_items,
    )


def _read(path: Path) -> tuple[Ints, Hashes, Hashes]:
    """Read the items of one file, and hashes of their sequences and places, one row group at a time."""
    from pandas.util import hash_array, hash_pandas_object

    file = pq.ParquetFile(path)
    place = [name for name in _PLACE if name in file.schema_arrow.names]
    items, sequences, places = [], [], []
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["item", "sequence", *place])
        items.append(table["item"].to_numpy())
        sequences.append(hash_array(table["sequence"].to_numpy(), categorize=False))
        places.append(hash_pandas_object(table.select(place).to_pandas(), index=False).to_numpy())
    return np.concatenate(items), np.concatenate(sequences), np.concatenate(places)
