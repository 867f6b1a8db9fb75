"""The rows of a task as arrays: sequences, places, splits and labels.

>>> references(("train", "validation", "test"), folds=False).tolist()
[[False, False, False], [True, False, False], [True, True, False]]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bend_hf.data.dataset import TaskData
from bend_hf.data.sequences import COMPLEMENT
from bend_hf.errors import InputError
from bend_hf.evaluation.audit.kmers import Sequences, letters_of
from bend_hf.tasks import Folds, TaskSpec, Unsplit
from bend_hf.types import Bools, Bytes, Ints

if TYPE_CHECKING:
    from datasets import Dataset

Digests = NDArray[np.bytes_]

_BATCH: Final = 4096  # rows read at once
_DIGEST_BYTES: Final = 16
_ORDER: Final = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Labels of R rows, end to end; of real values, only the hashes.

    Attributes:
        values: All labels, shape (sum of counts,).
        offsets: Start of each row's labels, and the end of the last, shape (R + 1,).
        digest: Hash of each row's labels, shape (R,).
    """

    values: NDArray[np.int16]
    offsets: Ints
    digest: Digests


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditRows:
    """R rows of all splits.

    Attributes:
        item: Item ids, shape (R,).
        split_names: Names of the splits, or of the subsets that folds are made of.
        split: Index of each row's split, shape (R,).
        references: Whether rows of the first split are compared with those of the second, shape (splits, splits).
        chromosome_names: Names of the chromosomes.
        chromosome: Index of each row's chromosome, shape (R,).
        start_bp: Start of the sequence, 0-based, shape (R,).
        end_bp: End of the sequence, exclusive, shape (R,).
        sequences: The sequences.
        digest: Hash of each sequence as it is read, shape (R,).
        canonical: Hash of the sequence or of its reverse complement, whichever is smaller in order, shape (R,).
        labels: The labels.
    """

    item: Ints
    split_names: tuple[str, ...]
    split: Ints
    references: Bools
    chromosome_names: tuple[str, ...]
    chromosome: Ints
    start_bp: Ints
    end_bp: Ints
    sequences: Sequences
    digest: Digests
    canonical: Digests
    labels: Labels

    def __len__(self) -> int:
        return len(self.item)


