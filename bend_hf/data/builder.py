"""The ``datasets`` builder of all tasks: BED, labels and genome in, a ``DatasetDict`` out.

It is configured by a task's files and named by their content, so that a changed file never reads an old cache.
``bend_hf.data.dataset.open_task`` is the short way to a task's splits.

>>> from bend_hf.tasks import TASKS
>>> list(features(TASKS.get("gene_finding")))
['item', 'chromosome', 'start', 'end', 'strand', 'sequence', 'labels']
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import datasets
import numpy as np
import pyarrow as pa
from datasets.builder import Key

from bend_hf import __version__
from bend_hf.data.examples import TaskExamples
from bend_hf.data.hdf5 import label_files
from bend_hf.data.sequences import SequenceBatch
from bend_hf.data.sources import label_citations, label_license
from bend_hf.data.variants import Variants
from bend_hf.errors import BendError, own_error
from bend_hf.files import file_name, file_sha256, json_sha256
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, NucleotideClasses, RealValues, SequenceClass
from bend_hf.types import Ints, Json

TABLE_FORMAT: Final = 1  # raised when the columns change, so that older caches are not used
_TABLE_BP: Final = 1 << 24
_OWN_COLUMNS: Final = frozenset({"item", "chromosome", "start", "end", "strand", "sequence", "label", "labels"})
_READ_COLUMNS: Final = frozenset({"chromosome", "start", "end", "strand", "split", "label"})
# datasets would otherwise replace what opens files in this module by functions that read over the network, and import
# scipy.io to find out whether it is used here. Files are opened elsewhere, and are on disk.
_patched_for_streaming: Final = True


def features(task: TaskSpec, further: tuple[str, ...] = ()) -> datasets.Features:
    """Return the columns of a task's dataset.

    Args:
        task: The declaration.
        further: Columns of the BED file that are kept as text.
    """
    named = datasets.ClassLabel(names=list(task.label_names))
    columns: dict[str, Any] = {
        "item": datasets.Value("int64"),
        "chromosome": datasets.Value("string"),
        "start": datasets.Value("int64"),
        "end": datasets.Value("int64"),
        "strand": datasets.Value("string"),
        "sequence": datasets.Value("large_string"),
    }
    if task.variant is not None:
        columns |= {
            "variant_offset": datasets.Value("int32"),
            "ref": datasets.Value("string"),
            "alt": datasets.Value("string"),
        }
    if isinstance(task.label, SequenceClass):
        columns["label"] = named
    else:
        real = isinstance(task.label, RealValues)
        columns["labels"] = datasets.List(datasets.Value("float32") if real else named)
    return datasets.Features(columns | {name: datasets.Value("string") for name in further})


class GenerationError(BendError, datasets.exceptions.DatasetGenerationError):  # type: ignore[misc]  # no types
    """An error of this package inside ``datasets``, which raises its own kind of error as it is, also from a worker.

    Attributes:
        own: The error.
    """

    def __init__(self, own: BendError) -> None:
        super().__init__(own)
        self.own = own


@dataclass
class BendConfig(datasets.BuilderConfig):  # type: ignore[misc]  # datasets has no types
    """One task's files, read and checked.

    Attributes:
        rows: Content of the files; None only for the configuration that ``datasets`` makes by default.
        flip_labels: Whether labels of nucleotides are reversed on the minus strand, as the sequence is.
    """

    rows: TaskExamples | None = None
    flip_labels: bool = True

    @property
    def examples(self) -> TaskExamples:
        """Content of the files.

        Raises:
            BendError: The builder was made without files.
        """
        if self.rows is None:
            raise BendError("the dataset builder has no files; make it with bend_hf.data.builder.make_builder")
        return self.rows

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The sha256 of each input file; of labels in several files, that of their checksums."""
        files = self.examples.files
        named = {"bed": files.bed, "label_names": files.label_names, "genome": files.genome}
        hashes = {name: file_sha256(path) for name, path in named.items() if path is not None}
        if files.hdf5 is not None:
            parts = [file_sha256(path) for path in label_files(files.hdf5)]
            hashes["labels"] = parts[0] if len(parts) == 1 else json_sha256(list(parts))
        return hashes

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides the dataset's content."""
        rows = self.examples
        decides: Json = {
            "table_format": TABLE_FORMAT,
            "hashes": dict(self.hashes),
            "task": repr(rows.task),
            "out_of_bounds": rows.out_of_bounds,
            "dropped": hashlib.sha256(rows.keep.tobytes()).hexdigest(),
            "flip_labels": self.flip_labels,
        }
        return json_sha256(decides)

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """Name the cache folder by task and content."""
        return f"{self.name}-{self.fingerprint[:32]}"


