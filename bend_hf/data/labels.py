"""Read labels of every kind into one flat table: from a label column, or from HDF5, rectangular or ragged.

A row's labels are a slice of one flat array, whatever their kind: the indices of its positive labels, one class per
nucleotide, one class per bin, or a single class.

>>> table = labels_from_column(pa.array(["0,2", "", "1.0"]), MultiLabel(names=("a", "b", "c")))
>>> table.values.tolist(), table.offsets.tolist()
([0, 2, 1], [0, 2, 2, 3])
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bend_hf.data.hdf5 import check_declared, check_heaps, check_written, open_labels
from bend_hf.errors import LabelError
from bend_hf.files import read_text
from bend_hf.tasks._labels import (
    MOST_CLASSES,
    BinClasses,
    LabelKind,
    MultiLabel,
    NucleotideClasses,
    RealValues,
    SequenceClass,
)
from bend_hf.types import IGNORE_LABEL, Bools, Classes, Ints, Labels

if TYPE_CHECKING:
    import h5py

_ROWS_PER_READ: Final = 512  # ragged HDF5 rows held as objects at one time
_NUMBERS_PER_READ: Final = 1 << 24  # rectangular HDF5 labels held at one time
_MISSING: Final = r"^(?i:nan|na)?$"
_REAL: Final = r"^(nan|[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)$"
_N_NAMED: Final = 5  # bad rows that a message lists
_NAME_ALL: Final = "correct the labels, or name all of them in the .labels.txt next to the BED file"


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The labels of n rows.

    Attributes:
        values: Class indices of all rows, one row after the other; -100 marks a position without a label. Or real
            values, nan if one is missing.
        offsets: Where each row starts in ``values``, shape (n + 1,).
    """

    values: Labels
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: Ints) -> LabelTable:
        """Return the labels of some rows, in the order given."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        source = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return LabelTable(values=self.values[source], offsets=offsets)

    def flipped(self, rows: Bools) -> LabelTable:
        """Reverse the labels of the rows that are marked True, as their sequences are on the minus strand."""
        starts, ends = self.offsets[:-1], self.offsets[1:]
        lengths = np.diff(self.offsets)
        forward = np.arange(len(self.values))
        mirrored = np.repeat(starts + ends - 1, lengths) - forward
        return LabelTable(
            values=self.values[np.where(np.repeat(rows, lengths), mirrored, forward)], offsets=self.offsets
        )


def _row(row: int) -> str:
    return f"row {row + 1}"


def labels_from_column(
    column: pa.Array | pa.ChunkedArray,
    kind: MultiLabel | SequenceClass,
    *,
    where: str = "label column",
    named: Callable[[int], str] = _row,
    remedy: str | None = None,
) -> LabelTable:
    """Read a ``label`` column: comma-separated indices, or nothing; ``1.0`` means 1.

    Args:
        column: One string per row; null counts as empty.
        kind: Kind of the labels.
        where: Name of the file in messages.
        named: Names a row in messages, such as ``line 3``.
        remedy: What a message tells to do, if the labels are written in a place of their own.

    Raises:
        LabelError: A label is not a whole number or is out of range, or a row does not have exactly one class.
    """
    text = pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.large_string()), ""))
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    text = pc.if_else(pc.equal(text, ""), None, text)
    parts = pc.split_pattern(text, ",")
    counts = pc.fill_null(pc.list_value_length(parts), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    row_of = np.repeat(np.arange(len(counts)), counts)
    flat = pc.replace_substring_regex(pc.utf8_trim_whitespace(parts.flatten()), r"\.0*$", "")
    whole = pc.match_substring_regex(flat, r"^-?\d{1,9}$").to_numpy(zero_copy_only=False)
    if not whole.all():
        _refuse(
            where,
            row_of[~whole],
            named,
            [str(v) for v in parts.flatten().filter(pa.array(~whole))[:5]],
            _range(kind) if isinstance(kind, SequenceClass) else "whole numbers, comma-separated, or nothing",
            remedy or "write label indices, counted from 0",
        )
    values = flat.cast(pa.int64()).to_numpy(zero_copy_only=False)
    if isinstance(kind, SequenceClass) and (counts != 1).any():
        rows = np.flatnonzero(counts != 1)
        _refuse(
            where,
            rows,
            named,
            [str(counts[r]) + " values" for r in rows[:_N_NAMED]],
            "exactly one label per row",
            remedy or "write one class in each row",
        )
    outside = _outside(values, kind)
    if outside.any():
        shown = [str(v) for v in values[outside][:_N_NAMED]]
        _refuse(where, row_of[outside], named, shown, _range(kind), remedy or _NAME_ALL)
    return LabelTable(values=values.astype(np.int16), offsets=offsets)


def values_from_column(
    column: pa.Array | pa.ChunkedArray,
    kind: RealValues,
    *,
    where: str = "label column",
    named: Callable[[int], str] = _row,
    counts: bool = False,
) -> LabelTable:
    """Read a ``label`` column of real values: one per name, comma-separated. Every number is a value, -100.0 too.

    Args:
        column: One string per row; ``nan``, ``NA`` and nothing are missing, for a value or for the whole row.
        kind: Names of the values.
        where: Name of the file in messages.
        named: Names a row in messages, such as ``line 3``.
        counts: Whether values below zero are refused.

    Raises:
        LabelError: A value is not a finite number, or a row does not have one value per name.

    >>> values_from_column(pa.array(["-100.0", "", "2e1"]), RealValues(names=("a",))).values.tolist()
    [-100.0, nan, 20.0]
    """
    n_names = len(kind.names)
    text = pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.large_string()), ""))
    text = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    text = pc.if_else(pc.match_substring_regex(text, _MISSING), ",".join(["nan"] * n_names), text)
    parts = pc.split_pattern(text, ",")
    n_parts = pc.list_value_length(parts).to_numpy(zero_copy_only=False).astype(np.int64)
    wrong = np.flatnonzero(n_parts != n_names)
    if len(wrong):
        shown = [f"{n_parts[row]} values" for row in wrong[:_N_NAMED]]
        expected = f"{n_names} ({', '.join(kind.names[:_N_NAMED])})"
        _refuse(where, wrong, named, shown, expected, "write one number per name, comma-separated; NA if missing")
    flat = pc.utf8_trim_whitespace(parts.flatten())
    flat = pc.if_else(pc.match_substring_regex(flat, _MISSING), "nan", flat)
    numeric = pc.match_substring_regex(flat, _REAL).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        values = pc.if_else(pa.array(numeric), flat, "nan").cast(pa.float64()).to_numpy().astype(np.float32)
    bad = ~numeric | np.isinf(values) | (values < 0 if counts else False)
    if bad.any():
        rows = np.flatnonzero(bad) // n_names
        shown = flat.filter(pa.array(bad))[:_N_NAMED].to_pylist()
        expected = f"{'counts, 0 or more' if counts else 'finite numbers'}, comma-separated"
        _refuse(where, rows, named, shown, expected, "write NA if a value is missing")
    return LabelTable(values=values, offsets=np.arange(len(n_parts) + 1) * n_names)


def labels_from_hdf5(
    path: Path,
    kind: NucleotideClasses | BinClasses,
    lengths_bp: Ints,
    *,
    row_number: Callable[[int], int] = lambda row: row + 1,
) -> LabelTable:
    """Read the dataset ``labels`` of an HDF5 file, record i for row i.

    A rectangular dataset may be padded after a row's labels with a negative number; a ragged one holds one array per
    row. Inside a row, -100 marks a position without a label. A place that was never written is no label of class 0.

    Args:
        path: The HDF5 file.
        kind: Kind of the labels; it decides how many a row must have.
        lengths_bp: Length of each row's interval in nucleotides, shape (n,).
        row_number: Gives the line number of a row for messages.

    Raises:
        LabelError: The file is not HDF5, has no ``labels``, has another number of rows or of labels per row, was not
            written to its end, or holds a label that is out of range.
    """
    import h5py

    unit = kind.bin_bp if isinstance(kind, BinClasses) else 1
    expected = lengths_bp // unit
    with open_labels(path) as dataset:
        check_declared(dataset, path, expected)
        ragged = h5py.check_vlen_dtype(dataset.dtype) is not None
        if ragged:
            check_heaps(dataset)
        check_written(dataset, path, np.ones_like(expected) if ragged else expected, row_number=row_number)
        read = _read_ragged if ragged else _read_rectangular
        values = read(dataset, expected, path, row_number)
    offsets = np.concatenate([[0], np.cumsum(expected)])
    unlabeled = values == IGNORE_LABEL
    if ((values < 0) & ~unlabeled).any() or (values >= len(kind.names)).any():
        bad = np.flatnonzero(((values < 0) & ~unlabeled) | (values >= len(kind.names)))
        row_of = np.searchsorted(offsets, bad, side="right") - 1
        shown = [str(value) for value in values[bad][:_N_NAMED]]
        _refuse(str(path), row_of, lambda row: f"row {row_number(row)}", shown, _range(kind), _NAME_ALL)
    return LabelTable(values=values, offsets=offsets)


def _read_ragged(dataset: h5py.Dataset, expected: Ints, path: Path, row_number: Callable[[int], int]) -> Classes:
    blocks = []
    for start in range(0, len(expected), _ROWS_PER_READ):
        rows = dataset[start : start + _ROWS_PER_READ]
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))  # h5py gives objects, not a flat array
        _check_lengths(lengths, expected[start : start + len(rows)], start, path, row_number)
        blocks.append(_to_int16(np.concatenate(rows), path))
    return np.concatenate(blocks) if blocks else np.empty(0, np.int16)


def _read_rectangular(dataset: h5py.Dataset, expected: Ints, path: Path, row_number: Callable[[int], int]) -> Classes:
    width = dataset.shape[1] if dataset.ndim == 2 else 1
    too_long = np.flatnonzero(expected > width)
    if len(too_long):
        _check_lengths(np.full(len(expected), width), expected, 0, path, row_number)
    blocks = []
    rows_per_read = max(1, _NUMBERS_PER_READ // max(width, 1))
    for start in range(0, len(expected), rows_per_read):
        block = _to_int16(np.asarray(dataset[start : start + rows_per_read]).reshape(-1, width), path)
        inside = np.arange(width) < expected[start : start + len(block), None]
        padding = block[~inside]
        if (padding >= 0).any():
            row = start + int(np.flatnonzero(((block >= 0) & ~inside).any(axis=1))[0])
            raise LabelError(
                f"{path}, row {row_number(row)}: {width} labels for an interval that needs {expected[row]}; "
                "expected negative padding after the last one. Pad with -100"
            )
        blocks.append(block[inside])
    return np.concatenate(blocks) if blocks else np.empty(0, np.int16)


def _to_int16(values: NDArray[Any], path: Path) -> Classes:
    if values.dtype.kind not in "iufb":
        raise LabelError(f"{path}: 'labels' holds {values.dtype}; expected class indices (integers)")
    with np.errstate(invalid="ignore"):  # of nan and infinity, which are refused below
        out = values.astype(np.int16)
    if (out != values).any():
        odd = values[out != values][0]
        raise LabelError(f"{path}: label {odd} is not a class index; expected whole numbers below 32,768")
    return out


def _check_lengths(lengths: Ints, expected: Ints, first_row: int, path: Path, row_number: Callable[[int], int]) -> None:
    wrong = np.flatnonzero(lengths != expected)
    if len(wrong):
        row = int(wrong[0])
        raise LabelError(
            f"{path}, row {row_number(first_row + row)}: {lengths[row]} labels for an interval that needs "
            f"{expected[row]} ({len(wrong)} such rows); check start and end in the BED file against the labels"
        )


def _outside(values: Ints, kind: LabelKind) -> Bools:
    """Mark the labels that are not among the classes."""
    wrong: Bools = (values < 0) | (values >= min(len(kind.names), MOST_CLASSES))
    return wrong


def _range(kind: LabelKind) -> str:
    return f"0 to {min(len(kind.names), MOST_CLASSES) - 1}"


def _refuse(where: str, rows: Ints, named: Callable[[int], str], values: list[str], expected: str, remedy: str) -> None:
    told = "; ".join(f"{named(int(row))}: {value!r}" for row, value in zip(rows[:_N_NAMED], values, strict=False))
    raise LabelError(
        f"{where}: label out of range or unreadable in {len(np.unique(rows))} rows ({told}); "
        f"expected {expected}; {remedy}"
    )


def read_label_names(path: Path) -> tuple[str, ...]:
    """Read a ``.labels.txt`` file: one name per line, in index order. Blank lines at the end are skipped.

    Raises:
        InputError: The file is not UTF-8.
        LabelError: The file is empty, or a name is blank or occurs twice.
    """
    lines = re.split(r"\r\n|\r|\n", read_text(path).rstrip())  # not splitlines, which also cuts within a name
    names = tuple(line.strip() for line in lines)
    if not names or "" in names or len(set(names)) != len(names):
        raise LabelError(f"{path}: expected one label name per line, none blank or repeated; it holds {names[:8]}")
    return names
