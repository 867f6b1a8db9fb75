"""What is repeated in a built dataset: places that stand in it twice, and sequences that stand in two splits.

For the dataset card. A sequence that is trained on and tested on makes a score too good; it is counted and named,
never taken out in silence.

>>> sequence_hashes(np.frombuffer(b"ACGTACGTAC", np.uint8), np.array([0, 4, 8, 10])).tolist()[:2].count(0)
0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bend_hf.types import Bytes, Ints, Json

_EXAMPLES: Final = 5
_TEXT_OF_PLACE: Final = ("chromosome", "strand")
_MULTIPLIER: Final = np.uint64(0xFF51AFD7ED558CCD)  # 64-bit finaliser of MurmurHash3 (Appleby)


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How much of a dataset is repeated.

    Attributes:
        places: Rows whose place (for variants: place, REF and ALT) an earlier row has already.
        place_items: Items of the first such rows.
        shared: For each pair of splits, rows of the second whose sequence stands in the first.
        shared_items: For each pair, items of the first such rows.
    """

    places: int
    place_items: tuple[int, ...]
    shared: dict[str, int]
    shared_items: dict[str, tuple[int, ...]]

    def as_json(self) -> dict[str, Json]:
        """The same as plain JSON."""
        return {
            "rows_at_a_place_seen_before": self.places,
            "items_at_a_place_seen_before": list(self.place_items),
            "rows_with_a_sequence_of_another_split": dict(self.shared),
            "items_with_a_sequence_of_another_split": {name: list(items) for name, items in self.shared_items.items()},
        }


def repetitions(parts: Sequence[tuple[str, Sequence[Path]]]) -> Repetition:
    """Counts what is repeated in and between the parts of a dataset.

    Args:
        parts: Name and Parquet files of each split, or of each part of folds.
    """
    items, hashes, places = [], [], []
    for _, paths in parts:
        read = [_read(path) for path in paths]
        items.append(np.concatenate([part[0] for part in read]))
        hashes.append(np.concatenate([part[1] for part in read]))
        places.append(np.concatenate([part[2] for part in read]))
    all_items, all_places = np.concatenate(items), np.concatenate(places)
    _, first = np.unique(all_places, return_index=True)
    repeated = np.setdiff1d(np.arange(len(all_items)), first)
    shared, shared_items = {}, {}
    for low in range(len(parts)):
        for high in range(low + 1, len(parts)):
            again = items[high][np.isin(hashes[high], hashes[low])]
            if len(again):
                pair = f"{parts[low][0]}, {parts[high][0]}"
                shared[pair], shared_items[pair] = len(again), tuple(again[:_EXAMPLES].tolist())
    return Repetition(
        places=len(repeated),
        place_items=tuple(all_items[repeated][:_EXAMPLES].tolist()),
        shared=shared,
        shared_items=shared_items,
    )


def _read(path: Path) -> tuple[Ints, NDArray[np.uint64], NDArray[np.uint64]]:
    """Items, hashes of the sequences and hashes of the places of one file, a row group at a time."""
    file = pq.ParquetFile(path)
    text = [name for name in (*_TEXT_OF_PLACE, "ref", "alt") if name in file.schema_arrow.names]
    items, sequences, places = [], [], []
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["item", "sequence", "start", "end", *text])
        items.append(table["item"].to_numpy())
        for chunk in table["sequence"].chunks:
            column = chunk.cast(pa.large_string())
            offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
            letters = np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
            sequences.append(sequence_hashes(letters, offsets - offsets[0]))
        place = _mixed(table["start"].to_numpy().astype(np.uint64))
        place = _mixed(place + table["end"].to_numpy().astype(np.uint64))
        for name in text:
            place = _mixed(place + _hashes_of_names(table[name]))
        places.append(place)
    return np.concatenate(items), np.concatenate(sequences), np.concatenate(places)


def _hashes_of_names(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """A hash of each row of a column of few different words."""
    encoded = column.combine_chunks().dictionary_encode()
    words = [word.encode() for word in encoded.dictionary.to_pylist()]
    letters = np.frombuffer(b"".join(words), np.uint8)
    hashes: NDArray[np.uint64] = sequence_hashes(letters, np.cumsum([0, *map(len, words)]))[encoded.indices.to_numpy()]
    return hashes


def sequence_hashes(letters: Bytes, offsets: Ints) -> NDArray[np.uint64]:
    """A 64-bit hash of each of n byte strings laid end to end.

    Args:
        letters: Bytes of all of them, shape (sum of lengths,).
        offsets: Where each starts, shape (n + 1,).
    """
    lengths = np.diff(offsets)
    if len(lengths) == 0:
        return np.zeros(0, np.uint64)
    weights = np.random.default_rng(0).integers(0, 1 << 63, int(lengths.max()) + 1, np.uint64) * 2 + 1
    if (lengths == lengths[0]).all() and lengths[0] % 8 == 0 and lengths[0]:
        words = _mixed(letters.reshape(len(lengths), -1).view(np.uint64))
        total = (words * weights[: words.shape[1]]).sum(axis=1, dtype=np.uint64)
    else:
        place = np.arange(len(letters)) - np.repeat(offsets[:-1], lengths)
        running = np.concatenate(
            [np.zeros(1, np.uint64), np.cumsum(_mixed(letters.astype(np.uint64) + 1) * weights[place])]
        )
        total = running[offsets[1:]] - running[offsets[:-1]]
    return _mixed(total + lengths.astype(np.uint64) * weights[-1])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads every bit of a word over the word."""
    spread = (values ^ (values >> np.uint64(33))) * _MULTIPLIER
    return spread ^ (spread >> np.uint64(33))
