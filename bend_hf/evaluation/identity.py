"""Identity of items: hashes of what an item is, whatever file it came from and wherever it stood there.

An item is its place (chromosome, start, end and strand; of a variant chromosome, start, REF and ALT), its labels, and
the split that it belongs to. Two datasets hold the same items if the hashes of their items are the same, in any order.

>>> places = Places(chromosome=pa.array(["chr1", "chr2"]), start_bp=np.array([5, 7]), end_bp=np.array([9, 9]))
>>> place_keys(places).shape, place_keys(places).dtype
((2, 2), dtype('uint64'))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.types import Bools, Ints

Keys: TypeAlias = NDArray[np.uint64]

CONTENT: Final = "content"  # what a record's hash of items is taken of; earlier records took row numbers
_SEEDS: Final = np.array([0x9E3779B97F4A7C15, 0xD1B54A32D192ED03], np.uint64)  # odd; two independent chains
_CELLS: Final = 1 << 21  # labels that are hashed at once: 16 MiB
_NAN: Final = np.uint64(0x7FC00000)  # the usual bits of a nan, for every nan


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where n items lie.

    Attributes:
        chromosome: Names, length n.
        start_bp: Starts, 0-based, shape (n,).
        end_bp: Ends, exclusive, shape (n,); not used for variants.
        strand: ``+`` or ``-``, length n; None if all are ``+``.
        ref: Reference alleles, length n; None if the items are no variants.
        alt: Alternative alleles, length n.
    """

    chromosome: pa.Array
    start_bp: Ints
    end_bp: Ints
    strand: pa.Array | None = None
    ref: pa.Array | None = None
    alt: pa.Array | None = None


def mixed(code: Keys) -> Keys:
    """Scramble numbers, so that any range of the result is a fair sample (the finalizer of SplitMix64)."""
    code = (code ^ (code >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    code = (code ^ (code >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return code ^ (code >> np.uint64(31))


def places_of(columns: Mapping[str, pa.Array]) -> Places:
    """Take places from the columns of predictions or of a dataset."""
    return Places(
        chromosome=columns["chromosome"],
        start_bp=columns["start"].to_numpy().astype(np.int64),
        end_bp=columns["end"].to_numpy().astype(np.int64),
        strand=columns.get("strand"),
        ref=columns.get("ref"),
        alt=columns.get("alt"),
    )


def place_keys(places: Places) -> Keys:
    """Hash places to two numbers each, shape (n, 2)."""
    minus = np.zeros(len(places.start_bp), np.uint64)
    if places.strand is not None:
        minus = (_text_keys(places.strand) == _text_key("-")).astype(np.uint64)
    parts = [_text_keys(places.chromosome), _as_keys(places.start_bp), minus]
    if places.ref is not None and places.alt is not None:
        parts += [_text_keys(places.ref), _text_keys(places.alt)]
    else:
        parts.append(_as_keys(places.end_bp))
    return _chained(parts)


def row_keys(item: Ints) -> Keys:
    """Hash row numbers to two numbers each, shape (n, 2): for items without places."""
    return _chained([_as_keys(item)])


def item_keys(places: Keys, target: NDArray[Any], windows: Ints, split: NDArray[Any]) -> Keys:
    """Hash items to two numbers each: their places, labels and splits.

    Args:
        places: Hashes of the places, shape (n, 2).
        target: Labels of all windows, shape (N,) or (N, C), integers or real values.
        windows: Start of each item's windows, shape (n + 1,).
        split: Number of the fold of each item, 0 without folds, shape (n,).

    Returns:
        Shape (n, 2).
    """
    if not len(places):
        return places
    per_window = target.shape[1] if target.ndim == 2 else 1
    ends, flat = windows * per_window, target.reshape(-1)
    labels = np.zeros_like(places)
    for first, last in _groups(ends):
        labels[first:last] = _label_keys(flat[ends[first] : ends[last]], ends[first : last + 1] - ends[first])
    counts = _as_keys(np.diff(windows) * per_window)
    return np.stack([_chain(places[:, k], [counts, labels[:, k], _as_keys(split)]) for k in range(2)], axis=1)


def keys_sha256(keys: Keys) -> str:
    """Hash items in any order.

    Args:
        keys: Hashes of the items, shape (n, 2).
    """
    return hashlib.sha256(keys[order_of(keys)].astype("<u8").tobytes()).hexdigest()


def order_of(keys: Keys) -> Ints:
    """Sort keys; equal ones keep their order. Indices, shape (n,)."""
    return np.lexsort((keys[:, 1], keys[:, 0]))


def in_other(keys: Keys, other: Keys) -> Bools:
    """Whether each key is among other keys, shape (n,)."""
    one, two = _joined(keys), _joined(other)
    found: Bools = np.isin(one, two)
    return found


def _joined(keys: Keys) -> NDArray[np.void]:
    return np.ascontiguousarray(keys).view([("a", "<u8"), ("b", "<u8")]).reshape(-1)


def _groups(ends: Ints) -> Iterator[tuple[int, int]]:
    """Divide items into groups with a bounded number of labels; a large item is a group of its own."""
    first, n = 0, len(ends) - 1
    while first < n:
        last = int(np.searchsorted(ends, ends[first] + _CELLS, side="right")) - 1
        last = min(max(last, first + 1), n)
        yield first, last
        first = last


def _label_keys(labels: NDArray[Any], offsets: Ints) -> Keys:
    """Hash the labels of each item, which stand end to end, shape (n, 2)."""
    counts = np.diff(offsets)
    place = np.arange(len(labels)) - np.repeat(offsets[:-1], counts)
    if labels.dtype.kind == "f":
        values = (labels.astype(np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)
        values[np.isnan(labels)] = _NAN
    else:
        values = _as_keys(labels)
    found = np.empty((len(counts), 2), np.uint64)
    for k, seed in enumerate(_SEEDS):
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed(values ^ mixed(_as_keys(place) + seed)))])
        found[:, k] = total[offsets[1:]] - total[offsets[:-1]]
    return found


def _chained(parts: list[Keys]) -> Keys:
    return np.stack([_chain(np.full(len(parts[0]), seed), parts) for seed in _SEEDS], axis=1)


def _chain(state: Keys, parts: list[Keys]) -> Keys:
    for number, part in enumerate(parts):
        state = mixed(mixed(state + np.uint64(number + 1)) ^ part)
    return state


def _as_keys(values: NDArray[Any]) -> Keys:
    found: Keys = values.astype(np.int64).view(np.uint64)
    return found


def _text_keys(column: pa.Array | pa.ChunkedArray) -> Keys:
    """Hash texts, each distinct one once, shape (n,); null is the empty text."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    keys = np.array([_text_key(text or "") for text in [*codes.dictionary.to_pylist(), ""]], np.uint64)
    numbers = codes.indices.fill_null(len(keys) - 1) if codes.indices.null_count else codes.indices
    found: Keys = keys[numbers.to_numpy(zero_copy_only=False).astype(np.int64)]
    return found


def _text_key(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