def references(split_names: tuple[str, ...], *, folds: bool) -> Bools:
    """Say which splits are compared: with every earlier one, or each subset of folds with all others.

    Returns:
        Whether rows of the first split are looked up in the second, shape (splits, splits).
    """
    n = len(split_names)
    if folds:
        return ~np.eye(n, dtype=np.bool_)
    rank = np.array([_ORDER.get(name, 0) for name in split_names])
    return rank[:, None] > rank[None, :]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The rows of one split, wherever they are stored.

    Attributes:
        n_rows: Number of rows.
        n_bytes: Size of the sequences, about.
        tables: Yields the rows, some at a time.
    """

    n_rows: int
    n_bytes: int
    tables: Callable[[], Iterator[pa.Table]]


def parquet_subset(paths: Sequence[Path]) -> Subset:
    """Take the rows of a split from its Parquet files."""
    files = [pq.ParquetFile(path) for path in paths]

    def tables() -> Iterator[pa.Table]:
        for file in files:
            for batch in file.iter_batches(_BATCH):
                yield pa.Table.from_batches([batch])

    columns = [file.schema_arrow.names.index("sequence") for file in files]
    n_bytes = sum(
        file.metadata.row_group(group).column(column).total_uncompressed_size
        for file, column in zip(files, columns, strict=True)
        for group in range(file.num_row_groups)
    )
    return Subset(n_rows=sum(file.metadata.num_rows for file in files), n_bytes=n_bytes, tables=tables)


def dataset_subset(subset: Dataset) -> Subset:
    """Take the rows of a split from its dataset."""
    chunks = subset.data["sequence"].chunks
    return Subset(
        n_rows=len(subset),
        n_bytes=sum(chunk.buffers()[2].size for chunk in chunks if chunk.buffers()[2] is not None),
        tables=lambda: subset.with_format("arrow").iter(_BATCH),
    )


def read_rows(data: TaskData) -> AuditRows:
    """Read the rows of a task.

    Raises:
        InputError: The task has no rows.
    """
    return read_subsets(data.task, {name: dataset_subset(subset) for name, subset in data.subsets.items()})


def read_subsets(task: TaskSpec, subsets: Mapping[str, Subset]) -> AuditRows:
    """Read the rows of splits, or of the subsets that folds are made of.

    Raises:
        InputError: The task has no rows.
    """
    names = tuple(subsets)
    if not any(subset.n_rows for subset in subsets.values()):
        raise InputError(f"{task.key} has no rows to audit; check the BED file")
    folds = isinstance(task.partition, Folds)
    unsplit = isinstance(task.partition, Unsplit)
    reader = _Reader(task, subsets)
    sequences = Sequences.of_batches(reader.letters(), n_bp=sum(subset.n_bytes for subset in subsets.values()))
    tables = reader.tables
    chromosome = _column(tables, "chromosome")
    chromosome_names, numbers = np.unique(chromosome, return_inverse=True)
    start_bp = _column(tables, "start").astype(np.int64)
    if task.variant is not None:
        # Alternative bases of one place have one sequence, and are different rows all the same.
        alleles = zip(_column(tables, "ref"), _column(tables, "alt"), strict=True)
        changes = [f"{ref}>{alt}" for ref, alt in alleles]
        for digests in (reader.digests, reader.canonical):
            digests[:] = [_digest((one + change).encode()) for one, change in zip(digests, changes, strict=True)]
        start_bp -= _column(tables, "variant_offset").astype(np.int64)
    return AuditRows(
        item=_column(tables, "item").astype(np.int64),
        split_names=names,
        split=np.repeat(np.arange(len(names)), [subset.n_rows for subset in subsets.values()]),
        references=np.zeros((len(names), len(names)), np.bool_) if unsplit else references(names, folds=folds),
        chromosome_names=tuple(map(str, chromosome_names)),
        chromosome=numbers.astype(np.int64),
        start_bp=start_bp,
        end_bp=start_bp + sequences.length_bp,
        sequences=sequences,
        digest=np.array(reader.digests, f"S{2 * _DIGEST_BYTES}"),
        canonical=np.array(reader.canonical, f"S{2 * _DIGEST_BYTES}"),
        labels=Labels(
            values=np.concatenate([np.zeros(0, np.int16), *reader.label_values]),
            offsets=np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *reader.label_counts]))]),
            digest=np.array(reader.label_digests, f"S{2 * _DIGEST_BYTES}"),
        ),
    )


def _column(tables: list[pa.Table], name: str) -> NDArray[Any]:
    found: NDArray[Any] = pa.chunked_array([c for table in tables for c in table[name].chunks]).to_numpy()
    return found


class _Reader:
    """Reads the splits batch by batch; sequences are handed on, small columns and hashes are kept."""

    def __init__(self, task: TaskSpec, subsets: Mapping[str, Subset]) -> None:
        self.subsets = subsets
        self.tables: list[pa.Table] = []
        self.digests: list[str] = []
        self.canonical: list[str] = []
        self.label_values: list[NDArray[np.int16]] = []
        self.label_counts: list[Ints] = []
        self.label_digests: list[str] = []
        self.kept = ["item", "chromosome", "start"] + (
            ["variant_offset", "ref", "alt"] if task.variant is not None else []
        )

    def letters(self) -> Iterator[tuple[Bytes, Ints]]:
        """Yield the letters and lengths of each batch of rows."""
        for subset in self.subsets.values():
            for table in subset.tables():
                self.tables.append(table.select(self.kept))
                self._read_labels(table)
                for letters, lengths in letters_of(table["sequence"]):
                    self._hash(letters, lengths)
                    yield letters, lengths

    def _hash(self, letters: Bytes, lengths: Ints) -> None:
        text = letters.tobytes().upper()
        end = 0
        for length in lengths.tolist():
            one = text[end : end + length]
            end += length
            other = one[::-1].translate(COMPLEMENT)
            self.digests.append(_digest(one))
            self.canonical.append(self.digests[-1] if one <= other else _digest(other))

    def _read_labels(self, table: pa.Table) -> None:
        for chunk in table["labels" if "labels" in table.column_names else "label"].chunks:
            if "labels" in table.column_names:
                offsets = chunk.offsets.to_numpy().astype(np.int64)
                values = chunk.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
                offsets = offsets - offsets[0]
            else:
                values = chunk.to_numpy(zero_copy_only=False)
                offsets = np.arange(len(values) + 1)
            content, starts = values.tobytes(), (offsets * values.itemsize).tolist()
            if values.dtype.kind == "f":
                values, offsets = values[:0], np.zeros_like(offsets)
            self.label_values.append(values.astype(np.int16))
            self.label_counts.append(np.diff(offsets))
            self.label_digests += [_digest(content[a:b]) for a, b in pairwise(starts)]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()
