"""Draw few training rows from a split: nested and stratified subsets, each from a seed.

``n`` shots are n rows of each class if a row has one class, and n rows otherwise. Of a class with fewer rows, all are
taken. Rows with other labels are drawn in proportion to strata: the rarest label or class that a row has, or the tenth
of the split that its mean value lies in. The subset of n shots is the start of an order that depends on the seed, so it
is part of every larger subset of the same seed.

>>> in_proportion(np.array([0, 0, 0, 0, 1, 1]), seed=0)[:3].tolist()  # two of the stratum that is twice as large
[1, 5, 2]
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.config import ALL_SHOTS
from bend_hf.tasks._labels import LabelKind, RealValues, SequenceClass
from bend_hf.types import IGNORE_LABEL, Ints

if TYPE_CHECKING:
    from datasets import Dataset

PER_CLASS: Final = "rows of each class"
PER_ROW: Final = "rows"
_MANY: Final = 100  # shots from which fewer seeds are drawn
_N_SEEDS, _N_SEEDS_OF_MANY = 5, 3  # few rows differ more from draw to draw
_TENTHS: Final = 10


def seeds_of_shots(shots: str) -> tuple[int, ...]:
    """Return the seeds of the subsets: five below 100 shots, three from there on."""
    return tuple(range(_N_SEEDS if int(shots) < _MANY else _N_SEEDS_OF_MANY))


def unit_of(kind: LabelKind) -> str:
    """Return what a shot is, in words."""
    return PER_CLASS if isinstance(kind, SequenceClass) else PER_ROW


@dataclass(frozen=True, kw_only=True)
class ShotRows:
    """The order in which rows of a split are drawn with one seed.

    Attributes:
        order: All rows, shape (rows,).
        rank: Number of each row within its class, in the same order; the place in the order if rows have no class.
    """

    order: Ints
    rank: Ints

    @classmethod
    def of(cls, dataset: Dataset, kind: LabelKind, seed: int) -> ShotRows:
        """Order the rows of a split.

        Args:
            dataset: The split, with a column ``labels`` or ``label``.
            kind: Kind of the labels.
            seed: Seed of the order.
        """
        strata = strata_of(dataset, kind)
        if isinstance(kind, SequenceClass):
            rng = np.random.default_rng([seed, len(strata)])
            order = rng.permutation(len(strata))
            return cls(order=order, rank=_number_within(strata[order]))
        return cls(order=in_proportion(strata, seed=seed), rank=np.arange(len(strata)))

    def rows(self, shots: str) -> Ints:
        """Return the rows of a number of shots, sorted."""
        return np.sort(self.order if shots == ALL_SHOTS else self.order[self.rank < int(shots)])


def in_proportion(strata: Ints, *, seed: int) -> Ints:
    """Order rows so that the start of the order holds each stratum in proportion, whatever its length.

    The k-th of the m rows of a stratum, in random order, is placed at (k + u) / m, where u is drawn for each stratum.

    Args:
        strata: Stratum of each row, shape (rows,).
        seed: Seed of the order.
    """
    rng = np.random.default_rng([seed, len(strata)])
    shuffled = rng.permutation(len(strata))
    names, code = np.unique(strata[shuffled], return_inverse=True)
    sizes = np.bincount(code, minlength=len(names))
    place = (_number_within(code) + rng.random(len(names))[code]) / sizes[code]
    found: Ints = shuffled[np.argsort(place, kind="stable")]
    return found


def strata_of(dataset: Dataset, kind: LabelKind) -> Ints:
    """Return the stratum of each row, shape (rows,): class, rarest label or class, or tenth of its value."""
    column = "labels" if "labels" in dataset.column_names else "label"
    labels = dataset.select_columns([column]).with_format("arrow")[:][column]
    whole = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
    if pa.types.is_integer(whole.type) or pa.types.is_floating(whole.type):
        values, counts = whole.to_numpy(zero_copy_only=False), np.ones(len(whole), np.int64)
    else:
        values = whole.flatten().to_numpy(zero_copy_only=False)
        counts = np.diff(whole.offsets.to_numpy().astype(np.int64))
    row = np.repeat(np.arange(len(counts)), counts)
    if isinstance(kind, RealValues):
        return _tenths(values.astype(np.float64), row, len(counts))
    return _rarest(values.astype(np.int64), row, len(counts))


def _rarest(values: Ints, row: Ints, n_rows: int) -> Ints:
    """The label of each row that the fewest rows have; rows without a label share a stratum."""
    known = values != IGNORE_LABEL
    values, row = values[known], row[known]
    n_labels = int(values.max(initial=0)) + 1
    pairs = np.unique(row * n_labels + values)
    row, values = pairs // n_labels, pairs % n_labels
    n_rows_with = np.bincount(values, minlength=n_labels)
    rank = np.empty(n_labels, np.int64)
    rank[np.lexsort((np.arange(n_labels), n_rows_with))] = np.arange(n_labels)
    found = np.full(n_rows, n_labels, np.int64)
    np.minimum.at(found, row, rank[values])
    return found


def _tenths(values: NDArray[np.float64], row: Ints, n_rows: int) -> Ints:
    """The tenth of the rows that the mean of a row's values lies in; rows without a value share a stratum."""
    known = np.isfinite(values)
    sums = np.bincount(row[known], weights=values[known], minlength=n_rows)
    counts = np.bincount(row[known], minlength=n_rows)
    found = np.full(n_rows, _TENTHS, np.int64)
    has = np.flatnonzero(counts)
    order = np.argsort(sums[has] / counts[has], kind="stable")
    found[has[order]] = np.arange(len(has)) * _TENTHS // max(len(has), 1)
    return found


def _number_within(code: NDArray[Any]) -> Ints:
    """Number the entries of each code in their order: 0, 1, 2 and so on."""
    order = np.argsort(code, kind="stable")
    _, first, sizes = np.unique(code[order], return_index=True, return_counts=True)
    numbers = np.empty(len(code), np.int64)
    numbers[order] = np.arange(len(code)) - np.repeat(first, sizes)
    return numbers


def rows_sha256(dataset: Dataset, rows: Ints) -> str:
    """Hash the numbers of drawn rows in the file of the task, sorted."""
    item = dataset.select_columns(["item"]).with_format("arrow")[:]["item"].to_numpy()
    return hashlib.sha256(np.sort(item[rows]).astype("<i8").tobytes()).hexdigest()