class TableBuilder(datasets.ArrowBasedBuilder):  # type: ignore[misc]  # datasets has no types
    """Builds a dataset table by table from rows of files, and raises the errors of this package as they are."""

    VERSION = datasets.Version(__version__)

    @abstractmethod
    def _table(self, chosen: Ints) -> pa.Table:
        """Read some rows."""

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise if a file has changed since it was read."""

    def _generate_tables(self, tables: list[Ints]) -> Iterator[tuple[Key, pa.Table]]:
        schema = self.info.features.arrow_schema
        for number, chosen in enumerate(tables):
            try:
                table = self._table(chosen).cast(schema)
            except BendError as error:
                raise GenerationError(error) from error
            yield Key(number, 0), table
        try:
            self.check_unchanged()  # before datasets keeps what was written
        except BendError as error:
            raise GenerationError(error) from error

    def download_and_prepare(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  those of datasets
        """Build the dataset; see ``datasets.DatasetBuilder.download_and_prepare``.

        Raises:
            BendError: A file is bad. ``datasets`` would raise a ``DatasetGenerationError`` that does not say why.
        """
        try:
            super().download_and_prepare(*args, **options)
            return
        except datasets.exceptions.DatasetGenerationError as error:
            own = own_error(error)
            if own is None:
                raise
        raise own.own if isinstance(own, GenerationError) else own  # here, so that the wrapper is not its context


class BendBuilder(TableBuilder):
    """Builds the dataset of one task; its splits are train, validation and test, or the subsets of folds."""

    BUILDER_CONFIG_CLASS = BendConfig

    @property
    def _rows(self) -> TaskExamples:
        rows: TaskExamples = self.config.examples
        return rows

    def _further(self) -> dict[str, str]:
        """Return the columns of the BED file that are kept as text, by their name in the dataset."""
        skip = _READ_COLUMNS | ({"ref", "alt"} if self._rows.variants is not None else set())
        names = [name for name in self._rows.bed.columns.column_names if name not in skip]
        own = {*_OWN_COLUMNS, *features(self._rows.task)}
        further: dict[str, str] = {}
        for name in names:
            free = name
            while free in own or free in further or (free != name and free in names):
                free = f"bed_{free}"
            further[free] = name
        return further

    def _info(self) -> datasets.DatasetInfo:
        task, origin = self._rows.task, self._rows.files.origin
        return datasets.DatasetInfo(
            description=task.description,
            license=label_license(task, origin),
            citation="\n\n".join(citation.bibtex() for citation in label_citations(task, origin)),
            features=features(task, tuple(self._further())),
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        rows = self._rows
        context_bp = 2 * rows.task.variant.stored_context_bp if rows.task.variant is not None else 0
        length_bp = rows.bed.end_bp - rows.bed.start_bp + context_bp
        found = {name: rows.rows_of(subset) for subset, name in enumerate(rows.subset_names)}
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"tables": row_tables(chosen, length_bp[chosen])})
            for name, chosen in found.items()
            if len(chosen)
        ]

    def check_unchanged(self) -> None:
        """Raise if a file of the task has changed since it was read."""
        self._rows.check_unchanged()

    def _table(self, chosen: Ints) -> pa.Table:
        """Read the columns of some rows."""
        rows, bed = self._rows, self._rows.bed
        picked = pa.array(chosen)
        if rows.variants is not None and rows.task.variant is not None:
            sequences, own = _variant_sequences(rows, rows.variants, rows.task.variant.stored_context_bp, chosen)
        else:
            strand = rows.strand()
            sequences = rows.genome.fetch(
                bed.chromosome.take(picked),
                bed.start_bp[chosen],
                bed.end_bp[chosen],
                None if strand is None else strand[chosen],
                out_of_bounds=rows.out_of_bounds,
                describe=lambda row: bed.describe(int(chosen[row])),
            )
            chosen, own = chosen[sequences.kept], {}
            picked = pa.array(chosen)
        columns: dict[str, pa.Array] = {
            "item": picked,
            "chromosome": bed.chromosome.take(picked).cast(pa.string()),
            "start": pa.array(bed.start_bp[chosen]),
            "end": pa.array(bed.end_bp[chosen]),
            "strand": _strand_text(rows, chosen),
            "sequence": sequences.to_arrow(),
            **own,
            **_label_column(rows, chosen, flip=self.config.flip_labels),
        }
        for name, column in self._further().items():
            columns[name] = bed.columns[column].take(picked).combine_chunks()
        return pa.table(columns)


def row_tables(chosen: Ints, length_bp: Ints) -> list[Ints]:
    """Divide row numbers into tables with a bounded number of nucleotides; at least one table.

    Args:
        chosen: Row numbers, at least one, shape (n,).
        length_bp: Their nucleotides, shape (n,).
    """
    total_bp = np.cumsum(length_bp)
    edges = np.searchsorted(total_bp, np.arange(_TABLE_BP, total_bp[-1], _TABLE_BP))
    return [table for table in np.split(chosen, edges) if len(table)]


def _variant_sequences(
    rows: TaskExamples, variants: Variants, context_bp: int, chosen: Ints
) -> tuple[SequenceBatch, dict[str, pa.Array]]:
    """Read the sequence around each variant, with as much context as the contig has, and the columns of variants."""
    bed = rows.bed
    names = bed.chromosome.take(pa.array(chosen))
    length_of = np.array([rows.genome.contigs[name] for name in names.dictionary.to_pylist()], np.int64)
    position = variants.position_bp[chosen]
    start = np.maximum(position - context_bp, 0)
    end = np.minimum(position + context_bp + 1, length_of[names.indices.to_numpy()])
    sequences = rows.genome.fetch(names, start, end, describe=lambda row: bed.describe(int(chosen[row])))
    return sequences, {
        "variant_offset": pa.array((position - start).astype(np.int32)),
        "ref": variants.ref.take(pa.array(chosen)),
        "alt": variants.alt.take(pa.array(chosen)),
    }


def _strand_text(rows: TaskExamples, chosen: Ints) -> pa.Array:
    strand = rows.strand()
    minus = np.zeros(len(chosen), np.int64) if strand is None else (strand[chosen] < 0).astype(np.int64)
    return pa.array(["+", "-"]).take(pa.array(minus))


def _label_column(rows: TaskExamples, chosen: Ints, *, flip: bool) -> dict[str, pa.Array]:
    labels = rows.labels.take(chosen)
    strand = rows.strand()
    if flip and strand is not None and isinstance(rows.task.label, NucleotideClasses | BinClasses):
        labels = labels.flipped(strand[chosen] < 0)
    values = pa.array(labels.values if labels.values.dtype.kind == "f" else labels.values.astype(np.int64))
    if isinstance(rows.task.label, SequenceClass):
        return {"label": values}
    return {"labels": pa.ListArray.from_arrays(pa.array(labels.offsets.astype(np.int32)), values)}


def make_builder(rows: TaskExamples, *, flip_labels: bool = True, cache_dir: Path | None = None) -> BendBuilder:
    """Make the builder of a task's files."""
    return BendBuilder(
        cache_dir=None if cache_dir is None else str(cache_dir),
        dataset_name=file_name(rows.task.key),
        config_name=file_name(rows.task.key),
        rows=rows,
        flip_labels=flip_labels,
    )
